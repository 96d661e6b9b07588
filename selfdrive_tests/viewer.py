"""The viewer: a page in the browser with the pictures, the plan drawn on them, and live plots.

    drive-replay DRIVE --model M --ui         a replay, as it goes
    drive-replay ui --bus NS                  whatever runs on a bus

A `Scene` brings pictures and plans together, a thread draws the newest pair, and an HTTP server
sends it to every browser as a server-sent event; a browser that is slow gets fewer. It listens on
this machine alone: from elsewhere, `ssh -L 8017:localhost:8017 HOST` makes a tunnel.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from messaging import Bus, FrameError, MessagingError, Stream, SubMaster
from messaging.closing import Closing
from messaging.frame_transport import frame_receiver
from selfdrive_tests.drives import RATE_HZ, Calibration, Camera, DriveError
from selfdrive_tests.overlay import Panel, draw
from selfdrive_tests.pictures import picture_size
from selfdrive_tests.plans import FrameRecord, Plan, calibration_from_event, plan_from_event
from selfdrive_tests.plots import plain_numbers, plots, plots_element, plots_script
from selfdrive_tests.report import LEGEND, document
from selfdrive_tests.video import Picture

PORT = 8017
SERVICES = ("modelV2", "carState", "extrinsicsCalibration")
# Pictures that wait for their plan; a plan that is later than that finds none.
WAITING = 16
# Focal length over width where the stream does not say: a comma device's narrow camera.
USUAL_FOCAL = 2648.0 / 1928.0
JPEG_QUALITY = 80
IDLE_S = 0.5
_WAIT_S = 1.0


@dataclass(frozen=True)
class View:
    """A plan and the picture that it was made from."""

    record: FrameRecord
    picture: Picture
    camera: Camera


class Scene:
    """Brings pictures, plans and what the car says together; the newest complete view is kept.

    Used from two threads: one tells it what it hears, the other takes views.
    """

    def __init__(self) -> None:
        self._pictures: dict[int, tuple[Picture, Camera]] = {}
        self._speed = 0.0
        self._calibration: Calibration | None = None
        self._view: View | None = None
        self._changed = threading.Condition()

    def show_picture(self, frame_id: int, picture: Picture, camera: Camera) -> None:
        """A frame of the narrow camera."""
        self._pictures[frame_id] = (picture, camera)
        while len(self._pictures) > WAITING:
            del self._pictures[next(iter(self._pictures))]

    def hear(self, service: str, event: Any) -> None:
        """A message of any service; those that are of no use here are left out."""
        if service == "carState":
            self._speed = event.carState.vEgo
        elif service == "extrinsicsCalibration":
            self._calibration = calibration_from_event(event)
        elif service == "modelV2":
            self._complete(plan_from_event(event))

    def _complete(self, plan: Plan) -> None:
        found = self._pictures.get(plan.frame_id)
        if found is None:
            return
        record = FrameRecord(plan.frame_id, self._speed, self._calibration, plan)
        with self._changed:
            self._view = View(record, *found)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> View | None:
        """The newest view that was not taken yet; None if none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._view is not None, timeout_s)
            view, self._view = self._view, None
            return view


def event_of(view: View, model: str) -> dict[str, Any]:
    """What the page needs of a view, as plain data; see viewer.js."""
    record, plan = view.record, view.record.plan
    assert plan is not None
    width, height = picture_size(view.camera)
    seconds = record.frame_id / RATE_HZ
    panel = Panel(record.frame_id, seconds, record.speed, model)
    camera = view.camera.scaled(width, height)
    rgb = view.picture.rgb(width, height)
    data = io.BytesIO()
    drawn = Image.fromarray(draw(rgb, plan, camera, record.calibration, panel))
    drawn.save(data, "JPEG", quality=JPEG_QUALITY)
    values = np.concatenate([line.values for plot in plots([record]) for line in plot.series])
    return {
        "picture": "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode(),
        "seconds": seconds,
        "good": plan.valid,
        "state": f"frame {record.frame_id}: the plan is {'' if plan.valid else 'not '}valid, "
        f"{plan.execution_s * 1e3:.1f} ms",
        "values": plain_numbers(values),
    }


def viewer_page(title: str) -> str:
    """The page as it is before the first event."""
    body = (
        f'<header><p class="kind">Viewer</p><h1>{escape(title)}</h1>'
        '<p class="verdict bad" id="state">Waiting for the first plan.</p></header>\n'
        f'{LEGEND}<img id="picture" alt="the road and the plan">\n'
        f"<section>{plots_element('live', plots([]), [])}</section>\n"
        f"<script>\n{plots_script()}</script>\n"
        f"<script>\n{(files('selfdrive_tests') / 'viewer.js').read_text(encoding='utf-8')}</script>"
    )
    return document(title, body)


class Channel:
    """The newest event for any number of readers; old ones are thrown away."""

    def __init__(self) -> None:
        self._event = b""
        self._number = 0
        self._closed = False
        self._changed = threading.Condition()

    def send(self, event: Mapping[str, Any]) -> None:
        """Put an event in the place of the one before."""
        self._put(f"data: {json.dumps(event, separators=(',', ':'))}\n\n", closed=False)

    def close(self, text: str) -> None:
        """Send a last event, which tells the page that there will be no more."""
        self._put(f"event: end\ndata: {text}\n\n", closed=True)

    def _put(self, text: str, closed: bool) -> None:
        with self._changed:
            self._event, self._closed = text.encode(), closed
            self._number += 1
            self._changed.notify_all()

    def after(self, number: int) -> tuple[int, bytes, bool]:
        """The first event newer than `number`: its number, its bytes, whether it is the last.

        After a second without one a comment comes, which shows whether the reader is still there.
        """
        with self._changed:
            if self._changed.wait_for(lambda: self._number > number, _WAIT_S):
                return self._number, self._event, self._closed
        return number, b": still here\n\n", False


class Viewer(Closing):
    """Draws what a scene shows and serves it; a context manager.

    port: 0 takes any that is free. Raises DriveError for one that is taken.
    """

    def __init__(self, scene: Scene, title: str, port: int = PORT) -> None:
        self._scene, self._title = scene, title
        self._channel = Channel()
        self._stop = threading.Event()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise DriveError(
                f"The viewer cannot be served on port {port} ({error.strerror}). Choose another "
                "one with --port."
            ) from error
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._draw, name="viewer-draw", daemon=True),
            threading.Thread(target=self._server.serve_forever, name="viewer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://localhost:{self._server.server_address[1]}/"

    def _draw(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            view = self._scene.take(IDLE_S)
            if view is not None:
                self._channel.send(event_of(view, self._title))
            # A replay may run faster than anybody can look.
            self._stop.wait(max(0.0, began + 1 / RATE_HZ - time.monotonic()))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        title, channel = self._title, self._channel

        class Handler(BaseHTTPRequestHandler):
            """Two addresses: the page, and its events."""

            def do_GET(self) -> None:
                if self.path == "/":
                    self._answer("text/html; charset=utf-8", viewer_page(title).encode())
                elif self.path == "/events":
                    self._stream()
                else:
                    self.send_error(404)

            def _answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                number, last = 0, False
                try:
                    while not last:
                        number, data, last = channel.after(number)
                        self.wfile.write(data)
                except ConnectionError:
                    return  # the page was closed

            def log_message(self, *_: Any) -> None:
                """The terminal is for the replay."""

        return Handler

    def close(self) -> None:
        """Tell the pages that this was all, and stop serving."""
        self._channel.close("The stream has ended.")
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()


def follow(bus: Bus, scene: Scene, stop: threading.Event) -> None:
    """Tell a scene what is on a bus, until `stop` is set.

    Raises FrameError if the shared memory of the camera is none we can read.
    """
    with (
        SubMaster(SERVICES, bus=bus, conflate=False) as messages,
        closing(frame_receiver(Stream.NARROW_ROAD, bus)) as client,
    ):
        while not stop.is_set():
            frame = client.receive(1000 / RATE_HZ / 4)
            if frame is not None:
                height, width = frame.luma.shape
                focal, cx, cy = client.intrinsics or (USUAL_FOCAL * width, width / 2, height / 2)
                picture = Picture(frame.frame_id, 0.0, frame.luma, frame.chroma)
                scene.show_picture(frame.frame_id, picture, Camera(width, height, focal, (cx, cy)))
            messages.update(0)
            # The plan last: it is drawn with what else is known by then.
            for service in reversed(SERVICES):
                if messages.updated[service]:
                    scene.hear(service, _event(messages, service))


@dataclass(frozen=True)
class _Heard:
    """A message as log events have it: its validity, and its content under its service's name."""

    valid: bool
    content: Any

    def __getattr__(self, service: str) -> Any:
        return self.content


def _event(messages: SubMaster, service: str) -> _Heard:
    return _Heard(messages.valid[service], messages[service])


def main(argv: Sequence[str]) -> int:
    """The command `drive-replay ui`: show a live bus until interrupted. Gives the exit code."""
    top = argparse.ArgumentParser(
        prog="drive-replay ui", description="Show pictures and plans of a live bus in the browser."
    )
    top.add_argument("--bus", metavar="NS", help="namespace, tcp://HOST, msgq or msgq:PREFIX")
    top.add_argument("--port", type=int, default=PORT, help="of the page (default: %(default)s)")
    options = top.parse_args(argv)
    scene, stop = Scene(), threading.Event()
    try:
        bus = Bus.at(options.bus)
        with Viewer(scene, f"bus {bus.namespace}", options.port) as viewer:
            print(f"The viewer is at {viewer.address}", flush=True)
            follow(bus, scene, stop)
    except KeyboardInterrupt:
        return 0
    except (DriveError, FrameError, MessagingError) as error:
        print(f"drive-replay ui: {error}", file=sys.stderr)
        return 2
    return 0
