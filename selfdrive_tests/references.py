"""References: the plans of a replay as JSON lines, small and readable, free of any log schema.

The first line says what the file is: {"format": ..., "version": 1, "drive": ..., "model": ...,
"units": {field: unit}}. Every further line is a frame: "values" by field name (null for a frame
without a plan, or for a value that the plan does not have), and "path", "lines", "edges" as points
[x, y, z] in metres, thinned out and rounded, which are for drawing and never compared. The same
plans give the same text.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from messaging import LogReader
from selfdrive_tests.compare import FIELDS, LINES, CompareError, Field, Moment, Value, moment
from selfdrive_tests.heard import INDEX, Heard
from selfdrive_tests.plans import Lead, Plan
from selfdrive_tests.processes import MODELD, ProcessConfig
from selfdrive_tests.recorder import product_version

FORMAT, VERSION = "tinydrive reference plans", 1
SUFFIX = ".plans.jsonl.gz"
# Of every line so many points are kept for drawing, in centimetres.
POINTS, DECIMALS = 9, 2


def reference_file(folder: Path, segment: str, config: ProcessConfig = MODELD) -> Path:
    """Where the references of a drive or segment lie in a folder of references."""
    kind = SUFFIX if config == MODELD else SUFFIX.replace("plans", config.name)
    return folder / f"{segment}{kind}"


def write_reference(
    path: Path,
    plans: Mapping[int, Plan | Moment | None],
    drive: str,
    model: str,
    fields: Sequence[Field] = FIELDS,
) -> None:
    """Write plans by frame id; None for frames without one. fields: those that have a unit."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "drive": drive,
        "model": model,
        "units": {item.name: item.unit for item in fields if item.unit},
    }
    lines = [head, *(_frame(frame_id, plans[frame_id]) for frame_id in sorted(plans))]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    data = io.BytesIO()
    # No time and no name in the gzip header: the same text gives the same bytes.
    with gzip.GzipFile(filename="", fileobj=data, mode="wb", mtime=0) as file:
        file.write(text.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())


def _frame(frame_id: int, plan: Plan | Moment | None) -> dict[str, Any]:
    if plan is None:
        return {"frame": frame_id, "values": None}
    known = moment(plan)
    line: dict[str, Any] = {"frame": frame_id, "values": dict(known.values)}
    if known.plan is not None:
        line["path"] = _points(known.plan.position)
        line["lines"] = [_points(points) for points in known.plan.lane_lines]
        line["edges"] = [_points(points) for points in known.plan.road_edges]
    return line


def _points(line: np.ndarray) -> list[list[float]]:
    """Some points of (N, 3), first and last included; those that are not finite are left out."""
    if not len(line):
        return []
    kept = line[np.unique(np.linspace(0, len(line) - 1, POINTS).round().astype(int))]
    kept = kept[np.isfinite(kept).all(axis=1)].astype(np.float64)
    return [[round(number, DECIMALS) for number in point] for point in kept.tolist()]


def read_reference(path: Path) -> dict[int, Moment | None]:
    """Moments by frame id; a file that ends in .gz is unpacked.

    Raises CompareError if there is no such file, it is damaged, or of a newer version.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        lines = [json.loads(line) for line in text.splitlines()]
    except FileNotFoundError:
        raise CompareError(
            f"{path}: no such reference. Write it with --update-refs {path.parent}."
        ) from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CompareError(f"{path} is damaged or no reference ({error}).") from error
    head = lines[0] if lines and isinstance(lines[0], dict) else {}
    if head.get("format") != FORMAT:
        raise CompareError(f"{path} is no reference: its first line does not say so.")
    if head.get("version") != VERSION:
        raise CompareError(
            f"{path} is of version {head.get('version')}, this program reads {VERSION}. "
            "Write it again with --update-refs."
        )
    try:
        return {int(line["frame"]): _moment(line) for line in lines[1:]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CompareError(f"{path} has a frame that cannot be read ({error!r}).") from error


def _moment(line: dict[str, Any]) -> Moment | None:
    if line["values"] is None:
        return None
    values: dict[str, Value] = {
        name: float(value) if type(value) is int else value
        for name, value in line["values"].items()
    }

    if "path" not in line:
        return Moment(values, None)

    def number(name: str) -> float:
        value = values.get(name)
        return value if isinstance(value, float) else np.nan

    lead = Lead(*(number(f"lead_{of}") for of in ("probability", "distance", "lateral", "speed")))
    plan = Plan(
        frame_id=line["frame"],
        valid=values.get("valid") is True,
        execution_s=0.0,
        drop_percent=0.0,
        position=_array(line["path"]),
        lane_lines=tuple(_array(points) for points in line["lines"]),
        lane_probabilities=tuple(number(f"line_{name}_probability") for name in LINES),
        road_edges=tuple(_array(points) for points in line["edges"]),
        leads=(lead,),
        curvature=number("curvature"),
        acceleration=number("acceleration"),
        should_stop=values.get("should_stop") is True,
        confidence="",
    )
    return Moment(values, plan)


def _array(points: list[list[float]]) -> np.ndarray:
    return np.array(points, np.float64).reshape(-1, 3)


def read_log_plans(path: Path, config: ProcessConfig = MODELD) -> dict[int, Moment | None]:
    """Plans, or what another process said, of any log by frame of the drive.

    A replay's log counts frames as the drive does. In a device's log the encoder's index tells
    which picture of the segment's video (its segmentId) a camera frame became; without an index
    frame ids are taken as they are. Raises CompareError if the log has
    no plans, LogFileError if it cannot be read.
    """
    heard = Heard(config)
    pictures: dict[int, int] = {}
    ours = False
    for event in LogReader(path):
        kind = event.which()
        if kind == "initData":
            ours = event.initData.version.startswith(product_version().split()[0])
        elif kind == INDEX.get(config.trigger):
            entry = getattr(event, kind)
            pictures[entry.frameId] = entry.segmentId
        else:
            heard.take(event)
    moments = heard.moments
    if not moments:
        raise CompareError(
            f"{path} holds no plans, or what else is compared ({config.publishes[0]})."
        )
    if ours:
        return {i: moments.get(i) for i in pictures.keys() | moments.keys()}
    if pictures:
        first = min(pictures)
        offset = first - pictures[first]
        return {i - offset: known for i, known in moments.items() if i in pictures}
    return dict(moments)
