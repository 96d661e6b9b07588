"""The archive for a device: what is in it, and that it installs and runs, if only emulated."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import tinynn
from compiled_models.standin import build
from messaging import Bus, Stream, SubMaster
from modeld import bundle
from modeld.daemon import OUTPUTS
from modeld.source import CameraSource, Picture, SourceFrame
from tinynn.tests import handmade

AARCH64 = Path(os.environ.get("TINYDRIVE_AARCH64", Path.home() / ".cache/tinydrive/aarch64"))
SOON = 600.0


def pack(folder: Path, wheels: list[str], models: list[Path]) -> Path:
    (folder / "wheels").mkdir(exist_ok=True)
    for name in wheels:
        (folder / "wheels" / name).write_bytes(b"a wheel")
    out = folder / "device.tar"
    bundle.bundle(models, folder / "wheels", out)
    return out


def test_contents(tmp_path: Path) -> None:
    (tmp_path / "mine.tnn").write_bytes(b"a model")
    out = pack(tmp_path, ["b-1-py3-none-any.whl", "a-1-cp312-cp312-linux.whl"],
               [tmp_path / "mine.tnn"])
    first = out.read_bytes()
    with tarfile.open(out) as archive:
        names = archive.getnames()
        assert all(entry.mtime == 0 for entry in archive)
    assert names == sorted(names)
    for name in ("install.sh", "models/mine.tnn", "wheels/a-1-cp312-cp312-linux.whl",
                 "packages/messaging/log.capnp", "packages/modeld/__main__.py",
                 "packages/tinynn/runtime/runner.py",
                 "packages/tinynn/runtime/launcher-aarch64.so"):
        assert f"tinydrive-device/{name}" in names
    assert not any("/tests/" in name or "__pycache__" in name for name in names)
    os.utime(tmp_path / "mine.tnn", (1, 1))
    assert pack(tmp_path, [], [tmp_path / "mine.tnn"]).read_bytes() == first


def test_the_installer_refuses_another_machine(tmp_path: Path) -> None:
    (tmp_path / "mine.tnn").write_bytes(b"a model")
    out = pack(tmp_path, ["numpy-9-cp399-cp399-linux_aarch64.whl"], [tmp_path / "mine.tnn"])
    with tarfile.open(out) as archive:
        archive.extractall(tmp_path, filter="data")
    done = subprocess.run(["sh", tmp_path / "tinydrive-device/install.sh", tmp_path / "there"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("install: the wheels here are for other machines")
    assert not (tmp_path / "there").exists()


def test_models_for_other_machines_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    handmade.artifact(handmade.program()).save(tmp_path / "here.tnn")
    if handmade.HOST != bundle.TARGET:
        assert bundle.main(["--device", "--model", str(tmp_path / "here.tnn")]) == 1
        assert f"and not for {bundle.TARGET}" in capsys.readouterr().err
    assert bundle.main(["--device", "--model", str(tmp_path / "absent.tnn")]) == 1
    assert "absent.tnn" in capsys.readouterr().err


def _emulated() -> str | None:
    """Why the emulation cannot run; None if it can."""
    if shutil.which("qemu-aarch64") is None:
        return "needs qemu-aarch64 (Debian, Ubuntu: apt install qemu-user)"
    if not (AARCH64 / "root/usr/bin/python3.11").exists() or not (AARCH64 / "wheels").is_dir():
        return f"no Python for aarch64 in {AARCH64}: make one with modeld/tests/aarch64.sh"
    return None


@pytest.mark.slow
@pytest.mark.skipif(_emulated() is not None, reason=str(_emulated()))
def test_the_whole_daemon_on_aarch64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundled, installed and run by an emulated processor; the same artifact runs here beside it.

    Frames and messages are those of a real bus: shared memory and sockets pass through qemu.
    """
    model = tmp_path / "supercombo_08.tnn"
    tinynn.compile(build("supercombo_08"), target=f"cpu,{bundle.TARGET}").save(model)
    bundle.bundle([model], AARCH64 / "wheels", tmp_path / "device.tar")
    with tarfile.open(tmp_path / "device.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    python = tmp_path / "python3"
    root = AARCH64 / "root"
    python.write_text(f'#!/bin/sh\nexec qemu-aarch64 -L {root} {root}/usr/bin/python3.11 "$@"\n')
    python.chmod(0o755)
    device = tmp_path / "device"
    subprocess.run(["sh", tmp_path / "tinydrive-device/install.sh", device], check=True,
                   env={**os.environ, "PYTHON": str(python)})
    emulated = answers([str(device / "bin/modeld"), "--model",
                        str(device / "models" / model.name)])
    native = answers([sys.executable, "-m", "modeld", "--model", str(model)])
    assert len(emulated) == len(native) == 3
    for ours, theirs in zip(emulated, native, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


def answers(command: list[str]) -> list[np.ndarray]:
    """The raw outputs of a daemon for three frames in lock-step."""
    bus = Bus.fresh()
    source = CameraSource(bus, {Stream.NARROW_ROAD: (320, 200)},
                          {Stream.NARROW_ROAD: (400.0, 160.0, 100.0)})
    heard = SubMaster(OUTPUTS, bus=bus, conflate=False)
    process = subprocess.Popen([*command, "--bus", bus.namespace, "--lockstep", "--frames", "3",
                                "--send-raw-predictions"])
    outputs = []
    try:
        assert source.servers[Stream.NARROW_ROAD].wait_for_readers(SOON)
        for frame_id in range(3):
            rng = np.random.default_rng(frame_id)
            sof = 1_000_000_000 + 50_000_000 * frame_id
            picture = Picture(rng.integers(0, 256, (200, 320), np.uint8),
                              rng.integers(0, 256, (100, 160, 2), np.uint8))
            before = {name: heard.logMonoTime[name] + 1 for name in OUTPUTS}
            source.publish(SourceFrame(frame_id, sof, sof + 15_000_000,
                                       {Stream.NARROW_ROAD: picture}))
            assert heard.wait_for(before, SOON)
            assert all(heard[name].frameId == frame_id for name in OUTPUTS)
            outputs.append(np.frombuffer(heard["modelV2"].rawPredictions, np.float32).copy())
        assert process.wait(SOON) == 0
    finally:
        process.kill()
        process.wait()
        heard.close()
        source.close()
        bus.remove()
    return outputs
