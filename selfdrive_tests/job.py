"""One drive or segment from its files to its results: replay, compare, draw, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from messaging import Bus
from selfdrive_tests.compare import (
    FIELDS,
    CompareError,
    Comparison,
    Field,
    Moment,
    compare,
    moment,
    worst_moments,
)
from selfdrive_tests.drawing import Drawing, Order
from selfdrive_tests.drives import RATE_HZ, Drive, DriveError
from selfdrive_tests.pictures import Pictures, moment_stills
from selfdrive_tests.plans import FrameRecord, Plan
from selfdrive_tests.precision import Artifact, UncheckedError, check_precision
from selfdrive_tests.process import modeld_command
from selfdrive_tests.processes import MODELD, ProcessConfig
from selfdrive_tests.recorder import log_id, product_version
from selfdrive_tests.references import (
    read_log_plans,
    read_reference,
    reference_file,
    write_reference,
)
from selfdrive_tests.replay import ReplayResult, Settings, Watcher, replay
from selfdrive_tests.report import Compared, Report, page
from selfdrive_tests.results import Records, Summary, read_records, summarize
from selfdrive_tests.stages import Stages
from selfdrive_tests.truth import read_truth, truth_file
from tinynn.runtime.reader import read

UNTRAINED = "Random weights: what is drawn means nothing."

VIDEO_NAME, REPORT_NAME, DAEMON_LOG = "plan.mp4", "report.html", "modeld.log"
# Results of the artifact that is compared with.
AGAINST_FOLDER = "against"
ARTIFACT_SUFFIX = ".tnn"
OWN_LOG = "log"

Progress = Callable[[int | None, str], Any]


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


def is_artifact(against: str) -> bool:
    """Whether what is compared with is an artifact; else it is a log."""
    return against.endswith(ARTIFACT_SUFFIX)


@dataclass(frozen=True)
class Job:
    """What is to be done with every drive; command: as it was typed, for the report.

    model: None for a process that runs none.
    policy, off_policy: further files of a model. target: of the artifact; None takes the best.
    namespace: the bus, None for one of its own: a namespace, tcp://HOST, msgq or msgq:PREFIX.
    threads: of the model, which never change what it computes; None takes the daemon's number.
    against: an artifact, a log, or "log" for the drive's own; None for no such comparison.
    against_target: target of the artifact that is compared with.
    refs, update_refs: folders of references to compare with, and to write.
    tolerances: as texts, for processes whose fields are known only when they have spoken.
    """

    model: Path | None
    settings: Settings
    command: str
    policy: Path | None = None
    off_policy: Path | None = None
    target: str | None = None
    threads: int | None = None
    process: ProcessConfig = MODELD
    sampling: str | None = None
    namespace: str | None = None
    video: bool = True
    truth: bool = True
    against: str | None = None
    against_target: str | None = None
    refs: Path | None = None
    update_refs: Path | None = None
    fields: tuple[Field, ...] = FIELDS
    tolerances: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What came of a drive or segment. error: one sentence if it could not be replayed, else "".

    code: what the command exits with for this drive alone. files: what was written, by kind.
    """

    name: str
    out: Path
    summary: Summary | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: list[tuple[str, Path]] = field(default_factory=list)
    stages: Stages = field(default_factory=Stages)
    error: str = ""
    error_code: int = 0

    @property
    def code(self) -> int:
        """0 good, 1 the replay broke off or no frame was answered, 2 wrong input, 3 differences."""
        if self.error:
            return self.error_code
        if self.summary is None or not self.summary.answered:
            return 1
        return 0 if all(comparison.passed for comparison in self.comparisons) else 3


def check_start(drive: Drive, job: Job) -> None:
    """Raises DriveError if the drive ends before the job begins."""
    if drive.ticks is not None and job.settings.start >= drive.ticks:
        raise DriveError(
            f"{drive.path} lasts {drive.ticks / RATE_HZ:.1f} s: --start must be less than that."
        )


def run_drive(
    drive: Drive, job: Job, out: Path, progress: Progress, watcher: Watcher | None = None
) -> Outcome:
    """Do the whole job for one drive; results go to `out`.

    progress(total, what) gives a bar with update(count), as a context manager.
    Raises DriveError, CompareError, ArtifactError, MessagingError, OSError, ReplayError.
    """
    check_start(drive, job)
    assert job.model is not None
    model = describe_model(job.model)
    path = truth_file(drive) if job.truth else None
    truth = {plan.frame_id: plan for plan in read_truth(path)} if path else {}
    known = known_plans(drive, job)
    segment = prepare(out, drive, model)
    began = datetime.now(UTC)
    with ExitStack() as stack:
        drawing = None
        if job.video:
            order = drawing_order(drive, job, out / VIDEO_NAME, model, truth)
            drawing = stack.enter_context(Drawing(order))
        records = Records(drawing.add if drawing else None)
        log = out / DAEMON_LOG
        result = replay_drive(drive, job, segment, log, progress, watcher, records.take)
        records.end()
        problem = drive.problem
        stages = result.stages
        summary = summarize(records.done, result)
        stages.move("daemon", "model", model_seconds(records.done))
        if job.against is not None and is_artifact(job.against):
            known[other_name(job)] = replay_other(drive, job, out, progress, stages)
        with stages.measure("compare"):
            compared = compare_all(records.done, known, job)
            if job.update_refs is not None:
                plans = {record.frame_id: record.plan for record in records.done}
                write_reference(
                    reference_file(job.update_refs, drive.name), plans, drive.name, model.name
                )
        with stages.measure("check"):
            add_claims(compared, drive, job)
        with stages.measure("draw"):
            compared = [with_stills(one, drive, records.done, model.name) for one in compared]
            pictures = None
            if drawing is not None and records.done:
                with progress(len(records.done), "video") as bar:
                    pictures = drawing.finish(bar.update)
    notes = [*drive.notes, *([problem] if problem else []), *result.notes, *result.restarts]
    with stages.measure("report"):
        report = Report(
            title=drive.name,
            summary=summary,
            records=records.done,
            stills=pictures.stills if pictures else (),
            video=VIDEO_NAME if pictures else "",
            warning=model.warning,
            notes=notes + ([pictures.note] if pictures and pictures.note else []),
            run=run_rows(drive, model, job),
            when=[
                ("begun", began.isoformat(" ", "seconds")),
                ("replay", f"{summary.wall_s:.1f} s for {summary.drive_s:.1f} s of driving"),
                ("everything", f"{summary.drive_s / stages.total:.2f} times as fast as driving"),
                *stages.rows(),
                ("bottleneck", stages.bottleneck),
            ],
            truth=truth,
            compared=compared,
        )
        (out / REPORT_NAME).write_text(page(report), encoding="utf-8")
    files = written(out, result, pictures, job, drive)
    comparisons = [one.result for one in compared]
    return Outcome(drive.name, out, summary, comparisons, notes, files, stages)


def drawing_order(
    drive: Drive, job: Job, video: Path, model: Model, truth: Mapping[int, Plan]
) -> Order:
    """The order for the drive's video. Where nobody knows how long it is, it may be a minute."""
    count = drive.expected(job.settings.start, job.settings.count) or 60 * RATE_HZ
    return Order(drive, count, video, model.name, model.warning, truth)


def model_seconds(records: Sequence[FrameRecord]) -> float:
    """What the model took for all plans together."""
    return sum(record.plan.execution_s for record in records if record.plan)


def prepare(out: Path, drive: Drive, model: Model) -> Path:
    """Make the folder for results, free of those of an earlier replay; gives the segment's."""
    segment = out / f"{log_id(drive.name, model.sha256)}--0"
    out.mkdir(parents=True, exist_ok=True)
    old = [out / VIDEO_NAME, out / REPORT_NAME, out / DAEMON_LOG, segment / "rlog.zst"]
    old += out.glob(f"{AGAINST_FOLDER}/*/rlog.zst")
    for file in (*old, *(out / "stills").glob("frame_*.png")):
        file.unlink(missing_ok=True)
    return segment


def replay_drive(
    drive: Drive,
    job: Job,
    segment: Path,
    daemon_log: Path,
    progress: Progress,
    watcher: Watcher | None = None,
    on_event: Callable[[Any], object] = lambda _: None,
) -> ReplayResult:
    """Replay by the job's artifact, behind a progress bar."""
    flags = [] if job.settings.realtime else ["--lockstep"]
    for option in ("sampling", "target", "threads", "off_policy"):
        value = getattr(job, option)
        flags += [f"--{option.replace('_', '-')}", str(value)] if value else []

    def command(fresh: str) -> list[str]:
        namespace = job.namespace or fresh
        if job.process == MODELD:
            assert job.model is not None
            return modeld_command(job.model, job.policy, namespace, flags)
        return job.process.command_line(job.model, namespace)

    total = drive.expected(job.settings.start, job.settings.count)
    bus = Bus.at(job.namespace) if job.namespace else None
    with progress(total, "replay") as bar:
        return replay(
            drive,
            command,
            segment,
            daemon_log,
            job.settings,
            bus,
            lambda _: bar.update(),
            job.process,
            watcher,
            on_event,
        )


def known_plans(drive: Drive, job: Job) -> dict[str, dict[int, Moment | None]]:
    """What there is to compare with before anything is replayed, by its name for people.

    Raises CompareError, LogFileError.
    """
    known = {}
    if job.against == OWN_LOG:
        if drive.log is None:
            raise CompareError(f"{drive.path} has no log of its own to compare with.")
        known[f"the drive's own {drive.log.name}"] = read_log_plans(drive.log, job.process)
    elif job.against is not None and not is_artifact(job.against):
        known[job.against] = read_log_plans(Path(job.against), job.process)
    if job.refs is not None:
        file = reference_file(job.refs, drive.name, job.process)
        known[file.name] = read_reference(file)
    return known


def replay_other(
    drive: Drive, job: Job, out: Path, progress: Progress, stages: Stages
) -> dict[int, Moment | None]:
    """The same drive by the other artifact; its times are added to the stages."""
    artifact = Path(job.against or "")
    other = replace(job, model=artifact, target=job.against_target)
    folder = out / AGAINST_FOLDER
    segment = prepare(folder, drive, describe_model(artifact))
    result = replay_drive(drive, other, segment, folder / DAEMON_LOG, progress)
    for stage, seconds in result.stages.seconds.items():
        stages.add(stage, seconds)
    if job.process != MODELD:
        return read_log_plans(result.log, job.process)
    records = read_records(result.log)
    stages.move("daemon", "model", model_seconds(records))
    return {record.frame_id: moment(record.plan) if record.plan else None for record in records}


def other_name(job: Job) -> str:
    """The artifact that is compared with, for people."""
    name = Path(job.against or "").name
    return f"{name}, target {job.against_target}" if job.against_target else name


def add_claims(compared: Sequence[Compared], drive: Drive, job: Job) -> None:
    """Check what two artifacts claim of their precision on this drive's frames."""
    for one in compared:
        if job.model is None or job.against is None or one.result.against != other_name(job):
            continue
        rest = [path for path in (job.policy, job.off_policy) if path is not None]
        ours = Artifact(job.model, job.target)
        theirs = Artifact(Path(job.against), job.against_target)
        try:
            one.result.claims += check_precision(drive, ours, theirs, rest)
        except UncheckedError as error:
            one.result.notes.append(f"The stated precision was not checked: {error}.")


def compare_all(
    records: list[FrameRecord], known: Mapping[str, Mapping[int, Moment | None]], job: Job
) -> list[Compared]:
    """A comparison with each of the others."""
    here = {record.frame_id: record.plan for record in records}
    compared = []
    for name, there in known.items():
        others = {i: other.plan for i, other in there.items() if other and other.plan}
        compared.append(Compared(compare(here, there, name, job.fields), others))
    return compared


def with_stills(
    compared: Compared, drive: Drive, records: list[FrameRecord], model: str
) -> Compared:
    """The comparison with pictures of its worst moments."""
    moments = worst_moments(compared.result.bad)
    stills = moment_stills(drive, records, moments, compared.others, model)
    return Compared(compared.result, compared.others, stills)


def written(
    out: Path, result: ReplayResult, pictures: Pictures | None, job: Job, drive: Drive
) -> list[tuple[str, Path]]:
    """What was written, for the terminal."""
    files = [("report", out / REPORT_NAME), ("log", result.log)]
    if pictures:
        files[1:1] = [("video", pictures.video), ("stills", out / "stills")]
    if job.update_refs is not None:
        files.append(("reference", reference_file(job.update_refs, drive.name)))
    return files


def run_rows(drive: Drive, model: Model, job: Job) -> list[tuple[str, str]]:
    """What was run, and what it was compared with, for the report."""
    tools = [f"{name} {version(name)}" for name in ("numpy", "av", "pyzmq", "pycapnp")]
    return [
        ("model", model.name),
        ("artifact", f"sha256 {model.sha256}" if model.sha256 else "none"),
        ("target", target_text(model, job.target)),
        *other_rows(drive, job),
        ("drive", str(drive.path)),
        *(camera_rows(drive) if drive.video is not None else []),
        ("log", drive.log.name if drive.log else "none; inputs but the pictures are stand-ins"),
        ("command", job.command),
        ("versions", ", ".join([product_version(), *tools, f"Python {sys.version.split()[0]}"])),
    ]


def target_text(model: Model, chosen: str | None) -> str:
    """The targets of an artifact, and the one that was asked for."""
    return f"{model.target}; run on {chosen}" if chosen else model.target or "none"


def other_rows(drive: Drive, job: Job) -> list[tuple[str, str]]:
    """What was compared with, for the report."""
    rows = []
    if job.against is not None and is_artifact(job.against):
        other = describe_model(Path(job.against))
        target = target_text(other, job.against_target)
        rows.append(f"{job.against}: {other.name}, sha256 {other.sha256}, target {target}")
    elif job.against is not None:
        rows.append("the drive's own log" if job.against == OWN_LOG else job.against)
    if job.refs is not None:
        rows.append(str(reference_file(job.refs, drive.name, job.process)))
    return [("compared with", row) for row in rows]


def camera_rows(drive: Drive) -> list[tuple[str, str]]:
    """The camera and how it was mounted, for the report."""
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
    return [
        ("camera", picture + ("; with a wide camera" if drive.wide_camera else "")),
        ("mounting", mounting),
    ]
