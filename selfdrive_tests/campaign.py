"""`drive-replay campaign`: a model drives many kilometres of worlds that it has never seen.

Worlds are driven in this process or in several, without a bus: `closed_loop.ModelDriver` is the
planner of modeld, and a test shows that it gives the same actions as over the bus. Every other
world is clear, the rest have night, rain, fog, low sun or dirt. Then the car comes upon a standing
one at 25 m/s, again and again. Each world leaves a file, so that a campaign that was broken off
goes on; at the end there are a table, a picture and everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from drivesim.episode import NARROW, WIDE, Episode
from drivesim.looks import Looks
from drivesim.recorded import comma2k19
from drivesim.traffic import Traffic
from modeld.constants import DT_MDL
from selfdrive_tests.chart import Chart, Curve, charts
from selfdrive_tests.closed_loop import (
    SET_SPEEDS,
    TOUCHED,
    ModelDriver,
    Outcome,
    PerfectDriver,
    drive_by,
    set_speed_at,
)
from selfdrive_tests.job import describe_model
from selfdrive_tests.runner import FAULTS, _begin_worker

FIRST_SEED = 2_000_000_000  # worlds from here on are neither trained on nor evaluated
RECORDED = "recorded"  # a highway that runs, and is driven, like a minute of comma2k19
KINDS = ("highway", "rural", "highway", "urban", "rural", "highway", "rural", "highway", "urban",
         RECORDED)
CLEAR, BAD, STOP = "clear", "bad", "stop"
STOP_SPEED, STOP_AT_M = 25.0, 300.0  # m/s, and where the standing car is
STOP_SECONDS = 40.0
START_HEADWAY_S = 1.5
SLOWEST = 4.0  # m/s on average, below which a world is given up
TRACE_M = 10.0  # between points of the traces
LATERAL_GOAL, BRAKING_GOAL, PULLING_GOAL = 3.0, -4.0, 2.0  # m/s2
SLACK = 0.005  # m/s2, of rounding
BAD_KM_PER_DEPARTURE = 50.0
TINY = ((64, 32, 114.0, 32.0, 6.0),)  # a view for the truth, which does not look
COLORS = {CLEAR: (37, 99, 184), BAD: (217, 130, 43)}
TRUTH = "truth"


@dataclass(frozen=True)
class World:
    """One drive of a campaign. conditions: clear or bad. metres: to drive; 0 for a stop."""

    number: int
    seed: int
    kind: str
    conditions: str
    metres: float

    @property
    def name(self) -> str:
        """Of its file and in the table."""
        return f"{self.number:03d}" if self.metres else f"{STOP}{self.number:03d}"


@dataclass
class Result:
    """What came of a world.

    trouble: of its weather. stopped: whether the car stood at the end. trace: station m, offset m
    (None where a person took over), speed m/s every TRACE_M.
    """

    world: World
    trouble: str
    set_speed: float
    finished: bool
    stopped: bool
    outcome: Outcome
    trace: list[tuple[float, float | None, float]] = field(default_factory=list)


def worlds_of(km: float, count: int, stops: int) -> list[World]:
    """`count` worlds of km / count kilometres each, then the stops."""
    metres = 1000 * km / count if count else 0.0
    pairs = [(number, CLEAR if number % 2 == 0 else BAD) for number in range(max(count, stops))]
    roads = [World(number, FIRST_SEED + number, KINDS[number // 2 % len(KINDS)], conditions, metres)
             for number, conditions in pairs[:count]]
    return roads + [World(number, FIRST_SEED + 1_000_000 + number, "highway", conditions, 0.0)
                    for number, conditions in pairs[:stops]]


def drive_world(world: World, model: Path | None) -> Result:
    """Drive one world by an artifact, by the truth if there is none."""
    views = TINY if model is None else (NARROW, WIDE)
    seconds = (world.metres or STOP_AT_M) / SET_SPEEDS[1]
    recorded = comma2k19() if world.kind == RECORDED else None
    kind = "highway" if recorded else world.kind
    episode = Episode(world.seed, world.conditions, seconds, kind, views,
                      None if world.metres else [], recorded)
    driver = PerfectDriver() if model is None else ModelDriver(model, threads=1)
    set_speed, start = None, episode.start()
    if world.metres:  # nobody begins closer behind another than that
        with_us = episode.traffic.direction > 0
        episode.traffic.station[with_us] += START_HEADWAY_S * start.speed
    else:
        row = (STOP_AT_M, episode.target.after, 0.0, 1.0)
        episode.traffic = Traffic(np.random.RandomState(world.number), [row])
        set_speed, start = STOP_SPEED, episode.centred(0.0, STOP_SPEED)
    limit_s = world.metres / SLOWEST or STOP_SECONDS
    result = Result(world, trouble_of(episode.looks), set_speed or set_speed_at(episode, 0.0),
                    False, False, Outcome(episode.road.lane_width))
    moments = drive_by(episode, driver, start, set_speed)
    for moment in islice(moments, math.ceil(limit_s / DT_MDL)):
        result.outcome.add(moment)
        if moment.help or not result.trace or moment.station >= result.trace[-1][0] + TRACE_M:
            offset = None if moment.help else round(moment.offset, 3)
            result.trace.append((round(moment.station, 1), offset, round(moment.ego.speed, 2)))
        result.finished = 0 < world.metres <= moment.station
        if result.finished or (moment.help == TOUCHED and not world.metres):
            break
    result.stopped = moment.ego.speed < 0.5
    return result


def trouble_of(looks: Looks) -> str:
    """What is bad about the conditions, in words."""
    found = (("night", looks.night), ("rain", looks.rain), ("fog", looks.haze_distance < 120),
             ("low sun", looks.glare > 0), ("dirt", looks.smear > 0 and not looks.rain))
    return ", ".join(name for name, there in found if there)


def save(result: Result, folder: Path) -> None:
    """Write the file of a world; it is whole or not there."""
    part = folder / f"{result.world.name}.part"
    part.write_text(json.dumps(asdict(result)), encoding="utf-8")
    part.replace(folder / f"{result.world.name}.json")


def load(folder: Path, world: World) -> Result | None:
    """What an earlier run left of the same world; None if it left nothing."""
    try:
        table = json.loads((folder / f"{world.name}.json").read_text(encoding="utf-8"))
        kept = Result(**{**table, "world": World(**table["world"]),
                         "outcome": Outcome(**table["outcome"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return kept if kept.world == world else None


def run(worlds: Sequence[World], model: Path | None, folder: Path, jobs: int,
        done: Callable[[Result], None]) -> list[Result]:
    """Drive those worlds whose file is not in the folder yet, `jobs` at a time; gives all results.
    """
    kept = {world: load(folder, world) for world in worlds}
    missing = [world for world, result in kept.items() if result is None]
    for result in kept.values():
        if result is not None:
            done(result)
    for result in drive_all(missing, model, jobs):
        save(result, folder)
        kept[result.world] = result
        done(result)
    return [result for result in kept.values() if result is not None]


def drive_all(worlds: Sequence[World], model: Path | None, jobs: int) -> Iterator[Result]:
    """The results of worlds as they come."""
    if jobs == 1:
        yield from (drive_world(world, model) for world in worlds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin_worker, (os.getpid(),)) as pool:
        try:
            for future in as_completed([pool.submit(drive_world, w, model) for w in worlds]):
                yield future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


# -- what is shown


@dataclass(frozen=True)
class Line:
    """A line of the table: what was measured, what it must be, whether it is."""

    name: str
    measured: str
    goal: str
    reached: bool


def table_of(results: Sequence[Result]) -> list[Line]:
    """The figures of a campaign beside what they must be."""
    roads = [one for one in results if one.world.metres]
    stops = [one for one in results if not one.world.metres]
    lines = []
    for conditions in (CLEAR, BAD):
        chosen = [one for one in roads if one.world.conditions == conditions]
        km = sum(one.outcome.metres for one in chosen) / 1000
        left = sum(len(one.outcome.departures) for one in chosen)
        allowed = 0 if conditions == CLEAR else max(1, math.floor(km / BAD_KM_PER_DEPARTURE))
        lines.append(Line(f"lane departures, {conditions}, {km:.1f} km", str(left),
                          f"at most {allowed}", bool(chosen) and left <= allowed))
    unfinished = sum(not one.finished for one in roads)
    lines.append(Line(f"of {len(roads)} worlds not driven to their end", str(unfinished), "0",
                      unfinished == 0))
    outcomes = [one.outcome for one in results]
    for name, values in (("vehicles touched", [len(one.touched) for one in outcomes]),
                         ("needless stops", [len(one.needless_stops) for one in outcomes])):
        lines.append(Line(name, str(sum(values)), "0", sum(values) == 0))
    lateral = max((one.most_lateral for one in outcomes), default=0.0)
    braking = min((one.hardest_braking for one in outcomes), default=0.0)
    pulling = max((one.most_pulling for one in outcomes), default=0.0)
    good = [one for one in stops if one.stopped and not one.outcome.touched]
    gaps = ", ".join("-" if one.outcome.gap is None else f"{one.outcome.gap:.1f}" for one in stops)
    return [
        *lines,
        Line("most lateral acceleration, m/s²", f"{lateral:.2f}", f"at most {LATERAL_GOAL:g}",
             lateral <= LATERAL_GOAL + SLACK),
        Line("hardest braking, m/s²", f"{braking:.2f}", f"at least {BRAKING_GOAL:g}",
             braking >= BRAKING_GOAL - SLACK),
        Line("most pulling, m/s²", f"{pulling:.2f}", f"at most {PULLING_GOAL:g}",
             pulling <= PULLING_GOAL + SLACK),
        Line(f"stops behind a standing car from {STOP_SPEED:g} m/s; gaps {gaps or 'none'} m",
             f"{len(good)} of {len(stops)}", "all", bool(stops) and len(good) == len(stops)),
    ]


def markdown(results: Sequence[Result]) -> str:
    """The table, and a line per world, as Markdown."""
    rows = ["| what | measured | goal | reached |", "|---|---:|---:|---|"]
    rows += [f"| {line.name} | {line.measured} | {line.goal} | {'yes' if line.reached else 'no'} |"
             for line in table_of(results)]
    rows += ["", range_of(results), "", f"| {' | '.join(WORLD_COLUMNS)} |",
             "|---|---|---|" + "---:|" * (len(WORLD_COLUMNS) - 3)]
    rows += [world_row(result) for result in results]
    return "\n".join(rows) + "\n"


def range_of(results: Sequence[Result]) -> str:
    """What the worlds asked of the car, in a sentence."""
    roads = [one for one in results if one.world.metres]
    speeds = [speed for one in roads for _, _, speed in one.trace] or [0.0]
    low, middle, high = np.percentile(speeds, (5, 50, 95))
    sharpest = max((one.outcome.sharpest for one in roads), default=0.0)
    return (f"Half the way was driven at {middle:.1f} m/s or faster, nine tenths of it at "
            f"{low:.1f} to {high:.1f} m/s; the sharpest curve driven had a radius of "
            f"{1 / max(sharpest, 1e-5):.0f} m.")


WORLD_COLUMNS = (
    "world", "road", "conditions", "set speed", "driven", "departures", "touched",
    "needless stops", "offset RMS, most", "over a line", "sharpest radius", "lateral",
    "braking, pulling", "closest gap")


def world_row(result: Result) -> str:
    """A world as a row of the second table."""
    world, one = result.world, result.outcome
    frames = max(one.frames, 1)
    broken_off = ", not all" if world.metres and not result.finished else ""
    cells = [
        world.name, world.kind, result.trouble or world.conditions, f"{result.set_speed:.1f} m/s",
        f"{one.metres / 1000:.2f} km{broken_off}",
        str(len(one.departures)), str(len(one.touched)), str(len(one.needless_stops)),
        f"{math.sqrt(one.squared_offset / frames):.2f}, {one.most_offset:.2f} m",
        f"{one.over_line / frames:.1%}", f"{1 / max(one.sharpest, 1e-5):.0f} m",
        f"{one.most_lateral:.2f}", f"{one.hardest_braking:.2f}, {one.most_pulling:.2f}",
        "none" if one.gap is None else f"{one.gap:.1f} m"]
    return f"| {' | '.join(cells)} |"


def picture(results: Sequence[Result]) -> np.ndarray:
    """Offset and speed over the way, all worlds above each other, (height, width, 3) uint8."""
    roads = [one for one in results if one.world.metres]
    drawn = []
    for title, column, limits in (("Offset from the lane's centre, m, positive to the right; "
                                   "blue: clear, orange: bad", 1, (-1.5, 1.5)),
                                  ("Speed, m/s", 2, (0.0, 36.0))):
        curves = []
        for one in roads:
            trace = np.array(one.trace, np.float64).reshape(-1, 3)
            curves.append(Curve(trace[:, 0], trace[:, column], COLORS[one.world.conditions]))
        drawn.append(Chart(title, "along the road, m", curves, limits))
    return charts(drawn)


def report(results: Sequence[Result], out: Path, about: dict[str, Any]) -> bool:
    """Write table, picture and JSON; gives whether every goal is reached."""
    lines = table_of(results)
    (out / "campaign.md").write_text(markdown(results), encoding="utf-8")
    Image.fromarray(picture(results)).save(out / "campaign.png")
    whole = {**about, "table": [asdict(line) for line in lines],
             "worlds": [asdict(result) for result in results]}
    (out / "campaign.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    return all(line.reached for line in lines)


def main(arguments: Sequence[str]) -> int:
    """The command; gives the exit code: 0 all goals reached, 1 not, 2 wrong input."""
    parser = argparse.ArgumentParser(
        prog="drive-replay campaign",
        description="Let a model drive many worlds, and count what goes wrong.")
    parser.add_argument("--model", required=True, metavar="FILE",
                        help=f"artifact to drive by; \"{TRUTH}\" drives by the truth")
    parser.add_argument("--km", type=float, default=100.0, help="in all (default: %(default)s)")
    parser.add_argument("--worlds", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--stops", type=int, default=10, metavar="N",
                        help="behind a standing car (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="worlds at a time (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=Path("campaign"),
                        help="folder for results; what is there already is not driven again")
    args = parser.parse_args(arguments)
    if args.worlds < 0 or args.stops < 0 or args.jobs < 1 or args.km <= 0:
        parser.error("--km and --jobs must be above 0, --worlds and --stops at least 0")
    model = None if args.model == TRUTH else Path(args.model)
    try:
        about = {"model": TRUTH, "sha256": ""}
        if model is not None:
            found = describe_model(model)
            about = {"model": found.name, "sha256": found.sha256}
        folder = args.out / f"worlds-{about['sha256'][:12] or TRUTH}"
        folder.mkdir(parents=True, exist_ok=True)
        worlds = worlds_of(args.km, args.worlds, args.stops)
        with tqdm(total=len(worlds), desc="worlds", unit="world") as bar:
            results = run(worlds, model, folder, args.jobs, lambda _: bar.update())
        reached = report(results, args.out, about)
    except (*FAULTS, ValueError) as error:
        print(f"drive-replay campaign: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"drive-replay campaign: interrupted; the same command goes on from {args.out}",
              file=sys.stderr)
        return 130
    for line in table_of(results):
        print(f"  {line.name:<60}{line.measured:>10}  {line.goal}"
              f"{'' if line.reached else ', not reached'}")
    for name in ("campaign.md", "campaign.png", "campaign.json"):
        print(f"  {args.out / name}")
    return 0 if reached else 1
