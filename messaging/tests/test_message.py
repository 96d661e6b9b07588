"""Messages: making, peeking, decoding, and refusing what is none."""

import random
import struct
import subprocess
import sys
import time

import pytest

from messaging import MessageError, UnknownServiceError, decode, new_message, peek, to_bytes
from messaging.message import MAX_MESSAGE_BYTES, framed_size
from messaging.schema import TAG_BY_MEMBER


def by_hand(tag: int, mono_time: int, bits: int = 0) -> bytes:
    """An Event as the encoding rules say: one segment, root struct of 2 data words, 1 pointer."""
    root = struct.pack("<iHH", 0, 2, 1)
    return struct.pack("<II", 0, 4) + root + struct.pack("<QHHIQ", mono_time, tag, bits, 0, 0)


def test_peek_and_decode_agree_with_the_encoding_rules() -> None:
    data = by_hand(TAG_BY_MEMBER["carState"], 1234567890123)
    assert peek(data) == (TAG_BY_MEMBER["carState"], 1234567890123, True)
    assert peek(data).member == "carState"
    event = decode(data)
    assert (event.which(), event.logMonoTime, event.valid) == ("carState", 1234567890123, True)
    assert event.carState.vEgo == 0
    # `valid` is stored inverted, as bit 80
    invalid = by_hand(TAG_BY_MEMBER["carState"], 1, bits=1)
    assert not peek(invalid).valid
    assert not decode(invalid).valid


@pytest.mark.parametrize("valid", [True, False])
def test_peek_agrees_with_the_schema(valid: bool) -> None:
    for member, tag in TAG_BY_MEMBER.items():
        message = new_message(member, valid=valid)
        data = to_bytes(message)
        assert peek(data) == (tag, message.logMonoTime, valid)
        event = decode(data)
        assert (event.which(), event.valid) == (member, valid)


def test_new_message() -> None:
    before = time.monotonic_ns()
    message = new_message("modelV2")
    assert before <= message.logMonoTime <= time.monotonic_ns()
    assert not message.valid
    assert new_message("liveCalibration").which() == "extrinsicsCalibration"
    assert len(new_message("can", 3).can) == 3
    assert len(new_message("pandaStates").pandaStates) == 0
    assert new_message("logMessage").logMessage == ""
    with pytest.raises(MessageError, match="carState is not a list"):
        new_message("carState", 3)
    with pytest.raises(UnknownServiceError, match="no service 'carStat'; did you mean carState"):
        new_message("carStat")


def test_a_builder_can_be_sent_and_logged(recwarn: pytest.WarningsRecorder) -> None:
    message = new_message("modelV2")
    assert to_bytes(message) == to_bytes(message)
    assert not recwarn.list


def test_readers_may_be_kept_and_read_for_ever() -> None:
    message = new_message("modelV2")
    message.modelV2.position.x = [1.0, 2.0, 3.0]
    event = decode(to_bytes(message))
    del message
    # Cap'n Proto's default limit would end this: every access counts
    for _ in range(2000):
        assert list(event.modelV2.position.x) == [1.0, 2.0, 3.0]


def test_large_message() -> None:
    message = new_message("ubloxRaw")
    message.ubloxRaw = bytes(20_000_000)
    assert len(decode(to_bytes(message)).ubloxRaw) == 20_000_000


def test_message_of_several_segments() -> None:
    message = new_message("modelV2")
    message.modelV2.rawPredictions = bytes(range(256)) * 200  # does not fit in the first segment
    data = to_bytes(message)
    assert struct.unpack_from("<I", data)[0] > 0
    assert peek(data) == (TAG_BY_MEMBER["modelV2"], message.logMonoTime, False)
    assert decode(data).modelV2.rawPredictions == bytes(range(256)) * 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes, its segment table is cut off"),
        (b"\0\0\0", "3 bytes, its segment table is cut off"),
        (by_hand(1, 1)[:-8], "32 bytes, 40 are announced"),
        (by_hand(1, 1) + bytes(8), "48 bytes, 40 are announced"),
        (struct.pack("<I", 0xFFFFFFFE) + bytes(4), "4294967295 segments, at most 512"),
        (struct.pack("<II", 0, 0xFFFFFFFF), "claims 34359738368 bytes"),
        (struct.pack("<II", 0, 0), "first segment is empty"),
        (struct.pack("<II", 0, 1) + struct.pack("<iHH", 4 * 100, 2, 1), "root pointer leaves"),
        (struct.pack("<II", 0, 1) + struct.pack("<iHH", -8, 0, 0), "root pointer leaves"),
        (struct.pack("<II", 0, 1) + struct.pack("<II", 1, 0), "root pointer is not one"),
    ],
)
def test_what_is_no_message(data: bytes, reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        decode(data)


def test_claimed_size_is_limited() -> None:
    assert framed_size(struct.pack("<II", 0, MAX_MESSAGE_BYTES // 8 - 1)) == MAX_MESSAGE_BYTES
    with pytest.raises(MessageError, match="at most"):
        framed_size(struct.pack("<II", 0, MAX_MESSAGE_BYTES // 8))


def test_a_pointer_bomb_is_refused() -> None:
    # each list holds eight pointers to the next list: 8^8 elements in a few hundred bytes
    levels, width = 8, 8
    words: list[bytes] = [struct.pack("<iHH", 0, 2, 1)]
    words += [struct.pack("<Q", 1), struct.pack("<HHI", TAG_BY_MEMBER["initData"], 0, 0)]
    words.append(struct.pack("<iHH", 0, 2, 21))  # Event.initData
    words += [bytes(8)] * 2
    words.append(struct.pack("<iI", 20 << 2 | 1, 6 | width << 3))  # kernelArgs, pointers
    words += [bytes(8)] * 20
    for level in range(levels):
        for index in range(width):
            ahead = width - 1 - index
            last = level == levels - 1
            words.append(bytes(8) if last else struct.pack("<iI", ahead << 2 | 1, 6 | width << 3))
    data = struct.pack("<II", 0, len(words)) + b"".join(words)
    with pytest.raises(MessageError, match="traversal limit"):
        decode(data)


FUZZ = """
import random
from messaging import MessageError, decode, new_message, to_bytes
message = new_message("modelV2")
message.modelV2.position.x = [1.0, 2.0, 3.0]
message.modelV2.init("leadsV3", 3)
message.modelV2.rawPredictions = b"abc"
good = to_bytes(message)
generator = random.Random(1)
refused = 0
for _ in range(3000):
    data = bytearray(good)
    for _ in range(generator.randint(1, 4)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    try:
        decode(bytes(data))
    except MessageError:
        refused += 1
print(refused)
"""


def test_damaged_messages_raise_and_do_not_end_the_process() -> None:
    # in a process of its own: a C++ exception that nobody translates would abort it
    command = [sys.executable, "-c", FUZZ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 500 < int(done.stdout) < 3000


def test_damaged_bytes_never_raise_anything_else_from_peek() -> None:
    good = to_bytes(new_message("carState"))
    generator = random.Random(2)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(24)] = generator.randrange(256)
        try:
            peek(bytes(data[: generator.randint(0, len(data))]))
        except MessageError:
            continue
