"""Campaigns: which worlds, what is counted, going on where one ended, the same acts as modeld."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tinynn
from drivesim.episode import Episode
from modeld.action import Action
from selfdrive_tests import campaign
from selfdrive_tests.campaign import FIRST_SEED, Result, World, table_of, worlds_of
from selfdrive_tests.chart import HEIGHT, WIDTH, Chart, Curve, chart_picture, ticks
from selfdrive_tests.closed_loop import ModelDriver, Moment, Outcome, drive_by
from selfdrive_tests.replay import Settings
from selfdrive_tests.sim import simulate
from selfdrive_tests.viewer import Scene

TRAINED = Path(__file__).resolve().parents[2] / "compiled_models/trained/driving_demo.onnx"
BLUE = (0, 0, 255)


def test_worlds_are_of_all_kinds_half_of_them_clear_and_never_seen() -> None:
    worlds = worlds_of(100.0, 50, 10)
    roads = worlds[:50]
    assert sum(world.metres for world in roads) == pytest.approx(100_000)
    assert len({world.seed for world in worlds}) == 60
    assert all(world.seed >= FIRST_SEED for world in worlds)
    for conditions in ("clear", "bad"):
        chosen = [world.kind for world in roads if world.conditions == conditions]
        assert {kind: chosen.count(kind) for kind in set(chosen)} == {
            "highway": 10, "rural": 8, "urban": 5, "recorded": 2}
    assert {world.metres for world in worlds[50:]} == {0.0}


def result(conditions: str = "clear", metres: float = 2000.0, **outcome: Any) -> Result:
    """A world that went well but for what is given."""
    world = World(0, FIRST_SEED, "rural", conditions, metres)
    driven = {"lane_width": 3.5, "metres": 2000.0, "frames": 2000, **outcome}
    return Result(world, "", 20.0, metres > 0, metres == 0, Outcome(**driven), [(0.0, 0.1, 20.0)])


def reached(results: list[Result]) -> dict[str, bool]:
    return {line.name.partition(",")[0]: line.reached for line in table_of(results)}


def test_a_departure_counts_in_clear_conditions_and_one_in_bad_ones_does_not() -> None:
    good = [result(), result("bad"), result(metres=0.0, gap=4.0)]
    assert all(line.reached for line in table_of(good))
    clear, bad = result(departures=[1.0]), result("bad", departures=[1.0])
    names = [line.name for line in table_of([clear, *good[1:]]) if not line.reached]
    assert names == ["lane departures, clear, 2.0 km"]
    assert all(line.reached for line in table_of([good[0], bad, good[2]]))
    bad.outcome.departures = [1.0, 2.0]
    names = [line.name for line in table_of([good[0], bad, good[2]]) if not line.reached]
    assert names == ["lane departures, bad, 2.0 km"]


@pytest.mark.parametrize(("outcome", "name"), [
    ({"touched": [5.0]}, "vehicles touched"),
    ({"needless_stops": [5.0]}, "needless stops"),
    ({"most_lateral": 3.1}, "most lateral acceleration"),
    ({"hardest_braking": -4.1}, "hardest braking"),
    ({"most_pulling": 2.1}, "most pulling"),
])  # fmt: skip
def test_what_is_not_comfortable_is_not_reached(outcome: dict[str, Any], name: str) -> None:
    found = reached([result(**outcome), result("bad"), result(metres=0.0, gap=4.0)])
    assert [line for line, good in found.items() if not good] == [name]


def test_a_campaign_by_the_truth_reaches_its_goals_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--model", "truth", "--km", "0.3", "--worlds", "2", "--stops", "1", "--jobs", "1",
               "-o", str(tmp_path)]
    assert campaign.main(command) == 0
    assert "not reached" not in capsys.readouterr().out
    whole = json.loads((tmp_path / "campaign.json").read_text())
    assert [line["reached"] for line in whole["table"]] == [True] * len(whole["table"])
    stop = whole["worlds"][2]
    assert stop["stopped"]
    assert 0 < stop["outcome"]["gap"] < 12
    before = [(tmp_path / name).read_bytes() for name in ("campaign.md", "campaign.json")]
    (tmp_path / "worlds-truth" / "001.json").unlink()
    driven = []
    drive_world = campaign.drive_world

    def noted(world: World, model: Path | None) -> Result:
        driven.append(world.number)
        return drive_world(world, model)

    monkeypatch.setattr(campaign, "drive_world", noted)
    assert campaign.main(command) == 0
    assert driven == [1]
    after = [(tmp_path / name).read_bytes() for name in ("campaign.md", "campaign.json")]
    assert after == before
    assert Image.open(tmp_path / "campaign.png").size == (WIDTH, 2 * HEIGHT)


def test_a_missing_artifact_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert campaign.main(["--model", str(tmp_path / "no.tnn"), "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("drive-replay campaign: ")
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that reacts to pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYDRIVE_HOME", str(tmp_path_factory.mktemp("home")))
        path = tmp_path_factory.mktemp("model") / "model.tnn"
        tinynn.compile(TRAINED).save(path)
        yield path


def test_the_model_acts_in_this_process_as_over_the_bus(artifact: Path, tmp_path: Path) -> None:
    over_the_bus: list[Moment] = []
    simulate(Episode(3), 3, artifact, Settings(count=12), tmp_path, on_moment=over_the_bus.append)
    here = islice(drive_by(Episode(3), ModelDriver(artifact)), 12)
    for ours, theirs in zip(here, over_the_bus, strict=True):
        assert ours.action == theirs.action
        assert ours.ego == theirs.ego
    assert len({moment.action.curvature for moment in over_the_bus}) > 5


def test_by_the_clock_every_frame_is_shown_and_answers_are_followed(
    artifact: Path, tmp_path: Path
) -> None:
    scene = Scene()
    moments: list[Moment] = []
    _, result = simulate(Episode(3), 3, artifact, Settings(count=30, realtime=True), tmp_path,
                         "", scene, moments.append)
    assert result.published == list(range(30))
    assert moments[-1].action.curvature != 0
    assert moments[0].action == Action()  # nothing was answered yet
    assert scene.take(0.0) is not None


def test_a_chart_draws_where_the_numbers_are_and_leaves_gaps() -> None:
    x = np.arange(101.0)
    y = np.full(101, 2.0)
    y[40:61] = np.nan
    picture = chart_picture(Chart("two", "m", [Curve(x, y, BLUE)], (0.0, 4.0)))
    blue = np.argwhere((picture == BLUE).all(axis=-1))
    assert len({*blue[:, 0]}) == 2  # one level line, two pixels wide
    inner = picture[26 : HEIGHT - 34]
    assert abs((blue[:, 0].mean() - 26) / inner.shape[0] - 0.5) < 0.02
    columns = set(blue[:, 1])
    assert len(columns) == pytest.approx(0.78 * (WIDTH - 68), abs=4)


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0.0, 100.0, [0, 20, 40, 60, 80, 100]), (-1.5, 1.5, [-1.5, -1, -0.5, 0, 0.5, 1, 1.5]),
    (0.0, 0.003, [0, 0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003])])
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)
