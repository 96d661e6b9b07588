"""The command `drive-replay`: a drive through the daemon, then log, video, stills and report."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfdrive_tests.compare import tolerances
from selfdrive_tests.drives import RATE_HZ, VIEWS, DriveError, Overrides
from selfdrive_tests.job import REPORT_NAME, Job, Outcome, is_artifact
from selfdrive_tests.junit import write_junit
from selfdrive_tests.overview import WORDS, overview_page, total_stages, verdict
from selfdrive_tests.processes import MODELD, find_process
from selfdrive_tests.remote import FOLDER, fetch, is_remote, put_back
from selfdrive_tests.replay import Settings
from selfdrive_tests.results import summary_lines
from selfdrive_tests.runner import exit_code, run_source, run_sources
from selfdrive_tests.scale import run_on_ray
from selfdrive_tests.segments import Sources, find_sources
from selfdrive_tests.viewer import PORT, Scene, Viewer

# Instead of a drive: commands with options of their own, and the modules that hold them.
COMMANDS = {"ui": "viewer", "sim": "sim", "campaign": "campaign", "stills": "stills"}
# How often the page above many segments is written while they come.
PAGE_EVERY_S = 10.0


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
    top.add_argument(
        "drive",
        help="a video, a folder with drive.toml, a segment, a route, a folder of drives, or the "
        "address of one (s3://, https://, ... as fsspec knows them)",
    )
    top.add_argument("--model", help="artifact to drive by")
    top.add_argument("--policy", help="second artifact, for models in two parts")
    top.add_argument("--off-policy", help="third artifact, for models in three parts")
    top.add_argument("--target", help="of the artifact (default: the best that runs here)")
    top.add_argument(
        "--process",
        default="modeld",
        metavar="NAME",
        help="modeld, dmonitoringmodeld, or a TOML file that describes another process",
    )
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
    how.add_argument(
        "--jobs", type=positive(int), default=1, metavar="N", help="segments at a time"
    )
    how.add_argument(
        "--engine",
        choices=("processes", "ray"),
        default="processes",
        help="what several segments run on (default: %(default)s)",
    )
    how.add_argument("--ray-address", metavar="A", help="of a running cluster; default: start one")
    how.add_argument("--no-video", action="store_true", help="write the log and the report only")
    how.add_argument(
        "--truth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also show what a perfect model would say, if the drive was rendered",
    )
    how.add_argument("--ui", action="store_true", help="show it in the browser as it goes")
    how.add_argument("--port", type=int, default=PORT, help="of --ui (default: %(default)s)")
    how.add_argument(
        "--namespace",
        metavar="NS",
        help="use this bus, for others to listen in; also tcp://HOST, msgq or msgq:PREFIX",
    )
    compare_options(top)
    return top


def compare_options(top: argparse.ArgumentParser) -> None:
    """Options of the comparison."""
    group = top.add_argument_group("what to compare with; differences give exit code 3")
    group.add_argument(
        "--against",
        metavar="WHAT",
        help="another artifact (.tnn), a log of the same drive, or log for the drive's own plans",
    )
    group.add_argument("--against-target", help="target of the artifact that is compared with")
    group.add_argument("--refs", metavar="DIR", help="references to compare with")
    group.add_argument("--update-refs", metavar="DIR", help="write references there")
    group.add_argument(
        "--tolerance",
        action="append",
        default=[],
        metavar="FIELD=T",
        help="exact, ignore, 0.1, 5%% or 0.1+5%%; FIELD may be all; may be given several times",
    )
    group.add_argument("--junit", type=Path, metavar="FILE", help="write results as JUnit XML")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Gives the exit code: 0 done, 1 the replay broke off, 2 wrong input, 3 plans differ.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        command = import_module(f"selfdrive_tests.{COMMANDS[arguments[0]]}")
        return int(command.main(arguments[1:]))
    top = parser()
    options = top.parse_args(arguments)
    try:
        written_to = fetch_all(options)
        job = make_job(options, shlex.join(["drive-replay", *arguments]))
    except DriveError as error:
        top.error(str(error))
    except ValueError as error:
        top.error(f"--tolerance: {error}")
    # A job that is cancelled stops like one that is interrupted: log closed, daemon ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcomes = run(options, job)
        if options.junit:
            write_junit(options.junit, outcomes)
        if written_to is not None:
            put_back(options.update_refs, written_to)
    except OSError as error:
        print(f"drive-replay: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except DriveError as error:
        print(f"drive-replay: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"drive-replay: interrupted; the log so far is in {options.out}", file=sys.stderr)
        return 130
    return exit_code(outcomes)


def fetch_all(options: argparse.Namespace) -> str | None:
    """Replace the places in the options by local paths.

    Gives the address that written references go to, None if they stay on this machine. Raises
    DriveError.
    """
    folder = options.out / FOLDER
    for name in ("drive", "model", "policy", "off_policy"):
        place = getattr(options, name)
        setattr(options, name, None if place is None else fetch(place, folder))
    if options.against is not None and is_remote(options.against):
        options.against = str(fetch(options.against, folder / "against"))
    if options.refs is not None:
        options.refs = fetch(options.refs, folder / "refs", missing_ok=True)
    written_to = options.update_refs
    if written_to is not None and is_remote(written_to):
        options.update_refs = folder / "written"
        return str(written_to)
    options.update_refs = None if written_to is None else Path(written_to)
    return None


def overrides_of(options: argparse.Namespace) -> Overrides:
    """What the options say about the drive."""
    return Overrides(
        options.view, options.focal_length, options.center, options.rpy, options.height
    )


def run(options: argparse.Namespace, job: Job) -> list[Outcome]:
    """Replay what the path stands for and show it; several segments get a page above theirs."""
    overrides = overrides_of(options)
    found = find_sources(options.drive)
    if options.ui and (found.several or job.process != MODELD):
        raise DriveError("--ui shows one drive at a time, and modeld alone.")
    if not found.several:
        (source,) = found.sources
        with ExitStack() as stack:
            scene = show_in_browser(stack, source.name, options.port) if options.ui else None
            outcome = run_source(source, overrides, job, options.out, progress, scene)
        show(outcome)
        return [outcome]
    if job.against is not None and Path(job.against).is_file() and not is_artifact(job.against):
        raise DriveError(
            f"{options.drive} has several segments, but --against {job.against} is one log. "
            "Compare with an artifact, with log (each segment's own), or with --refs."
        )
    if job.namespace is not None and options.jobs > 1:
        raise DriveError("--namespace and --jobs do not go together: every replay needs a bus.")
    began = time.monotonic()
    page = Overview(options, job, found)
    with tqdm(total=len(found.sources), desc="segments", unit="segment") as bar:

        def done(outcome: Outcome) -> None:
            bar.update()
            bar.write(line(outcome))
            page.add(outcome)

        if options.engine == "ray":
            outcomes = run_on_ray(
                found.sources,
                overrides,
                job,
                options.out,
                options.jobs,
                done,
                options.ray_address,
            )
        else:
            outcomes = run_sources(
                found.sources, overrides, job, options.out, options.jobs, done
            )
    wall = time.monotonic() - began
    report = page.write(outcomes)
    print(verdict(outcomes))
    for note in found.notes:
        print(f"  note: {note}")
    frames = sum(outcome.summary.frames for outcome in outcomes if outcome.summary)
    stages = total_stages(outcomes)
    print(f"  {'real-time factor':<36}{frames / RATE_HZ / wall:.2f}, whole job")
    for name, value in stages.rows():
        print(f"  {name:<36}{value}")
    print(f"  {'bottleneck':<36}{stages.bottleneck}")
    print(f"  {'report':<36}{report}")
    return outcomes


class Overview:
    """The page above the segments, which is written again and again while they come."""

    def __init__(self, options: argparse.Namespace, job: Job, found: Sources) -> None:
        self._path = options.out / REPORT_NAME
        self._title, self._command, self._found = options.drive.name, job.command, found
        self._outcomes: list[Outcome] = []
        self._began = self._written = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Note an outcome; the page has it some seconds later at most."""
        self._outcomes.append(outcome)
        if time.monotonic() - self._written > PAGE_EVERY_S:
            self.write(self._outcomes)

    def write(self, outcomes: Sequence[Outcome]) -> Path:
        """Write the page with these outcomes; gives its path."""
        self._written = time.monotonic()
        missing = len(self._found.sources) - len(outcomes)
        notes = [f"{missing} segments are still to come."] if missing else []
        wall = self._written - self._began
        notes += self._found.notes
        text = overview_page(self._title, outcomes, notes, self._command, wall)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(text, encoding="utf-8")
        return self._path


def show_in_browser(stack: ExitStack, title: str, port: int) -> Scene:
    """Serve the viewer until the stack is left; gives the scene that it shows."""
    scene = Scene()
    viewer = stack.enter_context(Viewer(scene, title, port))
    print(f"The viewer is at {viewer.address}", flush=True)
    return scene


def line(outcome: Outcome) -> str:
    """A segment in one line."""
    said = outcome.error or " ".join(
        [outcome.summary.verdict if outcome.summary else ""]
        + [comparison.verdict for comparison in outcome.comparisons]
    )
    return f"{outcome.name}: {WORDS[outcome.code]}. {said}"


def make_job(options: argparse.Namespace, command: str) -> Job:
    """What the command line asks for.

    Raises DriveError for what does not go together, ValueError for tolerances that are none.
    """
    process = find_process(options.process)
    if options.model is None and (process == MODELD or "{model}" in process.command):
        raise DriveError(f"{process.name} needs --model FILE.")
    against = options.against
    if against is None and options.against_target:
        against = str(options.model)
    return Job(
        model=options.model,
        policy=options.policy,
        off_policy=options.off_policy,
        target=options.target,
        threads=max((os.cpu_count() or 1) // options.jobs, 1) if options.jobs > 1 else None,
        process=process,
        settings=Settings(
            start=round(options.start * RATE_HZ),
            count=options.frames,
            speed=options.speed,
            realtime=options.realtime,
        ),
        command=command,
        sampling=options.sampling,
        namespace=options.namespace,
        video=not options.no_video,
        truth=options.truth,
        against=against,
        against_target=options.against_target,
        refs=options.refs,
        update_refs=options.update_refs,
        fields=tolerances(options.tolerance) if process == MODELD else (),
        tolerances=tuple(options.tolerance),
    )


def progress(total: int | None, what: str) -> Any:
    """A progress bar on stderr; in a file or a CI log just a line now and then."""
    seconds = 0.1 if sys.stderr.isatty() else 15.0
    return tqdm(total=total, desc=what, unit="frame", mininterval=seconds)


def show(outcome: Outcome) -> None:
    """Print the summary and where everything is; an error goes to stderr."""
    if outcome.error or outcome.summary is None:
        print(f"drive-replay: {outcome.error}", file=sys.stderr)
        return
    print(outcome.summary.verdict)
    for comparison in outcome.comparisons:
        print(comparison.verdict)
    for name, value in summary_lines(outcome.summary):
        print(f"  {name:<18}{value}")
    print(f"  {'bottleneck':<18}{outcome.stages.bottleneck}")
    for comparison in outcome.comparisons:
        for note in (*comparison.claims, *comparison.notes):
            print(f"  note: {note}")
    for note in outcome.notes:
        print(f"  note: {note}")
    for name, path in outcome.files:
        print(f"  {name:<18}{path}")


if __name__ == "__main__":
    sys.exit(main())
