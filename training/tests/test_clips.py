"""Clips out of the procedural world: the contract's shapes, equal for equal seeds, no gaps."""
import numpy as np

from drivesim.episode import Episode
from training.clips import LATEST_START, PRESSING, desire_pulses, glimpse, make_clip
from training.outputs import TRUTHS


def test_a_clip_has_the_shapes_of_the_contract_and_follows_from_its_seed() -> None:
    clip, again = make_clip(5, 3), make_clip(5, 3)
    assert clip.pictures.shape == (3, 2, 6, 128, 256)
    assert clip.pictures.std() > 5
    assert np.array_equal(clip.pictures, again.pictures)
    for name, output in TRUTHS.items():
        values = clip.truth[name]
        assert values.shape == (3, *output.shape)
        assert np.array_equal(values, again.truth[name], equal_nan=True)
        if name not in ("lane_lines", "lead"):
            assert np.isfinite(values).all(), name
    assert not np.isfinite(clip.truth["lead"][clip.truth["lead_prob"] < 0.5]).any()


def test_a_glimpse_is_a_part_of_its_world_with_the_commands_before_it() -> None:
    seed = 40  # winding; a lane change begins shortly before the clip
    start = np.random.RandomState(seed).randint(LATEST_START)
    whole = [*Episode(seed, seconds=(start + 8) / 20, winding=True).frames()]
    clip = glimpse(seed, 2)
    assert np.array_equal(clip.truth["plan"][1], whole[start + 4].truth.plan)
    commands = np.zeros((26, 8), np.float32)
    for step in range(26):
        frame = start + 4 * (step - 24)
        commands[step] = whole[frame].desire if frame >= 0 else np.eye(8)[0]
    assert clip.desire[:24].any()
    assert np.array_equal(clip.desire, desire_pulses(commands))


def test_glimpses_that_press_are_of_worlds_that_do() -> None:
    seed = 34
    random = np.random.RandomState(seed)
    start = random.randint(LATEST_START)
    assert random.uniform() < PRESSING
    whole = Episode(seed, seconds=(start + 4) / 20, winding=True, pressing=True)
    assert np.array_equal(glimpse(seed, 1).truth["plan"][0], [*whole.frames()][start].truth.plan)


def test_a_command_that_is_held_is_a_pulse_where_it_begins() -> None:
    desire = np.zeros((6, 8), np.float32)
    desire[:, 0] = 1
    desire[2:5] = np.eye(8)[3]
    assert np.argwhere(desire_pulses(desire)).tolist() == [[2, 3]]
