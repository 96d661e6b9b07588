"""Segments on a Ray cluster of this machine: a worker is killed, the report is complete."""

import shutil
from pathlib import Path

import pytest

from messaging import LogWriter, new_message
from selfdrive_tests import __main__ as command
from selfdrive_tests.scale import local_artifact

PROCESS = Path(__file__).parent / "any_process.py"
ROUTE = "0000002a--0123456789"


def test_a_killed_worker_costs_nothing_but_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    place, flag, refs = tmp_path / "realdata", tmp_path / "killed", tmp_path / "refs"
    for number in range(4):
        folder = place / f"{ROUTE}--{number}"
        folder.mkdir(parents=True)
        with LogWriter(folder / "rlog.zst") as log:
            for i in range(5):
                radar = new_message("radarState", valid=True)
                radar.logMonoTime = (1 + i) * 50_000_000
                log.write(radar)
    process = tmp_path / "planner.toml"
    process.write_text(
        f'command = ["{{python}}", "{PROCESS}", "{{namespace}}", "--kill-parent", "{flag}"]\n'
        'subscribes = ["carState", "radarState"]\noptional = ["carState"]\n'
        'publishes = ["longitudinalPlan"]\ntrigger = "radarState"\n'
    )
    out = tmp_path / "out"
    arguments = [str(place), "--process", str(process), "-o", str(out), "--engine", "ray"]
    assert command.main([*arguments, "--jobs", "2", "--update-refs", str(refs)]) == 0
    assert flag.exists(), "no worker was killed"
    assert "All 4 segments are good." in capsys.readouterr().out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("Replayed in attempt 2: a worker died before.") == 1
    for number in range(4):
        assert f'<a href="{ROUTE}--{number}/report.html">' in page
        assert (out / f"{ROUTE}--{number}" / "report.html").exists()
    assert len(list(refs.iterdir())) == 4


def test_an_artifact_is_written_once(tmp_path: Path) -> None:
    path = local_artifact(b"not really one", "toy.tnn")
    try:
        assert path.name == "toy.tnn" and path.read_bytes() == b"not really one"
        stamp = path.stat().st_mtime_ns
        assert local_artifact(b"not really one", "toy.tnn").stat().st_mtime_ns == stamp
    finally:
        shutil.rmtree(path.parent)
