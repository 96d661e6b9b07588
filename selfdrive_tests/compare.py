"""Two sets of plans for the same frames, compared field by field as a driver would.

Plans are aligned by frame id. Every field has a tolerance that means something on the road: metres
of path two seconds ahead, not bits. A field passes if |a - b| <= absolute + relative * max(|a|,
|b|) in every frame; both 0 is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter, methodcaller

import numpy as np

from selfdrive_tests.drives import RATE_HZ
from selfdrive_tests.overlay import LEAD_MIN_PROBABILITY
from selfdrive_tests.plans import Plan

Value = float | bool | str | None

LINES = ("far_left", "left", "right", "far_right")
LINE_PLACE_M = 10.0
WORST = 10
# Fields that a verdict names; the table has them all.
NAMED = 4
# Moments that are shown lie at least this far apart, so that one event is not shown ten times.
APART_FRAMES = RATE_HZ // 2


class CompareError(Exception):
    """There is nothing to compare with; the text says why and what to do."""


@dataclass(frozen=True)
class Tolerance:
    """What may differ. Both 0: nothing."""

    absolute: float = 0.0
    relative: float = 0.0

    def allowed(self, one: float, other: float) -> float:
        """The greatest difference between two numbers that passes."""
        return self.absolute + self.relative * max(abs(one), abs(other))

    def __str__(self) -> str:
        parts = [f"{self.absolute:g}"] if self.absolute else []
        parts += [f"{self.relative * 100:g}%"] if self.relative else []
        return "+".join(parts) or "exact"


EXACT = Tolerance()


@dataclass(frozen=True)
class Field:
    """Something that is compared.

    value: of a plan; None for fields of other messages than plans, which go by their name.
    optional: None on either side is not compared, else it is a difference to any number.
    """

    name: str
    unit: str
    value: Callable[[Plan], Value] | None = None
    tolerance: Tolerance = EXACT
    optional: bool = False


def _probability(number: int, plan: Plan) -> Value:
    known = number < len(plan.lane_probabilities)
    return plan.lane_probabilities[number] if known else None


def _line_place(number: int, plan: Plan) -> Value:
    """Where a lane line is, if the plan believes in it."""
    probability = _probability(number, plan)
    seen = isinstance(probability, float) and probability >= LEAD_MIN_PROBABILITY
    return plan.line_at(number, LINE_PLACE_M) if seen else None


def _lead_probability(plan: Plan) -> Value:
    return plan.leads[0].probability if plan.leads else None


def _lead(name: str, plan: Plan) -> Value:
    """A number of the first lead, if the plan believes in it."""
    seen = plan.leads and plan.leads[0].probability >= LEAD_MIN_PROBABILITY
    return getattr(plan.leads[0], name) if seen else None


# The functions are such that a Field can be sent to another process.
FIELDS: tuple[Field, ...] = (
    Field("valid", "", attrgetter("valid")),
    Field("should_stop", "", attrgetter("should_stop")),
    Field("curvature", "1/m", attrgetter("curvature"), Tolerance(5e-4)),
    Field("acceleration", "m/s²", attrgetter("acceleration"), Tolerance(0.1)),
    Field("lateral_1s", "m", methodcaller("lateral_at", 1.0), Tolerance(0.05)),
    Field("lateral_2s", "m", methodcaller("lateral_at", 2.0), Tolerance(0.1)),
    Field("lateral_4s", "m", methodcaller("lateral_at", 4.0), Tolerance(0.3)),
    Field("forward_2s", "m", methodcaller("forward_at", 2.0), Tolerance(0.5)),
    *(
        Field(f"line_{name}_probability", "", partial(_probability, i), Tolerance(0.05))
        for i, name in enumerate(LINES)
    ),
    *(
        Field(f"line_{name}_10m", "m", partial(_line_place, i), Tolerance(0.1), optional=True)
        for i, name in enumerate(LINES)
    ),
    Field("lead_probability", "", _lead_probability, Tolerance(0.05)),
    Field("lead_distance", "m", partial(_lead, "x"), Tolerance(0.5, 0.05), optional=True),
    Field("lead_lateral", "m", partial(_lead, "y"), Tolerance(0.3), optional=True),
    Field("lead_speed", "m/s", partial(_lead, "v"), Tolerance(0.5), optional=True),
)


def tolerances(texts: Iterable[str], fields: Sequence[Field] = FIELDS) -> tuple[Field, ...]:
    """Fields with other tolerances: texts like curvature=0.001, lead_distance=0.5+5%, all=exact.

    The value "ignore" leaves a field out. Later texts win. Raises ValueError.
    """
    chosen: dict[str, Field | None] = {item.name: item for item in fields}
    by_name = {item.name: item for item in fields}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or (name != "all" and name not in by_name):
            known = ", ".join(["all", *by_name])
            raise ValueError(f"{text!r} is not FIELD=TOLERANCE; fields are {known}")
        tolerance = None if value == "ignore" else _tolerance(text, value)
        for each in by_name if name == "all" else [name]:
            kept = by_name[each]
            chosen[each] = None if tolerance is None else replace(kept, tolerance=tolerance)
    return tuple(item for item in chosen.values() if item is not None)


def _tolerance(text: str, value: str) -> Tolerance:
    if value == "exact":
        return EXACT
    absolute = relative = 0.0
    try:
        for part in value.split("+"):
            if part.endswith("%"):
                relative = float(part[:-1]) / 100
            else:
                absolute = float(part)
    except ValueError:
        absolute = math.nan
    if not (0 <= absolute < math.inf and 0 <= relative < math.inf):
        raise ValueError(f"{text!r}: a tolerance is exact, ignore, 0.1, 5% or 0.1+5%")
    return Tolerance(absolute, relative)


@dataclass(frozen=True)
class Moment:
    """What is compared of one frame, and the plan for drawing, which may have fewer points.

    plan: None for other messages than plans.
    """

    values: Mapping[str, Value]
    plan: Plan | None


def moment(plan: Plan | Moment) -> Moment:
    """The values of a plan by every field; numbers as the shortest text of their float32."""
    if isinstance(plan, Moment):
        return plan
    return Moment({item.name: plain(item.value(plan)) for item in FIELDS if item.value}, plan)


def plain(value: Value) -> Value:
    """A value as it is kept and compared: None for a number that is not finite."""
    if isinstance(value, (bool, str)) or value is None:
        return value
    return float(str(np.float32(value))) if math.isfinite(value) else None


@dataclass(frozen=True)
class Difference:
    """A field of a frame that is out of tolerance. size: in the field's unit, inf if not a number.

    score: how many times as large as allowed.
    """

    field: Field
    here: Value
    there: Value
    size: float
    score: float


@dataclass
class FieldResult:
    """A field over all frames. worst: the largest difference, in tolerance or not."""

    field: Field
    compared: int = 0
    differing: int = 0
    worst: float = 0.0
    worst_frame: int | None = None


@dataclass(frozen=True)
class BadMoment:
    """A frame with differences, the largest first."""

    frame_id: int
    differences: tuple[Difference, ...]

    @property
    def score(self) -> tuple[float, float]:
        """Sorts moments: how far out of tolerance, then by size."""
        return self.differences[0].score, self.differences[0].size


@dataclass(frozen=True)
class Claim:
    """What two artifacts state of their precision, checked on real frames.

    bound: how far apart they may be by what they state; worst: how far they were, at a frame. Both
    are norms of the difference over the norm of the output. frames: number that was looked at.
    """

    output: str
    bound: float
    worst: float
    worst_frame: int
    frames: int

    @property
    def holds(self) -> bool:
        """False also for a worst that is not a number."""
        return self.worst <= self.bound

    def __str__(self) -> str:
        verb = "holds" if self.holds else "DOES NOT HOLD"
        return (
            f"Stated precision of {self.output} {verb}: at most {self.worst:.1e} apart in "
            f"{self.frames} frames (frame {self.worst_frame}), {self.bound:.1e} is stated."
        )


@dataclass
class Comparison:
    """The outcome.

    against: what was compared with, in words. frames: compared, by both plans.
    unanswered: frames that only the other side has a plan for. new: those that only we have one
    for. bad: every frame with differences. claims: on the precision of two artifacts.
    """

    against: str
    fields: list[FieldResult]
    frames: int = 0
    unanswered: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    bad: list[BadMoment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Nothing differs, and what is claimed holds."""
        holds = all(claim.holds for claim in self.claims)
        return holds and not (self.bad or self.unanswered or self.new)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.passed:
            return f"No difference to {self.against} in {self.frames} frames."
        faults = []
        if self.bad:
            names = [row.field.name for row in self.fields if row.differing]
            more = f" and {len(names) - NAMED} more fields" if len(names) > NAMED else ""
            faults.append(
                f"{len(self.bad)} of {self.frames} frames differ beyond tolerance "
                f"({', '.join(names[:NAMED])}{more})"
            )
        if not all(claim.holds for claim in self.claims):
            faults.append("the precision that the artifacts state does not hold")
        if self.unanswered:
            faults.append(f"{len(self.unanswered)} frames have no plan here but have one there")
        if self.new:
            faults.append(f"{len(self.new)} frames have a plan here but none there")
        return f"Not as {self.against}: {'; '.join(faults)}."


def compare(
    here: Mapping[int, Plan | Moment | None],
    there: Mapping[int, Moment | None],
    against: str,
    fields: Sequence[Field] = FIELDS,
) -> Comparison:
    """Compare the frames that both sides know; None is a frame that was not answered.

    Raises CompareError if the two have no frame in common.
    """
    common = sorted(here.keys() & there.keys())
    if not common:
        raise CompareError(
            f"Nothing to compare: {against} has none of the frames {_span(here)} that were "
            f"replayed, but {_span(there)}. Check that both are of the same drive."
        )
    result = Comparison(against, [FieldResult(item) for item in fields])
    if len(common) < len(here):
        result.notes.append(f"{against} lacks {len(here) - len(common)} of {len(here)} frames.")
    lacking: set[str] = set()
    for frame_id in common:
        plan, other = here[frame_id], there[frame_id]
        if plan is None or other is None:
            if other is not None:
                result.unanswered.append(frame_id)
            elif plan is not None:
                result.new.append(frame_id)
            continue
        result.frames += 1
        _compare_frame(frame_id, moment(plan).values, other.values, result, lacking)
    if lacking:
        result.notes.append(f"{against} does not have {', '.join(sorted(lacking))}.")
    return result


def _span(frames: Mapping[int, object]) -> str:
    return f"{min(frames)} to {max(frames)}" if frames else "no frames at all"


def _compare_frame(
    frame_id: int,
    here: Mapping[str, Value],
    there: Mapping[str, Value],
    result: Comparison,
    lacking: set[str],
) -> None:
    differences = []
    for row in result.fields:
        item = row.field
        if item.name not in there:
            lacking.add(item.name)
            continue
        one, other = here[item.name], there[item.name]
        if item.optional and (one is None or other is None):
            continue
        size, allowed = difference(one, other, item.tolerance)
        row.compared += 1
        if size > row.worst:
            row.worst, row.worst_frame = size, frame_id
        if size > allowed:
            row.differing += 1
            score = size / allowed if allowed > 0 else math.inf
            differences.append(Difference(item, one, other, size, score))
    if differences:
        differences.sort(key=lambda entry: (-entry.score, -entry.size))
        result.bad.append(BadMoment(frame_id, tuple(differences)))


def difference(one: Value, other: Value, tolerance: Tolerance) -> tuple[float, float]:
    """How far two values are apart, and how far they may be; inf apart if not both are numbers."""
    if type(one) is float and type(other) is float:
        size = abs(one - other)
        return (size if math.isfinite(size) else math.inf), tolerance.allowed(one, other)
    return (0.0 if one == other else math.inf), 0.0


def worst_moments(bad: Sequence[BadMoment], count: int = WORST) -> list[BadMoment]:
    """The moments that differ most, apart from each other, the worst first."""
    chosen: list[BadMoment] = []
    for candidate in sorted(bad, key=lambda one: one.score, reverse=True):
        if len(chosen) == count:
            break
        if all(abs(candidate.frame_id - other.frame_id) >= APART_FRAMES for other in chosen):
            chosen.append(candidate)
    return chosen


def value_text(value: Value, unit: str) -> str:
    """A value for people."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g} {unit}".rstrip()
    return str(value)
