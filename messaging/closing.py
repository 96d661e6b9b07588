"""What everything that is closed has in common: it can be used in a `with` statement."""

from types import TracebackType
from typing import Self


class Closing:
    """Leaving the `with` block closes; subclasses say what that means."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
