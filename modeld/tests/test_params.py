"""CarParams from a params directory."""
from __future__ import annotations

import random
from pathlib import Path
from threading import Thread

import pytest

from messaging import car
from modeld.params import (
    CarDelays,
    ParamsError,
    decode_car_params,
    find_car_params,
    read_delays,
    wait_for_car_params,
)

DEFAULTS = CarDelays(0.1, 0.15)


def written(steer: float = 0.25, longitudinal: float = 0.5) -> bytes:
    """A CarParams as a device writes it."""
    params = car.CarParams.new_message(
        brand="hyundai", carFingerprint="KIA_EV6", steerActuatorDelay=steer,
        longitudinalActuatorDelay=longitudinal, carFw=[{"fwVersion": b"abc", "address": 1}])
    data: bytes = params.to_bytes()
    return data


def test_delays() -> None:
    params = decode_car_params(written())
    assert params.carFingerprint == "KIA_EV6"
    assert read_delays(params, DEFAULTS) == CarDelays(0.25, 0.5)


def test_delays_that_cannot_be() -> None:
    params = decode_car_params(written(float("nan"), -1.0))
    assert read_delays(params, DEFAULTS) == DEFAULTS


def test_directory_of_a_device_and_plain_one(tmp_path: Path) -> None:
    assert find_car_params(tmp_path) == tmp_path / "CarParams"
    (tmp_path / "d").mkdir()
    assert find_car_params(tmp_path) == tmp_path / "d" / "CarParams"
    with pytest.raises(ParamsError, match=r"absent is no directory; --params takes"):
        wait_for_car_params(tmp_path / "absent")


def test_waits_until_the_file_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modeld.params._LOOK_AGAIN_S", 0.01)
    params = tmp_path / "params"
    params.mkdir()
    (params / "CarParams").touch()  # empty
    found: list[bytes] = []
    worker = Thread(target=lambda: found.append(wait_for_car_params(params)))
    worker.start()
    while not caplog.records and worker.is_alive():
        worker.join(0.01)
    (params / "CarParams").unlink()
    params.rmdir()  # and made anew, in the form that devices have
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "whole").write_bytes(written())
    params.mkdir()
    (tmp_path / "d").rename(params / "d")
    worker.join(0.05)
    assert worker.is_alive()
    (params / "d" / "whole").rename(params / "d" / "CarParams")
    worker.join(30)
    assert found == [written()]
    assert [r.message for r in caplog.records] == [
        f"Waiting for CarParams in {params}: the car is not recognised yet."]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "CarParams").mkdir()
    with pytest.raises(ParamsError, match="CarParams cannot be read"):
        wait_for_car_params(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\0", b"not car params at all, only text", written()[:-8],
                                  written() + b"\0" * 8])
def test_damaged_files(data: bytes) -> None:
    with pytest.raises(ParamsError, match="CarParams is damaged"):
        decode_car_params(data)


def test_mutated_files_raise_or_are_read() -> None:
    rng = random.Random(0)
    whole = written()
    damaged = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read_delays(decode_car_params(bytes(data)), DEFAULTS)
        except ParamsError:
            damaged += 1
    assert damaged > 100
