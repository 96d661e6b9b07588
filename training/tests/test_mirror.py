"""The mirror against worlds whose other side is known, and against itself."""
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (extra 'train') is not installed")

from modeld.constants import DESIRE_LEN, X_IDXS  # noqa: E402
from modeld.warp import unpacked  # noqa: E402
from training.clips import make_clip  # noqa: E402
from training.mirror import mirrored, mirrored_truth  # noqa: E402
from training.outputs import TRUTHS  # noqa: E402


def truth_of(seed: int) -> dict:
    return {name: torch.from_numpy(v) for name, v in make_clip(seed, 2).truth.items()}


def test_luma_is_the_picture_from_right_to_left() -> None:
    clip = make_clip(3, 1)
    there, desire, traffic = mirrored(torch.from_numpy(clip.pictures),
                                      torch.eye(DESIRE_LEN)[[1, 3]], torch.tensor([[1.0, 0.0]]))
    for view in (0, 1):
        ours = unpacked(there[0, view].numpy())[0]
        assert np.array_equal(ours, unpacked(clip.pictures[0, view])[0][:, ::-1])
        assert np.array_equal(there[0, view, 4].numpy(), clip.pictures[0, view, 4, :, ::-1])
    assert desire.argmax(-1).tolist() == [2, 4]
    assert traffic.tolist() == [[0.0, 1.0]]


def test_twice_is_not_at_all() -> None:
    truth = truth_of(4)
    again = mirrored_truth(mirrored_truth(truth))
    for name in TRUTHS:
        assert torch.equal(again[name].nan_to_num(7), truth[name].nan_to_num(7)), name


def test_lines_and_plan_lie_on_the_other_side() -> None:
    truth = truth_of(5)
    there = mirrored_truth(truth)
    left, right = (np.asarray(truth["road_edges"][0, side, :, 0]) for side in (0, 1))
    assert left[0] < 0 < right[0]
    assert np.array_equal(np.asarray(there["road_edges"][0, 0, :, 0]), -right)
    assert np.array_equal(np.asarray(there["road_edges"][0, 0, :, 1]),
                          np.asarray(truth["road_edges"][0, 1, :, 1]))  # height stays
    # What the path does to the right it now does to the left, and yaw goes with it.
    plan, other = truth["plan"][0].numpy(), there["plan"][0].numpy()
    assert np.array_equal(other[:, 1], -plan[:, 1])
    assert np.array_equal(other[:, [11, 14]], -plan[:, [11, 14]])
    same = [0, 2, 3, 5, 6, 8, 10, 13]
    assert np.array_equal(other[:, same], plan[:, same])
    assert len(left) == len(X_IDXS)


def test_blinkers_change_places() -> None:
    meta = torch.zeros(1, 55)
    meta[0, 33] = 1.0  # now, left
    there = mirrored_truth({"meta": meta})["meta"]
    assert there.argmax().item() == 34
