"""The command `drive-replay`: a drive through the daemon, then log, video, stills and report."""

from __future__ import annotations

import argparse
import math
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from messaging import Bus, MessagingError
from selfdrive_tests.drives import RATE_HZ, VIEWS, Drive, DriveError, Overrides, open_drive
from selfdrive_tests.pictures import Pictures, render
from selfdrive_tests.process import modeld_command
from selfdrive_tests.recorder import log_id, product_version
from selfdrive_tests.replay import ReplayError, ReplayResult, Settings, replay
from selfdrive_tests.report import Report, page
from selfdrive_tests.results import Summary, read_records, summarize, summary_lines
from tinynn.runtime.layout import ArtifactError
from tinynn.runtime.reader import read

UNTRAINED = "Random weights: what is drawn means nothing."

VIDEO_NAME, REPORT_NAME, DAEMON_LOG = "plan.mp4", "report.html", "modeld.log"


@dataclass(frozen=True)
class Model:
    """An artifact as the report names it. sha256: of its manifest. warning: "" for trained ones."""

    name: str
    sha256: str
    target: str
    warning: str


def describe_model(path: Path) -> Model:
    """Read an artifact's manifest; nothing of it is run. Raises ArtifactError."""
    reader = read(path)
    try:
        manifest = reader.manifest
        targets = [f"{target.target} {target.precision}" for target in manifest.targets]
        training = str(manifest.metadata.get("props", {}).get("training", ""))
        warning = UNTRAINED if training.startswith("none") else ""
        return Model(manifest.name, reader.sha256, ", ".join(targets), warning)
    finally:
        reader.close()


def numbers(count: int, names: str) -> Callable[[str], tuple[float, ...]]:
    """An argparse type: `count` finite numbers with commas between them."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count or not all(math.isfinite(value) for value in values):
            raise argparse.ArgumentTypeError(f"{text!r} is not {names}")
        return values

    return parse


def positive(kind: type) -> Callable[[str], Any]:
    """An argparse type: a number above zero."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
        return value

    return parse


def not_negative(text: str) -> float:
    """An argparse type: a finite number, 0 or above."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="drive-replay",
        description="Replay a drive through the daemon and show what came out.",
        epilog="Numbers that begin with a minus need an equals sign: --rpy=-0.01,0,0",
    )
    top.add_argument("drive", type=Path, help="a video file, or a folder with drive.toml")
    top.add_argument("--model", type=Path, required=True, help="artifact to drive by")
    top.add_argument("--policy", type=Path, help="second artifact, for models in two parts")
    top.add_argument("-o", "--out", type=Path, default=Path("replay"), help="folder for results")
    about = top.add_argument_group("the drive, where it does not say so itself")
    about.add_argument(
        "--view",
        choices=("camera", *VIEWS),
        help="what the pictures show: a camera's, or already a model's view",
    )
    about.add_argument("--focal-length", type=positive(float), metavar="F", help="in pixels")
    about.add_argument(
        "--center", type=numbers(2, "X,Y"), metavar="X,Y", help="camera centre in pixels"
    )
    about.add_argument(
        "--rpy", type=numbers(3, "R,P,Y"), metavar="R,P,Y", help="mounting angles in rad"
    )
    about.add_argument(
        "--height", type=positive(float), metavar="H", help="camera above the road in m"
    )
    about.add_argument(
        "--speed",
        type=not_negative,
        default=20.0,
        metavar="V",
        help="in m/s, for a drive without a log (default: %(default)s)",
    )
    how = top.add_argument_group("how to replay")
    how.add_argument("--frames", type=positive(int), metavar="N", help="at most so many frames")
    how.add_argument(
        "--start", type=not_negative, default=0.0, metavar="S", help="begin so many seconds in"
    )
    how.add_argument("--sampling", choices=("nearest", "bilinear"), help="how the daemon warps")
    how.add_argument("--realtime", action="store_true", help="20 frames per second, no lock-step")
    how.add_argument("--no-video", action="store_true", help="write the log and the report only")
    how.add_argument("--namespace", metavar="NS", help="use this bus, for others to listen in")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code: 0 done, 1 the replay broke off, 2 wrong input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    # A job that is cancelled stops like one that is interrupted: log closed, daemon ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options, arguments)
    except (DriveError, ArtifactError, MessagingError) as error:
        print(f"drive-replay: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"drive-replay: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except ReplayError as error:
        print(f"drive-replay: {error}", file=sys.stderr)
        return 2 if error.at_start else 1
    except KeyboardInterrupt:
        print(f"drive-replay: interrupted; the log so far is in {options.out}", file=sys.stderr)
        return 130


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Replay, draw, report."""
    overrides = Overrides(
        options.view, options.focal_length, options.center, options.rpy, options.height
    )
    drive = open_drive(options.drive, overrides)
    if drive.ticks is not None and options.start * RATE_HZ >= drive.ticks:
        raise DriveError(
            f"{drive.path} lasts {drive.ticks / RATE_HZ:.1f} s: --start must be less than that."
        )
    model = describe_model(options.model)
    settings = Settings(
        start=round(options.start * RATE_HZ),
        count=options.frames,
        speed=options.speed,
        realtime=options.realtime,
    )
    out: Path = options.out
    segment = prepare(out, drive, model)
    began = datetime.now(UTC)
    result = replay_with_progress(drive, options, settings, segment)
    records = read_records(result.log)
    summary = summarize(records, result)
    pictures = None
    if records and not options.no_video:
        with progress(len(records), "video") as bar:
            pictures = render(
                drive, records, out / VIDEO_NAME, model.name, model.warning, bar.update
            )
    notes = [*drive.notes, *([drive.problem] if drive.problem else []), *result.notes]
    notes += result.restarts
    report = Report(
        title=drive.name,
        summary=summary,
        records=records,
        stills=pictures.stills if pictures else (),
        video=VIDEO_NAME if pictures else "",
        warning=model.warning,
        notes=notes + ([pictures.note] if pictures and pictures.note else []),
        run=run_rows(drive, model, arguments),
        when=[
            ("begun", began.isoformat(" ", "seconds")),
            ("replay", f"{summary.wall_s:.1f} s for {summary.drive_s:.1f} s of driving"),
        ],
    )
    (out / REPORT_NAME).write_text(page(report), encoding="utf-8")
    show(summary, notes, result, out, pictures)
    return 0 if summary.answered else 1


def prepare(out: Path, drive: Drive, model: Model) -> Path:
    """Make the folder for results, free of those of an earlier replay; gives the segment's."""
    segment = out / f"{log_id(drive.name, model.sha256)}--0"
    out.mkdir(parents=True, exist_ok=True)
    old = [out / VIDEO_NAME, out / REPORT_NAME, out / DAEMON_LOG, segment / "rlog.zst"]
    for file in (*old, *(out / "stills").glob("frame_*.png")):
        file.unlink(missing_ok=True)
    return segment


def replay_with_progress(
    drive: Drive, options: argparse.Namespace, settings: Settings, segment: Path
) -> ReplayResult:
    """Replay behind a progress bar on stderr."""
    flags = [] if settings.realtime else ["--lockstep"]
    if options.sampling:
        flags += ["--sampling", options.sampling]

    def command(namespace: str) -> list[str]:
        return modeld_command(options.model, options.policy, namespace, flags)

    total = drive.ticks
    if total is not None:
        total = max(total - settings.start, 0)
        total = total if settings.count is None else min(total, settings.count)
    bus = Bus(options.namespace) if options.namespace else None
    with progress(total, "replay") as bar:
        return replay(
            drive,
            command,
            segment,
            options.out / DAEMON_LOG,
            settings,
            bus,
            on_frame=lambda _: bar.update(),
        )


def progress(total: int | None, what: str) -> Any:
    """A progress bar on stderr; in a file or a CI log just a line now and then."""
    seconds = 0.1 if sys.stderr.isatty() else 15.0
    return tqdm(total=total, desc=what, unit="frame", mininterval=seconds)


def run_rows(drive: Drive, model: Model, arguments: Sequence[str]) -> list[tuple[str, str]]:
    """What was run, for the report."""
    camera, calibration = drive.camera, drive.calibration
    cx, cy = camera.center_px
    picture = (
        f"{camera.width} x {camera.height}, view {drive.view}, "
        f"focal length {camera.focal_px:.1f} px, centre ({cx:.1f}, {cy:.1f})"
    )
    mounting = "not given"
    if calibration is not None:
        angles = ", ".join(f"{angle:.4f}" for angle in calibration.rpy_rad)
        mounting = f"roll, pitch, yaw {angles} rad; {calibration.height_m:.2f} m above the road"
    tools = [f"{name} {version(name)}" for name in ("numpy", "av", "pyzmq", "pycapnp")]
    return [
        ("model", model.name),
        ("artifact", f"sha256 {model.sha256}"),
        ("target", model.target),
        ("drive", str(drive.path)),
        ("camera", picture + ("; with a wide camera" if drive.wide_camera else "")),
        ("mounting", mounting),
        ("log", drive.log.name if drive.log else "none; inputs but the pictures are stand-ins"),
        ("command", shlex.join(["drive-replay", *arguments])),
        ("versions", ", ".join([product_version(), *tools, f"Python {sys.version.split()[0]}"])),
    ]


def show(
    summary: Summary,
    notes: Sequence[str],
    result: ReplayResult,
    out: Path,
    pictures: Pictures | None,
) -> None:
    """Print the summary and where everything is."""
    print(summary.verdict)
    for name, value in summary_lines(summary):
        print(f"  {name:<18}{value}")
    for note in notes:
        print(f"  note: {note}")
    files = [("report", out / REPORT_NAME), ("log", result.log)]
    if pictures:
        files[1:1] = [("video", pictures.video), ("stills", out / "stills")]
    for name, path in files:
        print(f"  {name:<18}{path}")


if __name__ == "__main__":
    sys.exit(main())
