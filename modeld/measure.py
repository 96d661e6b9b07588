"""How late plans are, which frames are lost and what the daemon costs: `python -m modeld.measure`.

Three processes as in a car: a camera with two streams of 1928 x 1208 at 20 Hz, the daemon with a
real artifact, and a listener. Beside them, on request, one busy process per core.

beyond      From the main picture's last byte in shared memory to modelV2 in the listener's hands,
            less modelExecutionTime (warp, run, read-back, parse).
lost        Ids that were shown and never answered; each must be among those the daemon counted as
            dropped, and nothing else may be. Crowded are those shown less than half a frame time
            before the next: then the camera's process was held up, not the daemon.
processor   Time the daemon used between the first and the last frame, of all its threads, less
            that between start and end of modelExecutionTime; as a share of one core.
"""
from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from messaging import Bus, MessagingError, PubMaster, Stream, decode, new_message
from messaging.transport import subscribe, waiter
from modeld import process
from modeld.__main__ import driving_model
from modeld.cameras import AR_OX
from modeld.daemon import Daemon
from modeld.pairing import Frame
from modeld.planner import CarInputs, Messages, Planner, Views
from modeld.source import CameraSource, Picture, SourceFrame, paced

RATE_HZ = 20.0
WARM_UP = 20  # frames that are not measured: caches and queues fill, processes find each other
PICTURES = 8  # different ones, shown in turn
PATIENCE_S = 3.0  # without an answer the daemon has nothing more to say
START_S = 120.0
PRIORITY = 54  # of the daemon
OTHERS_PRIORITY = 55  # of camera and listener: on a device they have cores of their own
SIZE = (AR_OX.narrow.width, AR_OX.narrow.height)


class Meter:
    """A clock for `Planner.step`, which reads it twice a frame: when the model starts and ends.

    takes_s: the shortest time a model may take; the clock waits for the rest of it.
    """

    def __init__(self, takes_s: float) -> None:
        self._takes_s = takes_s
        self._started: tuple[float, float] | None = None
        self._first: tuple[float, float] | None = None
        self._model_cpu = 0.0

    def begin(self) -> None:
        """A frame begins; the one before may have been lost in the middle."""
        self._started = None

    def __call__(self) -> float:
        now, cpu = time.perf_counter(), time.process_time()
        if self._started is None:
            self._started = now, cpu
            return now
        start, cpu_before = self._started
        while time.perf_counter() - start < self._takes_s:
            pass
        now, cpu = time.perf_counter(), time.process_time()
        if self._first is None:
            self._first = now, cpu
        else:
            self._model_cpu += cpu - cpu_before
        self._started = None
        self._last = now, cpu
        return now

    def share(self) -> float:
        """Processor time beyond the model's, as a share of a core, from the first frame's end."""
        if self._first is None or self._last == self._first:
            return 0.0
        wall, cpu = (last - first for first, last in zip(self._first, self._last, strict=True))
        return (cpu - self._model_cpu) / wall


class MeteredPlanner(Planner):
    """A planner with a meter for a clock."""

    meter = Meter(0.0)

    def step(
        self, main: Frame, extra: Frame, views: Views, car: CarInputs,
        clock: Callable[[], float] = lambda: 0.0, realtime: bool = False,
    ) -> Messages:
        self.meter.begin()
        return super().step(main, extra, views, car, self.meter, realtime)


@dataclass(frozen=True)
class Served:
    """What the daemon says at its end: frames it handled and missed, share of a core beyond."""

    frames: int
    dropped: int
    share: float


@dataclass(frozen=True)
class Result:
    """One run. Times in ms, of the frames after the warm-up."""

    shown: int
    answered: int
    lost: list[int]
    crowded: int
    dropped: int
    late: np.ndarray
    model: np.ndarray
    share: float

    @property
    def accounted(self) -> bool:
        """Whether the daemon counted exactly the frames that have no answer."""
        return len(self.lost) == self.dropped


def serve(args: argparse.Namespace, connection: Connection, stop: Any) -> None:
    """The daemon's process."""
    if args.realtime:
        process.enter_realtime(PRIORITY)
    planner = MeteredPlanner(driving_model(process.load_verified(args.model, args)))
    planner.meter = Meter(args.takes / 1000)
    daemon = Daemon(planner, Bus.at(args.bus))
    gc.freeze()
    connection.send("ready")
    daemon.run(stop)
    daemon.close()
    connection.send(Served(planner.counters.frames, planner.counters.dropped,
                           planner.meter.share()))


def show(args: argparse.Namespace, connection: Connection) -> None:
    """The cameras' process; at its end it says when each main picture was whole (ns)."""
    if args.realtime:
        process.enter_realtime(OTHERS_PRIORITY)
    streams = (Stream.NARROW_ROAD, Stream.WIDE_ROAD)
    bus = Bus.at(args.bus)
    cameras = {Stream.NARROW_ROAD: AR_OX.narrow, Stream.WIDE_ROAD: AR_OX.wide or AR_OX.narrow}
    source = CameraSource(bus, dict.fromkeys(streams, SIZE), {
        stream: (cameras[stream].intrinsics.focal_px, cameras[stream].intrinsics.cx,
                 cameras[stream].intrinsics.cy) for stream in streams})
    master = PubMaster(["extrinsicsCalibration", "carState"], bus)
    source.wait_for_readers(START_S)
    pictures = [noise(number) for number in range(PICTURES)]
    whole = []
    for number in paced(range(WARM_UP + args.frames), RATE_HZ):
        for service, fields in (("extrinsicsCalibration", {"rpyCalib": [0.0, 0.0, 0.0]}),
                                ("carState", {"vEgo": 20.0})):
            message = new_message(service, valid=True)
            getattr(message, service).from_dict(fields)
            master.send(service, message)
        picture = pictures[number % PICTURES]
        now = time.monotonic_ns()
        whole.append(source.publish(
            SourceFrame(number, now - 15_000_000, now, dict.fromkeys(streams, picture))))
    time.sleep(1.0)  # for the last ones to be read
    source.close()
    master.close()
    connection.send(whole)


def noise(seed: int) -> Picture:
    """A picture that no other equals."""
    width, height = SIZE
    rng = np.random.default_rng(seed)
    return Picture(rng.integers(0, 256, (height, width), np.uint8),
                   rng.integers(0, 256, (height // 2, width // 2, 2), np.uint8))


def listen(bus: Bus) -> Iterator[tuple[int, int, float]]:
    """Frame id, time of arrival (ns) and ms the model took, until no more come."""
    subscriber = subscribe("modelV2", bus, conflate=False)
    ready = waiter([subscriber])
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        ready.wait(PATIENCE_S)
        data = subscriber.receive()
        if data is None:
            continue
        now = time.monotonic_ns()
        message = decode(data).modelV2
        deadline = time.monotonic() + PATIENCE_S
        yield message.frameId, now, 1000 * message.modelExecutionTime
    subscriber.close()


@contextmanager
def competing(count: int) -> Iterator[None]:
    """So many processes that want a core each, at normal priority."""
    workers = [multiprocessing.get_context("spawn").Process(target=_busy, daemon=True)
               for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _busy() -> None:
    while True:
        pass


def measure(args: argparse.Namespace) -> Result:
    """One run with all its processes. Raises MessagingError if one of them fails."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    shown, shows = context.Pipe()
    stop = context.Event()
    bus = Bus.at(args.bus)
    daemon = context.Process(target=serve, args=(args, theirs, stop))
    camera = context.Process(target=show, args=(args, shows), daemon=True)
    daemon.start()
    theirs.close()
    try:
        if not ours.poll(START_S):
            raise MessagingError("the daemon did not start in time")
        ours.recv()
        with competing((os.cpu_count() or 1) if args.load else 0):
            camera.start()
            if args.realtime:  # not before: what is started from here inherits it
                process.enter_realtime(OTHERS_PRIORITY)
            heard = list(listen(bus))
        stop.set()
        served: Served = ours.recv()
        whole: list[int] = shown.recv()
    except EOFError:
        raise MessagingError("the daemon ended before its time; see above") from None
    finally:
        stop.set()
        daemon.join()
    return evaluate(heard, served, whole)


def evaluate(
    heard: Sequence[tuple[int, int, float]], served: Served, whole: Sequence[int],
) -> Result:
    """heard: as `listen` gives it. whole: as `show` says, for the ids from 0."""
    shown = len(whole)
    ids = {frame_id for frame_id, _, _ in heard}
    first = min(ids, default=shown)
    measured = np.array([((came - whole[frame_id]) / 1e6, took) for frame_id, came, took in heard
                         if frame_id >= WARM_UP]).reshape(-1, 2)
    last = max(ids, default=-1)  # frames behind the last answer were not lost to another
    lost = sorted(set(range(first, last + 1)) - ids)
    crowded = sum(whole[frame_id + 1] - whole[frame_id] < 0.5e9 / RATE_HZ for frame_id in lost)
    return Result(shown, len(ids), lost, crowded, served.dropped,
                  measured[:, 0] - measured[:, 1], measured[:, 1], served.share)


def describe(result: Result) -> str:
    """What `main` prints."""
    def times(name: str, values: np.ndarray) -> str:
        if not values.size:
            return f"{name}  none"
        median, p99, worst = np.percentile(values, (50, 99, 100))
        return f"{name}  median {median:7.2f} ms   p99 {p99:7.2f} ms   worst {worst:7.2f} ms"
    lost = len(result.lost)
    rate = lost / max(1, lost + result.answered)
    account = "all counted by the daemon" if result.accounted else (
        f"NOT ACCOUNTED FOR: the daemon counted {result.dropped}")
    if result.crowded:
        account += f"; {result.crowded} crowded by the camera"
    return "\n".join([
        f"frames     {result.shown} shown, {result.answered} answered, {lost} lost ({rate:.1%}), "
        f"{account}",
        times("model    ", result.model), times("beyond   ", result.late),
        f"processor  {result.share:.1%} of a core beyond the model's own work"])


def main(argv: Sequence[str] | None = None) -> int:
    """Gives 0, 1 if a frame is not accounted for, 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m modeld.measure", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, action="append", metavar="FILE",
                        help="artifact; vision and policy: give it twice")
    parser.add_argument("--takes", type=float, default=0.0, metavar="MS",
                        help="let the model take at least so long")
    parser.add_argument("--load", action="store_true", help="with a busy process on every core")
    process.add_options(parser, "modelV2")
    parser.set_defaults(frames=6000)
    args = parser.parse_args(argv)
    try:
        with Bus.at_or_fresh(args.bus) as bus:
            args.bus = bus.address
            result = measure(args)
    except MessagingError as error:
        print(f"measure: {error}", file=sys.stderr)
        return 2
    print(describe(result))
    return 0 if result.accounted else 1


if __name__ == "__main__":
    sys.exit(main())
