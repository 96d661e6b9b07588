"""The command drive-replay, with a small daemon in modeld's place: files, summary, errors."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from messaging import LogReader
from selfdrive_tests import __main__ as command
from selfdrive_tests import entry, job
from selfdrive_tests.drives import Camera
from selfdrive_tests.pictures import picture_size, still_numbers
from selfdrive_tests.video import open_video

DAEMON = Path(__file__).parent / "fake_daemon.py"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A video of 20 frames of noise, of which about 12 are left."""
    path = tmp_path / "road.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for _ in range(20):
            planes = rng.integers(60, 90, (96, 128), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small daemon instead of modeld, and an untrained model that needs no file."""
    model = job.Model("toy", "ab" * 32, "cpu f32", job.UNTRAINED)

    def start(model: Path, policy: Path | None, namespace: str, flags: Sequence[str]) -> list[str]:
        assert "--lockstep" in flags
        return [sys.executable, str(DAEMON), namespace]

    monkeypatch.setattr(job, "describe_model", lambda path: model)
    monkeypatch.setattr(job, "modeld_command", start)
    monkeypatch.setattr(job, "check_precision", lambda *_: [])


def arguments(video: Path, out: Path, *more: str) -> list[str]:
    return [str(video), "--view", "model", "--model", "toy.tnn", "-o", str(out), *more]


def test_a_replay_writes_everything(
    video: Path, tmp_path: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command.main(arguments(video, out)) == 0
    printed = capsys.readouterr().out
    (log,) = out.glob("00000000--??????????--0/rlog.zst")
    frames = sum(event.which() == "modelV2" for event in LogReader(log))
    # What is left of the video, and no more; why it is less is said.
    assert 9 <= frames <= 12
    assert f"frames            {frames}\n" in printed
    assert "breaks off" in printed and str(log) in printed

    written = list(open_video(out / "plan.mp4").pictures())
    assert len(written) == frames and written[0].luma.shape == (384, 768)
    stills = sorted((out / "stills").glob("*.png"))
    # Of the six that are spread over the 20 frames which the header promises.
    assert len(stills) == sum(number < frames for number in still_numbers(20))
    assert Image.open(stills[0]).size == (768, 384)
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "breaks off" in text and job.UNTRAINED in text and "plan.mp4" in text


def test_replaying_again_gives_the_same_video_and_replaces_the_files(
    video: Path, tmp_path: Path, fake: None
) -> None:
    out = tmp_path / "out"
    digests, pages = [], []
    for _ in range(2):
        assert command.main(arguments(video, out, "--frames", "5")) == 0
        digests.append(hashlib.sha256((out / "plan.mp4").read_bytes()).hexdigest())
        page = (out / "report.html").read_text(encoding="utf-8")
        before, _, rest = page.partition("<!-- times: begin -->")
        pages.append(before + rest.partition("<!-- times: end -->")[2])
    assert digests[0] == digests[1]
    # Times are in one place; everything else is the same to the byte.
    assert pages[0] == pages[1] and "Plots" in pages[0]
    assert sorted(path.name for path in out.iterdir()) == [
        "00000000--" + next(out.glob("*--0")).name[10:20] + "--0",
        "modeld.log",
        "plan.mp4",
        "report.html",
        "stills",
    ]


def test_video_and_stills_can_be_left_out(
    video: Path, tmp_path: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    showing = ["--ui", "--port", "0"]
    assert command.main(arguments(video, out, "--no-video", "--start", "0.2", *showing)) == 0
    assert "The viewer is at http://localhost:" in capsys.readouterr().out
    assert not (out / "plan.mp4").exists()
    assert "<video" not in (out / "report.html").read_text(encoding="utf-8")


def test_comparison_with_references_a_log_and_an_artifact(
    video: Path, tmp_path: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    refs, junit = tmp_path / "refs", tmp_path / "junit.xml"
    short = ("--no-video", "--frames", "8")
    first = arguments(video, tmp_path / "first", *short, "--update-refs", str(refs))
    assert command.main(first) == 0
    (log,) = (tmp_path / "first").glob("*--0/rlog.zst")

    same = arguments(video, tmp_path / "same", *short, "--refs", str(refs))
    assert command.main([*same, "--against", str(log), "--tolerance", "all=exact"]) == 0
    assert capsys.readouterr().out.count("No difference to") == 2

    # The small daemon tells the speed as the probability of the far left line.
    faster = ["--speed", "40", "--refs", str(refs), "--junit", str(junit)]
    assert command.main(arguments(video, tmp_path / "faster", *short, *faster)) == 3
    printed = capsys.readouterr().out
    assert "8 of 8 frames differ beyond tolerance (line_far_left_probability)" in printed
    failures = ElementTree.parse(junit).findall(".//failure")
    assert len(failures) == 1
    text = (tmp_path / "faster" / "report.html").read_text(encoding="utf-8")
    assert "line_far_left_probability: 0.4 here, 0.2 there; tolerance 0.05" in text
    # Who reads nothing but the top must see it, and find what it was compared with at the end.
    top = text[: text.index("</header>")]
    assert 'class="verdict bad">Not as road.plans.jsonl.gz: 8 of 8 frames differ' in top
    assert f"<th>compared with</th><td>{refs / 'road.plans.jsonl.gz'}</td>" in text
    # One moment of eight frames: the others are less than half a second apart.
    assert text.count("data:image/jpeg") == 1 and "Worst moments" in text

    other = arguments(video, tmp_path / "two", *short, "--against", "other.tnn")
    assert command.main(other) == 0
    assert "No difference to other.tnn in 8 frames." in capsys.readouterr().out
    assert len(list((tmp_path / "two" / "against").glob("*--0/rlog.zst"))) == 1


def test_nothing_to_compare_with_is_an_error_before_the_replay(
    video: Path, tmp_path: Path, fake: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, text in (
        (["--refs", str(tmp_path / "none")], "no such reference. Write it with --update-refs"),
        (["--against", str(tmp_path / "none.zst")], "No such file"),
        (["--against", "log"], "has no log of its own"),
    ):
        assert command.main(arguments(video, tmp_path / "out", *options)) == 2
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        command.main(arguments(video, tmp_path / "out", "--tolerance", "speed=3"))
    assert "'speed=3' is not FIELD=TOLERANCE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (["--center", "1"], "'1' is not X,Y"),
        (["--rpy", "0,0,nan"], "'0,0,nan' is not R,P,Y"),
        (["--focal-length", "-3"], "'-3' is not a number above 0"),
        (["--frames", "0"], "'0' is not a number above 0"),
        (["--view", "bird"], "invalid choice"),
    ],
)
def test_wrong_options_are_refused(
    changes: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([*arguments(tmp_path / "v.mp4", tmp_path), *changes])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_errors_are_one_line_and_exit_code_2(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.mp4"
    assert command.main(arguments(missing, tmp_path / "out")) == 2
    assert capsys.readouterr().err == f"drive-replay: {missing}: no such video file.\n"
    late = arguments(video, tmp_path / "out", "--start", "5")
    assert command.main(late) == 2
    error = capsys.readouterr().err
    assert error == f"drive-replay: {video} lasts 1.0 s: --start must be less than that.\n"
    # A file that is no artifact: the daemon is not even started.
    bad = tmp_path / "bad.tnn"
    bad.write_bytes(b"not an artifact")
    arguments_bad = [str(video), "--view", "model", "--model", str(bad), "-o", str(tmp_path / "o")]
    assert command.main(arguments_bad) == 2
    error = capsys.readouterr().err
    assert error.startswith("drive-replay: ") and str(bad) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_sizes_and_stills() -> None:
    center = (1.0, 1.0)
    assert picture_size(Camera(256, 128, 1.0, center)) == (768, 384)
    assert picture_size(Camera(1928, 1208, 1.0, center)) == (964, 604)
    assert picture_size(Camera(964, 604, 1.0, center)) == (964, 604)
    assert sorted(still_numbers(1200)) == [100, 300, 500, 700, 900, 1100]
    assert still_numbers(1) == {0} and still_numbers(0) == set()


def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.delitem(sys.modules, "selfdrive_tests.__main__", raising=False)
    assert entry.main() == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "tqdm" in message and "tinydrive[replay]" in message
