"""The viewer in a real browser, on a live bus with a camera and a daemon that are made here."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from messaging import Bus, FrameGeometry, FrameServer, PubMaster, Stream, new_message
from selfdrive_tests import __main__ as command
from selfdrive_tests.drives import Camera, DriveError
from selfdrive_tests.video import Picture
from selfdrive_tests.viewer import Channel, Scene, Viewer, follow

WIDTH, HEIGHT = 320, 160


def plan_event(frame_id: int) -> Any:
    event = new_message("modelV2", valid=True)
    model = event.modelV2
    model.frameId = frame_id
    model.modelExecutionTime = 0.0123
    model.action.desiredCurvature = 0.001
    x = np.linspace(1.0, 100.0, 33)
    for name, values in zip("xyz", (x, 0.001 * x**2, 0 * x), strict=True):
        setattr(model.position, name, values.tolist())
    return event


def speed_event(speed: float) -> Any:
    event = new_message("carState", valid=True)
    event.carState.vEgo = speed
    return event


@pytest.fixture
def live_bus() -> Iterator[Bus]:
    """A bus on which a camera shows grey and a daemon answers, 20 times a second."""
    bus, stop = Bus.fresh(), threading.Event()
    luma = np.full((HEIGHT, WIDTH), 90, np.uint8)
    chroma = np.full((HEIGHT // 2, WIDTH // 2, 2), 128, np.uint8)

    def publish() -> None:
        geometry = FrameGeometry.padded(WIDTH, HEIGHT)
        with (
            FrameServer(Stream.NARROW_ROAD, geometry, (440.0, 160.0, 60.0), bus=bus) as camera,
            PubMaster(["modelV2", "carState", "extrinsicsCalibration"], bus=bus) as daemon,
        ):
            frame_id = 0
            while not stop.wait(0.05):
                camera.publish(luma, frame_id, 0, 0, chroma=chroma)
                daemon.send("carState", speed_event(17.0))
                daemon.send("modelV2", plan_event(frame_id))
                frame_id += 1

    thread = threading.Thread(target=publish)
    thread.start()
    yield bus
    stop.set()
    thread.join()
    bus.remove()


def test_a_plan_is_shown_on_the_picture_that_it_was_made_from() -> None:
    scene = Scene()
    pictures = [
        Picture(i, 0.0, np.full((8, 16), i, np.uint8), np.zeros((4, 8, 2), np.uint8))
        for i in range(3)
    ]
    for picture in pictures:
        scene.show_picture(picture.index, picture, Camera(16, 8, 20.0, (8.0, 4.0)))
    scene.hear("carState", speed_event(12.0))
    scene.hear("modelV2", plan_event(7))  # its picture was never seen
    assert scene.take(0.0) is None
    scene.hear("modelV2", plan_event(1))
    view = scene.take(0.0)
    assert view is not None
    assert view.picture is pictures[1] and view.record.speed == 12.0
    assert scene.take(0.0) is None


def test_a_slow_reader_gets_the_newest_event_and_the_last_one() -> None:
    channel = Channel()
    for number in range(5):
        channel.send({"number": number})
    number, data, last = channel.after(0)
    assert (number, data, last) == (5, b'data: {"number":4}\n\n', False)
    channel.close("Over.")
    assert channel.after(number)[1:] == (b"event: end\ndata: Over.\n\n", True)


def test_unknown_addresses_are_refused() -> None:
    with Viewer(Scene(), "nothing", port=0) as viewer:
        assert b"Waiting for the first plan" in urlopen(viewer.address).read()
        port = int(viewer.address.split(":")[-1].strip("/"))
        with pytest.raises(DriveError, match=f"on port {port} .* another one with --port"):
            Viewer(Scene(), "a second one", port)
        with pytest.raises(OSError, match="404"):
            urlopen(viewer.address + "etc/passwd")


def test_a_bus_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["ui", "--bus", "http://here"]) == 2
    assert "'http://here' is no bus" in capsys.readouterr().err


def test_a_live_bus_is_seen_in_the_browser(live_bus: Bus, browser: Any) -> None:
    scene, stop = Scene(), threading.Event()
    thread = threading.Thread(target=follow, args=(live_bus, scene, stop))
    thread.start()
    try:
        with Viewer(scene, "a <live> bus", port=0) as viewer:
            browser.open(viewer.address)
            browser.wait("board.time.length >= 20")
            assert browser.value("picture.naturalWidth") == 768
            assert "the plan is valid, 12.3 ms" in browser.value("state.textContent")
            assert browser.value("document.querySelector('h1').textContent") == "a <live> bus"
            speed = "board.plots.find((plot) => plot.title.startsWith('Speed')).series[0].values"
            assert browser.value(f"{speed}.at(-1)") == 17.0
            # The path is drawn in its green: somewhere the picture is no longer grey.
            browser.wait(
                "(() => { const c = document.createElement('canvas'); c.width = 768;"
                " c.height = 384; const p = c.getContext('2d'); p.drawImage(picture, 0, 0);"
                " const d = p.getImageData(384, 300, 1, 1).data; return d[1] > d[0] + 15; })()"
            )
            seen = browser.value("board.time.at(-1)")
            time.sleep(0.1)
            browser.wait(f"board.time.at(-1) > {seen}")
    finally:
        stop.set()
        thread.join()
    browser.wait("state.textContent == 'The stream has ended.'")
