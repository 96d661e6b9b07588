"""The trained demonstration model: small, of the contract, and its plans mean something."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import tinynn
from compiled_models.build import build_artifact
from compiled_models.recipe import Recipe, read_recipe
from drivesim.episode import Episode, Frame
from modeld.action import Action
from modeld.constants import T_IDXS, X_IDXS
from modeld.contract import describe
from modeld.model_state import DrivingModel, ModelInputs
from modeld.parser import Parsed, parse
from selfdrive_tests.closed_loop import ModelDriver, Outcome, drive_by

RECIPE = Path(__file__).resolve().parents[2] / "compiled_models/recipes/driving_demo.toml"
LARGEST, MOST_MACS = 12_000_000, 350_000_000
HELD_OUT = 1_500_000_000  # seeds that are neither trained on nor in any table of figures
WARM_UP = 60  # frames until the history is filled


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(RECIPE)


@pytest.fixture(scope="module")
def artifact(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its program for this processor."""
    assert recipe.source.model is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYDRIVE_HOME", str(tmp_path_factory.mktemp("home")))
        path = tmp_path_factory.mktemp("model") / "driving_demo.tnn"
        tinynn.compile(recipe.source.model).save(path)
        yield path


def test_it_is_small_and_says_what_it_is(recipe: Recipe, artifact: Path) -> None:
    assert recipe.source.model is not None
    assert recipe.source.model.stat().st_size <= LARGEST
    assert recipe.budget[""]["flop"] <= 2 * MOST_MACS
    runner = tinynn.load(artifact)
    assert describe(runner).era == "0.11"
    assert runner.outputs["outputs"].shape == (1, 2576)
    assert "never for a car on a road" in runner.metadata["props"]["training"]


def test_it_keeps_the_lane_of_most_winding_highways(artifact: Path) -> None:
    seeds = range(HELD_OUT + 1, HELD_OUT + 9)
    kept = [seed for seed in seeds if not driven(seed, ModelDriver(artifact)).departures]
    assert len(kept) >= 5, kept


@pytest.mark.parametrize("seed", [HELD_OUT + 1, HELD_OUT + 3])
def test_who_does_not_steer_leaves_that_lane(seed: int) -> None:
    assert driven(seed, lambda frame: Action()).departures


def driven(seed: int, driver: Callable[[Frame], Action]) -> Outcome:
    """Ten seconds on an empty highway in clear weather."""
    episode = Episode(seed, "clear", 15.0, "highway", traffic=[], winding=True)
    outcome = Outcome(episode.road.lane_width)
    for moment in islice(drive_by(episode, driver), 200):
        outcome.add(moment)
    assert outcome.metres > 150
    return outcome


@pytest.fixture(scope="module")
def errors(artifact: Path) -> np.ndarray:
    """Medians over some frames of clear worlds; the data sheet has the real figures."""
    rows = [row for seed in range(3) for row in errors_of(artifact, HELD_OUT + seed)]
    return np.median(rows, axis=0)


def test_its_plan_and_lines_are_those_of_the_road(errors: np.ndarray) -> None:
    plan, line, _ = errors
    assert plan < 0.4  # m to the side, at 2 s
    assert line < 0.3  # m to the side, at 20 m


def test_its_speed_is_that_of_the_car(errors: np.ndarray) -> None:
    assert errors[2] < 0.15


def errors_of(artifact: Path, seed: int) -> Iterator[tuple[float, float, float]]:
    """Of every tenth frame: error of the plan to the side, of the own lines, and of the speed."""
    episode = Episode(seed, "clear", 5.0)
    model = DrivingModel(tinynn.load(artifact))
    for number, frame in enumerate(episode.frames()):
        said = parse(model.run(ModelInputs(
            frame.narrow, frame.wide, frame.desire, frame.traffic_convention,
            np.zeros(2, np.float32), np.zeros(2, np.float32))).named)
        if number >= WARM_UP and number % 10 == 0:
            truth: Parsed = vars(frame.truth)
            plan = np.interp(2.0, T_IDXS, np.abs(said["plan"] - truth["plan"])[:, 1])
            lines = np.abs(said["lane_lines"] - truth["lane_lines"])[1:3, :, 0].mean(axis=0)
            speed = abs(said["pose"][0] / frame.ego.speed - 1)
            yield float(plan), float(np.interp(20.0, X_IDXS, lines)), float(speed)


@pytest.mark.slow
def test_every_target_of_the_recipe_is_built(recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.targets == ("cpu", "opencl", "opencl:adreno630")
    assert recipe.source.model is not None
    built = build_artifact(recipe, recipe.source.model, tmp_path)
    assert built.stat().st_size <= recipe.budget[""]["artifact_bytes"]
