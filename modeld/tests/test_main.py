"""The `modeld` command: what it refuses to start with, and its closing line."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tinynn
from compiled_models.standin import build
from messaging import BusError, car
from modeld import process
from modeld.__main__ import _arguments, _car_delays, _files, main
from modeld.daemon import DEFAULT_DELAYS
from modeld.params import CarDelays
from tinynn.tests import handmade


def test_artifacts_that_cannot_be_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    (tmp_path / "bad.tnn").write_bytes(b"not an artifact")
    try:
        for name in ("bad.tnn", "absent.tnn"):
            assert main(["--model", str(tmp_path / name)]) == 2
            error = capsys.readouterr().err
            assert error.startswith("modeld: ")
            assert name in error
            assert len(error.splitlines()) == 1
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def test_an_artifact_that_computes_wrong_is_not_driven_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sound in every byte and trusted, but its kernels do not give its golden vectors."""
    monkeypatch.setenv("TINYDRIVE_HOME", str(tmp_path))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    wrong = handmade.machine_code(handmade.SOURCE.replace("2 * next[i]", "3 * next[i]"))
    program = handmade.program(targets=(handmade.target_code(code=wrong),))
    handmade.artifact(program).save(tmp_path / "wrong.tnn")
    try:
        assert main(["--model", str(tmp_path / "wrong.tnn")]) == 2
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    error = capsys.readouterr().err
    assert "output 'total' is off by 5.0e-01" in error
    assert len(error.splitlines()) == 1


def test_no_compiler_is_needed() -> None:
    code = ("import sys, modeld.__main__, modeld.source, tinynn; tinynn.load; "
            "print([m for m in ('onnx', 'ziglang', 'av', 'ml_dtypes') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_target_that_does_not_run_here_is_replaced_by_the_processor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINYDRIVE_HOME", str(tmp_path))
    model = tmp_path / "model.tnn"
    handmade.artifact(handmade.program()).save(model)
    args = _arguments(["--model", str(model), "--target", "opencl:unheard-of"])
    runner = process._load(model, args)
    assert runner.target == handmade.HOST
    assert "it has no target opencl:unheard-of" in caplog.text
    assert "Going on with the target cpu." in caplog.text
    with pytest.raises(tinynn.ArtifactError, match="it has no target cpu:other"):
        process.load_verified([model], _arguments(["--model", "-", "--target", "cpu:other"]))


def test_buses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENPILOT_PREFIX", raising=False)
    for text in ("garage", "tcp://10.0.0.2", "msgq", "msgq:car"):
        for option in ("--bus", "--namespace"):
            bus = process.bus_of(_arguments(["--model", "-", option, text]))
            assert bus.address == text
    with pytest.raises(BusError, match="--lockstep needs a bus whose frames carry barriers"):
        process.bus_of(_arguments(["--model", "-", "--bus", "msgq", "--lockstep"]))


def test_a_core_for_each_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def load(file: Path, **options: Any) -> None:
        given.update(options)

    monkeypatch.setattr(tinynn, "load", load)
    process._load(tmp_path, _arguments(["--model", "-", "--cores", "6,7"]))
    assert given == {"target": None, "threads": 2, "cores": (6, 7)}
    process._load(tmp_path, _arguments(["--model", "-", "--threads", "3"]))
    assert given == {"target": None, "threads": 3, "cores": ()}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "a.tnn", "--cores", "6,x"], "'6,x' is no list of cores; write for instance 6,7"),
    (["--model", "a.tnn", "--threads", "0"], "argument --threads: '0' is no number above 0"),
    (["--model", "a.tnn", "--frames", "-1"], "argument --frames: '-1' is no number above 0"),
    (["--model", "a.tnn", "--off-policy", "b.tnn"], "--off-policy goes with --policy"),
    ([], "--model"),
])
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_files_in_the_order_in_which_they_are_named() -> None:
    """Vision, policy, off-policy: the order of DrivingModel."""
    given = _arguments(["--off-policy", "o", "--policy", "p", "--model", "v"])
    assert _files(given) == ["v", "p", "o"]
    assert _files(_arguments(["--model", "m"])) == ["m"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_start(tmp_path: Path, number: signal.Signals) -> None:
    """Here while it waits for the car; the same handler is there while models load."""
    model = tmp_path / "model.tnn"
    tinynn.compile(build("supercombo_08")).save(model)
    daemon = subprocess.Popen(
        [sys.executable, "-m", "modeld", "--model", str(model), "--params", str(tmp_path), "--bus",
         "signals"], env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, stderr=subprocess.PIPE,
        text=True)
    assert daemon.stderr is not None
    assert "Waiting for CarParams" in daemon.stderr.readline()
    daemon.send_signal(number)
    assert daemon.communicate(timeout=60) == (None, "")
    assert daemon.returncode == 0


IMPORTING = """
import sys, time
import modeld.entry
class Slow:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
sys.exit(getattr(modeld.entry, sys.argv[2])())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("module", "command"), [
    ("modeld.__main__", "modeld"), ("modeld.dmonitoring", "dmonitoringmodeld")])
def test_a_signal_ends_the_imports(number: signal.Signals, module: str, command: str) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", IMPORTING, module, command], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert daemon.stdout is not None and daemon.stdout.readline() == "importing\n"
    daemon.send_signal(number)
    assert daemon.communicate(timeout=60) == ("", "")
    assert daemon.returncode == 0


def test_delays_from_a_params_directory(tmp_path: Path) -> None:
    assert _car_delays(None) == DEFAULT_DELAYS
    params = car.CarParams.new_message(steerActuatorDelay=0.25, longitudinalActuatorDelay=0.5)
    (tmp_path / "CarParams").write_bytes(params.to_bytes())
    assert _car_delays(tmp_path) == CarDelays(0.25, 0.5)
