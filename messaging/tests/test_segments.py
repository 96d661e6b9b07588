"""Routes of several segments: found, read in order and in parallel, written, decimated."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from messaging import (
    SERVICES,
    LogFileError,
    LogReader,
    LogWriter,
    SegmentWriter,
    log_files,
    new_message,
    to_bytes,
)
from messaging.segments import Decimation

S = 1_000_000_000
LOG_ID = "000001d4--2648a9a404"


def car_state(time_ns: int) -> Any:
    message = new_message("carState", valid=True)
    message.logMonoTime = time_ns
    return message


def write(path: Path, messages: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with LogWriter(path) as writer:
        for message in messages:
            writer.write(message)


def times(reader: LogReader) -> list[int]:
    return [event.logMonoTime for event in reader]


@pytest.mark.parametrize(
    "layout",
    ["{route}--{n}/rlog.zst", "{route}--{n}/rlog.bz2", "{n}/rlog", "{route}--{n}--rlog.zst"],
)
def test_segments_are_read_in_order(tmp_path: Path, layout: str) -> None:
    for number in range(12):  # 10 comes after 9, not after 1
        write(tmp_path / layout.format(route=LOG_ID, n=number), [car_state(number)])
    assert times(LogReader(tmp_path)) == list(range(12))
    if "route" in layout:
        assert times(LogReader(tmp_path / LOG_ID)) == list(range(12))
        assert times(LogReader(tmp_path / f"{LOG_ID}--7")) == [7]


def test_folder_of_one_segment_and_kinds(tmp_path: Path) -> None:
    segment = tmp_path / f"{LOG_ID}--3"
    write(segment / "rlog.zst", [car_state(1)])
    write(segment / "rlog.bz2", [car_state(2)])
    write(segment / "qlog.zst", [car_state(3)])
    (segment / "rlog.lock").touch()
    assert log_files(segment) == [segment / "rlog.zst"]
    assert times(LogReader(segment, kind="qlog")) == [3]
    assert times(LogReader([segment / "rlog.bz2", str(segment)])) == [2, 1]
    with pytest.raises(LogFileError, match="'slog' is no kind of log: use rlog or qlog"):
        LogReader(segment, kind="slog")


def test_what_is_no_route(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(LogFileError, match=f"there is no rlog in {tmp_path}"):
        LogReader(tmp_path)
    for route in ("a", "b"):
        write(tmp_path / f"{route}--0" / "rlog", [car_state(1)])
    with pytest.raises(LogFileError, match=f"has segments of 2 routes: .* say {tmp_path}/a"):
        LogReader(tmp_path)
    with pytest.raises(LogFileError, match=r"cannot read log .*/c: No such file, folder or route"):
        LogReader(tmp_path / "c")
    write(tmp_path / "a--5" / "rlog", [car_state(2)])
    with caplog.at_level(logging.WARNING):
        assert times(LogReader(tmp_path / "a")) == [1, 2]
    assert "4 segments are missing, the first is 1" in caplog.text


def test_filter_does_not_decode_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = []
    for index in range(10):
        messages += [car_state(index), new_message("modelV2"), new_message("liveCalibration")]
    write(tmp_path / "rlog", messages)
    decoded = []

    def count(data: bytes) -> Any:
        decoded.append(data)
        return original(data)

    import messaging.logfile

    original = messaging.logfile.decode
    monkeypatch.setattr(messaging.logfile, "decode", count)
    reader = LogReader(tmp_path / "rlog", services=["carState", "liveCalibration"])
    assert Counter(event.which() for event in reader) == {
        "carState": 10,
        "extrinsicsCalibration": 10,
    }
    assert len(decoded) == 20
    assert [data for _, data in reader.raw()] == decoded  # and raw() decodes nothing
    assert len(decoded) == 20


def test_parallel_gives_the_same(tmp_path: Path) -> None:
    for number in range(5):
        segment = tmp_path / f"{LOG_ID}--{number}"
        write(segment / "rlog.zst", [car_state(100 * number + index) for index in range(100)])
    damaged = tmp_path / f"{LOG_ID}--2" / "rlog.zst"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    one, two = LogReader(tmp_path), LogReader(tmp_path, parallel=2)
    assert [data for _, data in two.raw()] == [data for _, data in one.raw()]
    assert one.problem is not None
    assert (two.problem, two.messages) == (one.problem, one.messages)
    assert times(two) == times(one)
    assert times(one)[-1] == 499  # what is damaged ends its segment, not the route
    for reader in (one, two):
        iterator = iter(reader)
        assert next(iterator).logMonoTime == 0
        iterator.close()  # type: ignore[attr-defined]  # it is a generator


def sentinels(path: Path) -> list[tuple[str, int, int]]:
    return [
        (str(event.sentinel.type), event.logMonoTime, event.sentinel.signal)
        for event in LogReader(path, services=["sentinel"])
    ]


def test_rotation(tmp_path: Path) -> None:
    folder = tmp_path / "realdata"
    init_data = new_message("initData", valid=True)
    init_data.initData.version = "1.2.3"
    writer = SegmentWriter(folder, LOG_ID, init_data=init_data)
    start = 500 * S
    stamps = [start, start + 59 * S, start + 1, start + 60 * S, start + 200 * S, start + 61 * S]
    for stamp in stamps:
        writer.write(car_state(stamp))
        writer.write(new_message("sentinel"))  # left out: each file has its own
        if stamp == start + 60 * S:
            assert (folder / f"{LOG_ID}--1" / "rlog.lock").exists()
            assert not (folder / f"{LOG_ID}--0" / "rlog.lock").exists()
    writer.close(signal=15)
    writer.close()
    assert not list(folder.glob("*/rlog.lock"))

    # a minute each; silence is no segment; time that jumps back over a minute begins a new one
    segments = [folder / f"{LOG_ID}--{number}" for number in range(4)]
    assert sorted(folder.iterdir()) == segments
    expected = [stamps[:3], stamps[3:4], stamps[4:5], stamps[5:]]
    for segment, own in zip(segments, expected, strict=True):
        assert times(LogReader(segment, services=["carState"])) == own
        for kind in ("rlog", "qlog"):
            events = list(LogReader(segment, kind=kind))
            assert events[0].initData.version == "1.2.3"
            assert events[1].which() == events[-1].which() == "sentinel"
    assert sentinels(segments[0]) == [("startOfRoute", start, 0), ("endOfSegment", start + 1, 0)]
    assert sentinels(segments[3]) == [
        ("startOfSegment", stamps[5], 0),
        ("endOfRoute", stamps[5], 15),
    ]
    assert sum(1 for _ in LogReader(folder)) == len(stamps) + 3 * 4

    with pytest.raises(LogFileError, match=f"cannot write segment .*{LOG_ID}--0: File exists"):
        SegmentWriter(folder, LOG_ID).write(car_state(1))


def test_same_messages_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with SegmentWriter(tmp_path / name, LOG_ID) as writer:
            for second in range(130):
                writer.write(car_state(second * S))
    files = [path.relative_to(tmp_path / "a") for path in sorted(tmp_path.glob("a/*/*"))]
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("service", "kept"),
    [
        ("carState", [0, 10, 20]),
        ("deviceState", list(range(25))),
        ("radarState", [0, 5, 10, 15, 20]),
        ("modelV2", []),
        ("qNarrowRoadEncodeIdx", list(range(25))),  # not in its table, but always kept
        ("livestreamNarrowRoadEncodeIdx", []),
        ("can", [0]),
    ],
)
def test_decimation(service: str, kept: list[int]) -> None:
    decimation = Decimation()
    assert [index for index in range(25) if decimation.keeps(service)] == kept


def test_decimation_counts_over_the_whole_route(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, LOG_ID) as writer:
        for index in range(24):  # six a segment, every tenth is kept
            writer.write(car_state(index * 10 * S))
    kept = [times(LogReader(tmp_path / f"{LOG_ID}--{n}", kind="qlog", services=["carState"]))
            for n in range(4)]
    assert kept == [[0], [100 * S], [], [200 * S]]
    assert not Decimation().keeps(None)
    assert SERVICES["carState"].decimation == 10


def test_full_disk_in_the_middle_of_a_route(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, LOG_ID)
    writer.write(car_state(0))
    writer.flush()
    (tmp_path / f"{LOG_ID}--1").touch()  # in the way of the next segment
    with pytest.raises(LogFileError, match="cannot write segment"):
        writer.write(car_state(60 * S))
    writer.close()
    assert sentinels(tmp_path / f"{LOG_ID}--0")[-1][0] == "endOfSegment"
    assert to_bytes(car_state(0)) in [data for _, data in LogReader(tmp_path / LOG_ID).raw()]
