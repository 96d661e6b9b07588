"""A daemon for tests: hears and says what modeld does, with plans made from the frame number.

    fake_daemon.py NAMESPACE [--die-at N FLAG] [--silent-at N] [--fail]

--die-at: kill itself with SIGKILL at frame N, unless the file FLAG exists; makes FLAG first.
--silent-at: never answer from frame N on. --fail: end at once with one line of error.
Its process id is printed.
Lane line probabilities tell the test what was heard: the speed, and the mean of the picture.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from messaging import Bus, Frame, FrameClient, PubMaster, Stream, SubMaster, new_message

INPUTS = (
    "deviceState",
    "carState",
    "narrowRoadCameraState",
    "extrinsicsCalibration",
    "driverMonitoringState",
    "carControl",
    "lateralDelay",
)


def answers(frame: Frame, messages: SubMaster) -> dict[str, Any]:
    """The three messages about a frame."""
    plan = new_message("modelV2", valid=bool(messages.seen["extrinsicsCalibration"]))
    model = plan.modelV2
    model.frameId = frame.frame_id
    model.modelExecutionTime = 0.001 * (1 + os.getpid() % 7)  # as unsteady as a real one
    x = 192 * (np.arange(33) / 32) ** 2
    for name, values in zip("xyz", (x, 0.001 * x**2, 0 * x), strict=True):
        setattr(model.position, name, values.tolist())
    lines = model.init("laneLines", 4)
    for line, y in zip(lines, (-5.5, -1.8, 1.8, 5.5), strict=True):
        line.x, line.y, line.z = x.tolist(), [y] * 33, [1.22] * 33
    speed = messages["carState"].vEgo
    model.laneLineProbs = [speed / 100, float(frame.luma.mean()) / 255, 0.9, 0.1]
    model.action.desiredCurvature = frame.frame_id * 1e-4
    data = new_message("drivingModelData")
    data.drivingModelData.frameId = frame.frame_id
    odometry = new_message("cameraOdometry")
    odometry.cameraOdometry.frameId = frame.frame_id
    return {"cameraOdometry": odometry, "drivingModelData": data, "modelV2": plan}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("namespace")
    parser.add_argument("--die-at", nargs=2)
    parser.add_argument("--silent-at", type=int)
    parser.add_argument("--fail", action="store_true")
    options = parser.parse_args()
    if options.fail:
        sys.exit("fake daemon: the artifact is damaged.")
    print(os.getpid(), flush=True)
    bus = Bus(options.namespace)
    messages = SubMaster(INPUTS, bus=bus, conflate=False)
    with PubMaster(["modelV2", "drivingModelData", "cameraOdometry"], bus=bus) as publisher:
        client = FrameClient(Stream.NARROW_ROAD, bus=bus)
        client.connect(60)
        publisher.wait_for_subscribers(timeout=60)
        while True:
            frame = client.receive(1000, newest=False)
            if frame is None:
                continue
            if frame.barrier:
                messages.wait_for(frame.barrier, 10)
            else:
                messages.update(0)
            if options.die_at and frame.frame_id >= int(options.die_at[0]):
                flag = Path(options.die_at[1])
                if not flag.exists():
                    flag.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            if options.silent_at is not None and frame.frame_id >= options.silent_at:
                continue
            for service, message in answers(frame, messages).items():
                publisher.send(service, message)


if __name__ == "__main__":
    main()
