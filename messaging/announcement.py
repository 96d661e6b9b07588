"""What a frame server says on the bus about each frame: a small canonical JSON object."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from messaging.errors import FrameError

_NUMBERS = ("server", "count", "frame_id", "timestamp_sof", "timestamp_eof")


@dataclass(frozen=True)
class Announcement:
    """Where to find a frame and what goes with it.

    server: number of the ring. count: frames this server published before, which tells the slot.
    The others: see nv12.Frame.
    Raises FrameError for a frame id that no message can hold.
    """

    server: int
    count: int
    frame_id: int
    timestamp_sof: int
    timestamp_eof: int
    valid: bool
    barrier: dict[str, int] | None

    def __post_init__(self) -> None:
        if not 0 <= self.frame_id < 2**32:  # as the log has it
            raise FrameError(f"the frame id {self.frame_id} does not fit into 32 bits")

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises FrameError for anything but an announcement."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise FrameError("an announcement of a frame is not JSON") from None
        if not isinstance(value, dict) or value.keys() != cls.__dataclass_fields__.keys():
            raise FrameError("an announcement of a frame does not have the fields it should have")
        numbers = [value[name] for name in _NUMBERS]
        barrier = value["barrier"]
        if isinstance(barrier, dict):
            numbers += barrier.values()
        sound = barrier is None or isinstance(barrier, dict)
        if not (sound and isinstance(value["valid"], bool) and all(map(_is_count, numbers))):
            raise FrameError("an announcement of a frame holds values of the wrong type")
        return cls(**value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64
