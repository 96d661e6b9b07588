"""Camera source: frames and camera states reach the bus, pacing keeps time."""
from __future__ import annotations

import numpy as np

from messaging import Bus, FrameClient, Stream, SubMaster
from modeld.source import CameraSource, Picture, SourceFrame, paced


def test_pace() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    taken = []
    for item in paced("abcd", 20, lambda: now[0], sleep):
        taken.append((item, round(now[0] - 100, 6)))
        now[0] += 0.12 if item == "b" else 0.01  # b takes too long, c is late, d on time again
    assert taken == [("a", 0.0), ("b", 0.05), ("c", 0.17), ("d", 0.18)]
    assert len(slept) == 1


def test_frames_and_states_on_the_bus() -> None:
    bus = Bus.fresh()
    source = CameraSource(bus, {Stream.NARROW_ROAD: (64, 48)},
                          {Stream.NARROW_ROAD: (100.0, 32.0, 24.0)}, sensor="ox03c10")
    client = FrameClient(Stream.NARROW_ROAD, bus=bus)
    states = SubMaster(["narrowRoadCameraState"], bus=bus, conflate=False)
    try:
        assert client.connect(30)
        assert client.intrinsics == (100.0, 32.0, 24.0)
        assert source.wait_for_readers(30)
        rng = np.random.default_rng(0)
        picture = Picture(rng.integers(0, 256, (48, 64), np.uint8),
                          rng.integers(0, 256, (24, 32, 2), np.uint8))
        source.publish(SourceFrame(7, 1000, 2000, {Stream.NARROW_ROAD: picture}), {"carState": 5})
        frame = client.receive(30_000)
        assert frame is not None
        assert (frame.frame_id, frame.timestamp_sof, frame.timestamp_eof) == (7, 1000, 2000)
        np.testing.assert_array_equal(frame.luma, picture.luma)
        np.testing.assert_array_equal(frame.chroma, picture.chroma)
        assert frame.barrier is not None
        assert frame.barrier["carState"] == 5
        assert states.wait_for(frame.barrier, 30)  # the camera state is part of the barrier
        state = states["narrowRoadCameraState"]
        assert (state.frameId, state.timestampEof, str(state.sensor)) == (7, 2000, "ox03c10")
    finally:
        client.close()
        states.close()
        source.close()
        bus.remove()
