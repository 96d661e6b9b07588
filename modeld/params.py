"""Parameters of the car: from a message, or from a params directory as a comma device keeps it.

In such a directory every parameter is a file. `CarParams` holds one Cap'n Proto struct of that
name, in unpacked stream form.
"""
from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capnp

from messaging import MessageError, car, new_message
from messaging.message import framed_size

log = logging.getLogger("modeld")

CAR_PARAMS = "CarParams"
_LOOK_AGAIN_S = 0.5


class ParamsError(ValueError):
    """The directory or the file cannot be used; the message says why."""


@dataclass(frozen=True)
class CarDelays:
    """Seconds from a command until the car follows it: steering, and gas or brake."""

    steer: float
    longitudinal: float


def sound_delay(seconds: float, default: float) -> float:
    """A delay as announced, or the default if that cannot be one."""
    return seconds if math.isfinite(seconds) and seconds >= 0 else default


def read_delays(params: Any, defaults: CarDelays) -> CarDelays:
    """The delays of a CarParams; the default for one that cannot be."""
    return CarDelays(sound_delay(params.steerActuatorDelay, defaults.steer),
                     sound_delay(params.longitudinalActuatorDelay, defaults.longitudinal))


def find_car_params(directory: Path) -> Path:
    """The file CarParams of a params directory, whether or not it is there yet.

    Devices keep the files in the folder `d` of the directory, which may be named too.
    """
    inner = directory / "d"
    return (inner if inner.is_dir() else directory) / CAR_PARAMS


def wait_for_car_params(directory: Path) -> bytes:
    """The bytes of CarParams as soon as they are there.

    A device writes them when it has recognised the car; until then the file, and even its folder,
    may come and go. An empty one is what a loss of power leaves. Raises ParamsError if there is no
    such directory now, or for a file that cannot be read.
    """
    if not directory.is_dir():
        raise ParamsError(f"{directory} is no directory; --params takes the one that holds the "
                          f"file {CAR_PARAMS}, on a device /data/params.")
    said = False
    while not (data := _read(find_car_params(directory))):
        if not said:
            log.warning("Waiting for %s in %s: the car is not recognised yet.", CAR_PARAMS,
                        directory)
        said = True
        time.sleep(_LOOK_AGAIN_S)
    return data


def _read(path: Path) -> bytes:
    """Nothing if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}.") from None


def decode_car_params(data: bytes) -> Any:
    """The carParams of an event that holds a CarParams struct given as bytes.

    Raises ParamsError for anything but one whole, undamaged struct.
    """
    try:
        size = framed_size(data)
        if size != len(data):
            raise ParamsError(f"{CAR_PARAMS} is damaged: it has {len(data)} bytes, its own table "
                              f"says {size or 'nothing'}. Let the device recognise the car again.")
        event = new_message("carParams")
        # Copying follows, and so checks, every pointer.
        with car.CarParams.from_bytes(data) as params:
            event.carParams = params
    except (MessageError, capnp.KjException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ParamsError(f"{CAR_PARAMS} is damaged: {reason}. Let the device recognise the car "
                          "again.") from None
    return event.as_reader().carParams
