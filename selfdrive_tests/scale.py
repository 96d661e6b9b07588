"""The engine `ray`: segments are tasks of a Ray cluster, artifacts are its shared objects.

A worker replays a segment in a folder of its own machine and sends the results back, which stream
into the folder of the command. If a worker dies, its segment is replayed by another one, and the
report says so. Drives must be readable from every machine: on a shared file system.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfdrive_tests.drives import DriveError, Overrides
from selfdrive_tests.job import Job, Outcome, is_artifact
from selfdrive_tests.runner import no_progress, run_source
from selfdrive_tests.segments import Source

ATTEMPTS = 3
# Tasks that are handed out ahead of the workers, so that nobody waits.
AHEAD = 2
# Where a worker puts the references that it writes, within its results.
REFERENCES = "references"
MISSING = (
    "The Python package ray is missing. Install what clusters need: pip install 'tinydrive[scale]'"
)


@dataclass(frozen=True)
class Results:
    """What a worker sends back: the outcome, and the files it wrote by their place in the folder.

    The outcome's paths are relative to that folder.
    """

    outcome: Outcome
    files: dict[str, bytes]


def run_on_ray(
    sources: Sequence[Source],
    overrides: Overrides,
    job: Job,
    out: Path,
    workers: int,
    done: Callable[[Outcome], None],
    address: str | None = None,
) -> list[Outcome]:
    """Replay all sources on a cluster; gives their outcomes in the order of the sources.

    workers: at a time. address: of a running cluster; None starts one on this machine.
    done is called with each outcome as it comes. Raises DriveError without Ray.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise DriveError(MISSING) from None
    if address is None:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address=address, log_to_driver=False)
    try:
        return _run(ray, sources, overrides, job, out, workers, done)
    finally:
        ray.shutdown()


def _run(
    ray: Any,
    sources: Sequence[Source],
    overrides: Overrides,
    job: Job,
    out: Path,
    workers: int,
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    # Ray would send the bytes of every argument; what is in its store is sent once per machine.
    artifacts = {name: ray.put(path.read_bytes()) for name, path in artifacts_of(job).items()}
    # Retries are ours, so that they are seen and reported.
    task = ray.remote(max_retries=0, num_cpus=1)(replay_segment)
    waiting = [(source, 1) for source in reversed(sources)]
    running: dict[Any, tuple[Source, int]] = {}
    outcomes: dict[str, Outcome] = {}
    while waiting or running:
        while waiting and len(running) < workers + AHEAD:
            source, attempt = waiting.pop()
            call = task.remote(source, overrides, job, list(artifacts), *artifacts.values())
            running[call] = (source, attempt)
        (ready,), _ = ray.wait(list(running))
        source, attempt = running.pop(ready)
        try:
            outcome = keep(ray.get(ready), out / source.name, job.update_refs)
        except ray.exceptions.RayError as error:
            if attempt < ATTEMPTS:
                waiting.append((source, attempt + 1))
                continue
            reason = str(error).strip().splitlines()[0]
            text = f"{source.name} could not be replayed in {ATTEMPTS} attempts: {reason}"
            outcome = Outcome(source.name, out / source.name, error=text, error_code=1)
        if attempt > 1:
            outcome.notes.append(f"Replayed in attempt {attempt}: a worker died before.")
        outcomes[source.name] = outcome
        done(outcome)
    return [outcomes[source.name] for source in sources]


def artifacts_of(job: Job) -> dict[str, Path]:
    """Fields of the job that name artifacts."""
    against = Path(job.against) if job.against and is_artifact(job.against) else None
    named = {"model": job.model, "policy": job.policy, "off_policy": job.off_policy}
    return {name: path for name, path in {**named, "against": against}.items() if path}


def replay_segment(
    source: Source, overrides: Overrides, job: Job, names: Sequence[str], *artifacts: bytes
) -> Results:
    """In a worker: replay a segment by artifacts that came as bytes.

    names: the fields of the job that the artifacts belong to.
    """
    paths: dict[str, Any] = {}
    for name, data in zip(names, artifacts, strict=True):
        original = Path(str(getattr(job, name)))
        paths[name] = local_artifact(data, original.name)
    if "against" in paths:
        paths["against"] = str(paths["against"])
    folder = Path(tempfile.mkdtemp(prefix="drive-replay-"))
    try:
        if job.update_refs is not None:
            paths["update_refs"] = folder / REFERENCES
        outcome = run_source(source, overrides, replace(job, **paths), folder, no_progress)
        files = {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        outcome.files = [(kind, path.relative_to(folder)) for kind, path in outcome.files]
        return Results(outcome, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def local_artifact(data: bytes, name: str) -> Path:
    """A file with these bytes on this machine, written by whoever needs it first."""
    folder = Path(tempfile.gettempdir()) / f"drive-replay-{hashlib.sha256(data).hexdigest()[:20]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(data)
        Path(file.name).rename(path)
    return path


def keep(results: Results, folder: Path, references: Path | None) -> Outcome:
    """Write a segment's files into its folder, its reference into that of all references.

    Gives the outcome with the paths that the files have now.
    """

    def place(name: str | Path) -> Path:
        path = Path(name)
        if references is not None and path.parts[0] == REFERENCES:
            return references / path.name
        return folder / path

    for name, data in results.files.items():
        place(name).parent.mkdir(parents=True, exist_ok=True)
        place(name).write_bytes(data)
    outcome = results.outcome
    outcome.out = folder
    outcome.files = [(kind, place(path)) for kind, path in outcome.files]
    return outcome
