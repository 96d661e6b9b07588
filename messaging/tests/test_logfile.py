"""Log files: written, read back, cut and damaged in every kind of place."""

import bz2
import logging
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from messaging import (
    LogFileError,
    LogReader,
    LogWriter,
    MessageError,
    decode,
    new_message,
    peek,
    to_bytes,
)
from messaging.schema import MEMBER_BY_TAG

EXTENSIONS = [".zst", ".bz2", ""]


def messages(count: int, seed: int = 0) -> list[bytes]:
    """Model messages with contents that do not compress to nothing."""
    generator = random.Random(seed)
    made = []
    for index in range(count):
        message = new_message("modelV2", valid=bool(index % 2))
        message.logMonoTime = 1_000_000 * index
        message.modelV2.frameId = index
        message.modelV2.position.x = [generator.random() for _ in range(33)]
        made.append(to_bytes(message))
    return made


def write(path: Path, contents: list[bytes]) -> bytes:
    with LogWriter(path) as writer:
        for content in contents:
            writer.write(content)
    assert writer.messages == len(contents)
    return path.read_bytes()


def frame_ids(reader: LogReader) -> list[int]:
    return [event.modelV2.frameId for event in reader]


def compress(extension: str, content: bytes) -> bytes:
    """By the libraries alone."""
    if extension == ".zst":
        return zstandard.ZstdCompressor().compress(content)
    return bz2.compress(content) if extension == ".bz2" else content


def decompress(extension: str, content: bytes) -> bytes:
    if extension == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(content).read()
    return bz2.decompress(content) if extension == ".bz2" else content


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_write_and_read_back(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    made = messages(300)
    content = write(path, made)
    # other tools find the plain concatenation of messages in it
    assert decompress(extension, content) == b"".join(made)
    reader = LogReader(path)
    for _ in range(2):  # a reader can be read again
        events = list(reader)
        assert [event.modelV2.frameId for event in events] == list(range(300))
        assert [event.logMonoTime for event in events] == [peek(m).logMonoTime for m in made]
        assert [event.valid for event in events] == [bool(i % 2) for i in range(300)]
        assert reader.problem is None
        assert (reader.messages, reader.unknown, reader.malformed) == (300, 0, 0)
    assert write(path, made) == content  # same messages, same bytes


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_others_wrote(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    made = messages(20)
    halves = b"".join(made[:10]), b"".join(made[10:])
    # files put together from two
    path.write_bytes(b"".join(compress(extension, half) for half in halves))
    reader = LogReader(path)
    assert frame_ids(reader) == list(range(20))
    assert reader.problem is None
    # without a name, the first bytes tell
    assert frame_ids(LogReader(path.read_bytes())) == list(range(20))


def test_builders_are_taken(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "rlog.zst") as writer:
        writer.write(new_message("initData"))
    assert [event.which() for event in LogReader(tmp_path / "rlog.zst")] == ["initData"]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_empty_log(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    write(path, [])
    reader = LogReader(path)
    assert list(reader) == []
    assert reader.problem is None


def test_plain_log_cut_at_every_byte(caplog: pytest.LogCaptureFixture) -> None:
    made = messages(3)
    content = b"".join(made)
    ends = [0, len(made[0]), len(made[0] + made[1]), len(content)]
    for cut in range(len(content) + 1):
        reader = LogReader(content[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert frame_ids(reader) == list(range(whole))
        if cut in ends:
            assert reader.problem is None
        else:
            assert reader.problem == (
                f"log is readable up to byte {ends[whole]} of its content, the "
                f"{cut - ends[whole]} bytes after it are dropped: the last message is cut off"
            )
    with caplog.at_level(logging.WARNING):
        list(LogReader(content[:-1]))
    assert "the last message is cut off" in caplog.text


@pytest.mark.parametrize("extension", [".zst", ".bz2"])
def test_compressed_log_cut_anywhere(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    made = messages(150)
    content = write(path, made)
    plain = b"".join(made)
    positions = [0, 1, 3, 4, 5, 20, *range(0, len(content), len(content) // 25), len(content) - 1]
    lengths = []
    for cut in sorted(positions):
        path.write_bytes(content[:cut])
        reader = LogReader(path)
        read = frame_ids(reader)
        assert read == list(range(len(read)))
        lengths.append(len(read))
        if cut == 0:
            assert reader.problem is None
            continue
        assert reader.problem is not None
        assert f"the compressed file is cut off after {cut} bytes" in reader.problem
        # no message is lost that the decompressor alone would have given
        decoder = (
            zstandard.ZstdDecompressor().decompressobj()
            if extension == ".zst"
            else bz2.BZ2Decompressor()
        )
        available = decoder.decompress(content[:cut])
        assert plain.startswith(available)
        assert len(read) == len(available) // len(made[0])
    assert lengths == sorted(lengths)
    if extension == ".zst":
        assert lengths[-1] >= 100  # flushed there


@pytest.mark.parametrize("extension", [".zst", ".bz2"])
def test_damage_inside_keeps_everything_before(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    made = messages(6000)
    content = bytearray(write(path, made))
    half = len(content) // 2
    content[half : half + 64] = bytes(64)
    path.write_bytes(content)
    reader = LogReader(path)
    read = frame_ids(reader)
    # blocks of zstd hold at most 128 KiB, streams of bzip2 900 kB; all before the damaged one is
    # there (zstd has no checksum of a block: the damaged one may come out wrong before it ends)
    block = {".zst": 128 * 1024, ".bz2": 1_000_000}[extension] // len(made[0])
    sound = 3000 - block
    assert sound > 0
    assert read[:sound] == list(range(sound))
    assert reader.problem is not None
    assert "the compressed file is damaged before byte" in reader.problem


@pytest.mark.parametrize("extension", [".zst", ".bz2"])
def test_every_message_before_the_damaged_block_is_kept(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    with LogWriter(path) as writer:
        for content in messages(5):
            writer.write(content)
        writer.flush()
        sound = path.stat().st_size
        for content in messages(5):
            writer.write(content)
    damaged = bytearray(path.read_bytes())
    # right behind the flush: no block of zstd and no stream of bzip2 begins like this
    damaged[sound : sound + 8] = b"\xff" * 8
    path.write_bytes(damaged)
    reader = LogReader(path)
    assert frame_ids(reader) == list(range(5))
    assert reader.problem is not None
    assert "the compressed file is damaged before byte" in reader.problem


def test_one_wrong_bit_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "rlog.zst"
    content = bytearray(write(path, messages(50)))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    reader = LogReader(path)
    list(reader)
    assert reader.problem is not None
    assert "the compressed file is damaged" in reader.problem


def test_garbage_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rlog.zst"
    content = write(path, messages(10))
    path.write_bytes(content + b"garbage!")
    reader = LogReader(path)
    assert frame_ids(reader) == list(range(10))
    assert reader.problem is not None
    assert f"the compressed file is damaged before byte {len(content) + 8}" in reader.problem


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (struct.pack("<II", 0xFFFF_FFFE, 1), "claims 4294967295 segments"),
        (struct.pack("<II", 0, 0xFFFF_FFFF), "claims 34359738368 bytes"),
    ],
)
def test_hostile_sizes_are_refused(table: bytes, reason: str) -> None:
    made = messages(2)
    reader = LogReader(b"".join(made) + table + bytes(1000))
    assert frame_ids(reader) == [0, 1]
    assert reader.problem is not None
    assert reason in reader.problem
    assert "the 1008 bytes after it are dropped" in reader.problem


def test_compression_bombs_are_not_unpacked(tmp_path: Path) -> None:
    # a frame that asks for a window of 1 GiB
    path = tmp_path / "rlog.zst"
    window = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=window).compressobj()
    path.write_bytes(compressor.compress(bytes(100)) + compressor.flush())
    reader = LogReader(path)
    assert list(reader) == []
    assert reader.problem is not None
    assert "memory" in reader.problem.lower()


def from_the_future() -> bytes:
    """An Event with a union tag that our schema does not have."""
    tag = 400
    assert tag not in MEMBER_BY_TAG
    root = struct.pack("<iHH", 0, 2, 1)
    return struct.pack("<II", 0, 4) + root + struct.pack("<QHHIQ", 77, tag, 0, 0, 0)


def test_unknown_messages() -> None:
    made = messages(2)
    content = made[0] + from_the_future() + made[1]
    reader = LogReader(content)
    assert frame_ids(reader) == [0, 1]
    assert (reader.messages, reader.unknown, reader.problem) == (2, 1, None)
    every = LogReader(content, only_known=False)
    assert [event.logMonoTime for event in every] == [0, 77, 1_000_000]
    assert (every.messages, every.unknown) == (3, 1)


def test_malformed_messages_are_left_out() -> None:
    made = messages(3)
    broken = bytearray(made[1])
    broken[32:40] = struct.pack("<iHH", 4 * 0x0FFF_FFFF, 6, 17)  # Event.modelV2 points nowhere
    with pytest.raises(MessageError):
        decode(bytes(broken))
    reader = LogReader(made[0] + bytes(broken) + made[2])
    assert frame_ids(reader) == [0, 2]
    assert (reader.malformed, reader.problem) == (1, None)


def test_writer_refuses_what_is_no_message(tmp_path: Path) -> None:
    path = tmp_path / "rlog"
    made = messages(2)
    with LogWriter(path) as writer:
        writer.write(made[0])
        with pytest.raises(MessageError):
            writer.write(made[1][:-8])
        writer.write(made[1])
    assert frame_ids(LogReader(path)) == [0, 1]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match=r"cannot read log .*none\.zst: No such file"):
        LogReader(tmp_path / "none.zst")
    with pytest.raises(LogFileError, match=r"cannot write log .*: No such file"):
        LogWriter(tmp_path / "none" / "rlog.zst")


WRITE_FOR_EVER = """
import sys
from messaging import LogWriter, new_message
writer = LogWriter(sys.argv[1])
count = 0
while True:
    message = new_message("modelV2")
    message.modelV2.frameId = count
    writer.write(message)
    count += 1
    if count == 1050:
        print("enough", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("extension", [".zst", ""])
def test_killed_writer_loses_little(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"rlog{extension}"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "enough\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    reader = LogReader(path)
    read = frame_ids(reader)
    assert read == list(range(len(read)))
    assert 1000 <= len(read) <= 1050


def test_flush_makes_everything_readable(tmp_path: Path) -> None:
    for extension in EXTENSIONS:
        path = tmp_path / f"flushed{extension}"
        with LogWriter(path) as writer:
            for content in messages(7):
                writer.write(content)
            writer.flush()
            assert frame_ids(LogReader(path)) == list(range(7))
