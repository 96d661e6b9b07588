"""The `dmonitoringmodeld` command: cabin camera frames from the bus in, driverStateV2 out."""
from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from threading import Event

from messaging import Bus, Frame, PubMaster, Stream, SubMaster, new_message
from modeld import cameras, process, status
from modeld.cameras import Intrinsics
from modeld.contract import Runner
from modeld.daemon import BARRIER_TIMEOUT_S, Options, calibration, wait_for_listeners
from modeld.driver_state import Monitor
from modeld.pairing import OverwrittenError
from modeld.status import StatusFile
from modeld.streams import Eye
from modeld.watch import OVERWRITTEN, Counters

log = logging.getLogger("modeld")

NAME = "dmonitoringmodeld"
INPUTS = ("extrinsicsCalibration",)
OUTPUT = "driverStateV2"
REALTIME_PRIORITY = 5  # far below modeld, with which it shares a core


class DriverDaemon:
    """Frames of the cabin camera and calibrations from a bus, driverStateV2 back to the bus."""

    def __init__(self, monitor: Monitor, bus: Bus, options: Options | None = None) -> None:
        self.monitor = monitor
        self._options = options or Options()
        self._bus = bus
        self._waiting_said = False
        self._valid = False
        self._sm = SubMaster(INPUTS, bus=bus, conflate=not self._options.lockstep)
        self._pm = PubMaster([OUTPUT], bus=bus)
        self._eye = Eye(Stream.CABIN, bus, newest=not self._options.lockstep)
        self._status = StatusFile(bus, NAME)

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self.monitor.counters

    def run(self, stop: Event, frames: int | None = None) -> None:
        """Handle frames until `stop` is set, or so many have been handled."""
        if self._options.lockstep:
            wait_for_listeners(self._pm, [OUTPUT], stop)
        handled = 0
        while not stop.is_set() and (frames is None or handled < frames):
            handled += self.step()

    def step(self) -> bool:
        """Handle one frame; False if none came in time, or it was overwritten too early."""
        frame = self._eye.receive() if self._eye.present(0.1) else None
        if frame is None:
            self._sm.update(0)  # sockets come back to restarted publishers only while in use
            self._wait()
            return False
        self._receive_calibration(frame)
        rpy = calibration(self._sm["extrinsicsCalibration"])
        try:
            fields, self._valid = self.monitor.step(
                frame, self._intrinsics(frame), rpy, time.perf_counter,
                realtime=not self._options.lockstep)
        except OverwrittenError as error:
            self.counters.note(OVERWRITTEN, str(error))
            self._tell(status.RUNNING)
            return False
        event = new_message(OUTPUT, valid=self._valid)
        event.driverStateV2.from_dict(fields)
        self._pm.send(OUTPUT, event)
        self._tell(status.RUNNING)
        return True

    def wait_for_subscribers(self, timeout_s: float) -> bool:
        """Wait until somebody listens; False if that takes longer."""
        return self._pm.wait_for_subscribers(timeout=timeout_s)

    def close(self) -> None:
        """Leave the bus."""
        self._tell(status.STOPPED)
        self._eye.client.close()
        self._sm.close()
        self._pm.close()

    def _receive_calibration(self, frame: Frame) -> None:
        if not self._options.lockstep or frame.barrier is None:
            self._sm.update(0)
        elif not self._sm.wait_for(frame.barrier, BARRIER_TIMEOUT_S):
            log.warning("Frame %d depends on an extrinsicsCalibration that did not come within "
                        "%.0f s. Going on without it.", frame.frame_id, BARRIER_TIMEOUT_S)

    def _intrinsics(self, frame: Frame) -> Intrinsics | None:
        """Of the stream itself, else of the device that has pictures of this width."""
        if self._eye.intrinsics is not None:
            return self._eye.intrinsics
        height, width = frame.luma.shape
        camera = cameras.CABIN.get(width)
        return camera.at_size(width, height) if camera else None

    def _wait(self) -> None:
        if not self._waiting_said:
            self._waiting_said = True
            log.warning("Waiting for a camera: no frames from CABIN on bus '%s'. Start one there: "
                        "camerad, or python -m modeld.webcam --cabin.", self._bus.address)
        self._tell(status.WAITING)

    def _tell(self, state: str) -> None:
        monitor = self.monitor
        self._status.update(state, monitor.counters, monitor.last_frame_id, self._valid,
                            monitor.speed.mean, monitor.runner.target)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=NAME, description="Run a compiled driver monitoring model on frames of the cabin "
        "camera from the bus and publish driverStateV2.")
    parser.add_argument("--model", required=True, metavar="FILE", help="artifact of the model")
    process.add_options(parser, OUTPUT)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; process.run says what the exit codes mean."""
    args = _arguments(argv)

    def make(bus: Bus, runners: list[Runner]) -> DriverDaemon:
        monitor = Monitor(runners[0], args.send_raw_predictions)
        return DriverDaemon(monitor, bus, Options(args.lockstep))

    return process.run(NAME, [args.model], make, args, REALTIME_PRIORITY)


if __name__ == "__main__":
    sys.exit(main())
