"""Losses against closed forms, the network's history against one run at a time, the export."""
import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="PyTorch (extra 'train') is not installed")

import tinynn  # noqa: E402
from modeld.action import acceleration_from_plan, curvature_from_plan  # noqa: E402
from modeld.contract import describe  # noqa: E402
from modeld.warp import luma_phases  # noqa: E402
from training import loop  # noqa: E402
from training.clips import Clip  # noqa: E402
from training.export import onnx_model  # noqa: E402
from training.losses import (  # noqa: E402
    ASKED,
    asked,
    asked_loss,
    laplace,
    losses_of,
    normal,
    output_loss,
    standardise,
    value_weights,
)
from training.motion import BANDS, HEIGHT, STEP, VIEWS, RoadMotion  # noqa: E402
from training.network import DrivingNetwork, nothing_before, run_clips, windows  # noqa: E402
from training.outputs import INPUTS, OUTPUTS, TRUTHS  # noqa: E402

torch.set_num_threads(1)
SIZE_LIMIT = 12_000_000  # bytes of the file
MAC_LIMIT = 350_000_000


@pytest.fixture(scope="module")
def network() -> DrivingNetwork:
    torch.manual_seed(1)
    return DrivingNetwork().eval()


def some_clip(seed: int, steps: int = 4) -> Clip:
    """A clip of noise with truth that depends on the seed alone."""
    random = np.random.RandomState(seed)
    pictures = random.randint(0, 256, (steps, 2, 6, 128, 256)).astype(np.uint8)
    desire = (random.uniform(size=(24 + steps, 8)) > 0.9).astype(np.float32)
    truth = {}
    for name, output in TRUTHS.items():
        values = random.normal(size=(steps, *output.shape))
        if output.kind == "classes":
            values = np.eye(8)[random.randint(0, 8, (steps, *output.shape[:-1]))]
        elif output.kind in ("binary", "pairs"):
            values = (values > 0).astype(float)
        truth[name] = values.astype(np.float32)
    return Clip(pictures, desire, np.array([1, 0], np.float32), truth)


def inputs_of(clip: Clip) -> tuple[np.ndarray, ...]:
    """What the network is given of a clip."""
    return clip.pictures, clip.desire, clip.traffic


def test_densities_are_those_of_torch() -> None:
    error, log_scale = torch.randn(50), torch.randn(50)
    zero, scale = torch.zeros(50), log_scale.exp()
    theirs = -torch.distributions.Laplace(zero, scale).log_prob(error)
    assert torch.allclose(laplace(error, log_scale), theirs, atol=1e-5)
    theirs = -torch.distributions.Normal(zero, scale).log_prob(error)
    assert torch.allclose(normal(error, log_scale), theirs, atol=1e-4)


@pytest.mark.parametrize(("density", "best"), [(laplace, 1.0), (normal, math.sqrt(2.5))])
def test_the_best_deviation_is_the_mean_absolute_or_square_error(density, best) -> None:  # type: ignore[no-untyped-def]
    errors = torch.tensor([2.0, -1.0, 0.0, 1.0, -1.0, 1.0]) if density is laplace else (
        torch.tensor([1.0, -2.0]))
    grid = torch.linspace(0.2, 4.0, 3801)
    total = density(errors[:, None], grid.log()[None]).mean(0)
    assert float(grid[total.argmin()]) == pytest.approx(best, abs=2e-3)


def test_what_is_not_known_counts_for_nothing() -> None:
    truth = torch.tensor([[1.0, math.nan, 0.0]])
    said = torch.zeros(1, 3, requires_grad=True)
    loss = output_loss("lead_prob", said, truth)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    loss.backward()
    assert said.grad is not None and said.grad[0].tolist() == [-0.25, 0.0, 0.25]


def test_what_is_uncertain_is_learned_from_too() -> None:
    truth = torch.tensor([[3.0, 1.0, math.nan, 0.0, 0.0, 0.0]])
    deviations = torch.tensor([16.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    means = torch.zeros(1, 6, requires_grad=True)
    said = torch.cat([means, deviations.log()[None]], 1)
    output_loss("road_transform", said, truth).backward()
    assert means.grad is not None
    wide, narrow, unknown = means.grad[0, :3].tolist()
    # A normal density's gradient is error / deviation^2; here times deviation^(1/2).
    assert wide / narrow == pytest.approx(3 / 16**2 * 16**0.5)
    assert unknown == 0


def test_nothing_known_costs_nothing() -> None:
    truth = torch.full((1, 6), math.nan)
    said = torch.zeros(1, 12, requires_grad=True)
    loss = output_loss("road_transform", said, truth)
    loss.backward()
    assert float(loss.detach()) == 0 and said.grad is not None and not said.grad.any()


def test_classes_cost_their_cross_entropy() -> None:
    truth = torch.eye(8)[[3]]
    said = torch.zeros(1, 8)
    assert float(output_loss("desire_state", said, truth)) == pytest.approx(math.log(8))


def test_what_a_plan_asks_for_is_what_the_daemon_makes_of_it() -> None:
    plans = np.random.RandomState(2).normal(size=(5, 33, 15)).astype(np.float32)
    plans[:, 0, 11] = 0  # the yaw now
    speed, given = 20.0, torch.from_numpy(plans)
    times = {what: seconds for what, (_, seconds, _) in ASKED.items()}
    theirs = [speed * curvature_from_plan(plan, speed, times["steering"], 0.0) for plan in plans]
    assert np.allclose(asked(given, "steering"), theirs, atol=1e-5)
    theirs = [acceleration_from_plan(plan, times["pulling"], 0.0) for plan in plans]
    assert np.allclose(asked(given, "pulling"), theirs, atol=1e-5)


def test_errors_of_what_is_asked_cost_their_squares_and_far_ones_less() -> None:
    truth, said = torch.zeros(2, 33, 15), torch.zeros(2, 2 * 495)
    for what, column in (("steering", 14), ("pulling", 6)):
        unit = ASKED[what][2]
        said[0, column], said[1, column] = unit, 10 * unit
        huber = [0.5, 3.0 * (10 - 0.5 * 3.0)]
        assert float(asked_loss(said, truth, what)) == pytest.approx(sum(huber) / 2)


@pytest.mark.parametrize("name", TRUTHS)
def test_weights_of_values_are_one_on_average(name: str) -> None:
    weights = value_weights(name)
    assert weights.shape == (TRUTHS[name].count,) and bool((weights > 0).all())
    assert float(weights.mean()) == pytest.approx(1.0)


def test_early_yaw_counts_more_than_its_neighbours() -> None:
    weights = value_weights("plan").reshape(33, 15)
    assert float(weights[3, 11] / weights[3, 0]) == pytest.approx(8.0)
    assert float(weights[30, 11] / weights[3, 0]) == pytest.approx(1.0)


def test_windows_end_with_their_row_and_begin_with_zeros() -> None:
    rows = torch.arange(1.0, 4).reshape(1, 3, 1)
    seen = windows(nothing_before(rows))
    assert seen[:, -3:, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3]]
    assert not seen[:, :-3].any()


@pytest.mark.parametrize("speed", [8.0, 20.0, 33.0])
def test_the_likeness_of_the_road_peaks_where_it_moved_to(speed: float) -> None:
    """A flat road with random paint, seen by a camera at HEIGHT that looks straight ahead."""
    random = np.random.RandomState(4)
    paint = random.uniform(0, 255, (200, 200))  # cells of 0.5 m

    def seen(focal: float, x: float, y: float, moved: float) -> np.ndarray:
        column, row = np.meshgrid(np.arange(512), np.arange(256))
        ahead = focal * HEIGHT / np.maximum(row - y, 1)
        across = (column - x) * ahead / focal
        cells = [(values * 2).astype(int) for values in (ahead + moved, across + 50)]
        luma = paint[cells[0] % 200, cells[1] % 200]
        return np.where(row > y + 1, luma, 200.0).astype(np.uint8)

    pictures = torch.zeros(1, 24, 128, 256, dtype=torch.uint8)
    for view, (focal, x, y, *_) in enumerate(VIEWS):
        for now in (0, 1):
            phases = luma_phases(seen(focal, x, y, now * speed * 0.2))
            first = 12 * view + 6 * now
            pictures[0, first : first + 4] = torch.from_numpy(phases)
    motion = RoadMotion()
    for view in range(2):
        likeness = motion.likeness(pictures, view)[0]
        assert likeness.abs().max() <= 1
        curve = likeness[: len(likeness) // BANDS].mean(0)  # the nearest band
        assert int(curve.argmax()) * STEP == pytest.approx(speed * 0.2, abs=STEP)
        assert float(curve.max()) > 4 * float(curve.abs().median())


def test_a_plain_road_is_like_nothing() -> None:
    pictures = torch.full((1, 24, 128, 256), 90, dtype=torch.uint8)
    assert not RoadMotion().likeness(pictures, 0).any()


def test_a_clip_is_what_single_runs_with_a_history_give(network: DrivingNetwork) -> None:
    clip = some_clip(0, 3)
    pictures, desire = torch.from_numpy(clip.pictures), torch.from_numpy(clip.desire)
    traffic = torch.tensor([[1.0, 0.0]])
    with torch.no_grad():
        other = tuple(torch.from_numpy(values)[None] for values in inputs_of(some_clip(1, 2)))
        said = run_clips(network, [(pictures[None], desire[None], traffic), other])
        features, pulses = torch.zeros(1, 24, 512), torch.zeros(1, 25, 8)
        pulses[:, 1:] = desire[:24]
        before = torch.zeros_like(pictures[0])
        for step, now in enumerate(pictures):
            pulses = torch.cat([pulses[:, 1:], desire[24 + step].reshape(1, 1, 8)], 1)
            views = [torch.cat([before[view], now[view]])[None] for view in (0, 1)]
            whole = network(*views, features, pulses, traffic, torch.zeros(1, 2))
            expected = torch.cat([said[name][step] for name in OUTPUTS])
            assert torch.allclose(whole[0, :-2], expected, atol=1e-4)
            hidden = said["hidden_state"][step].reshape(1, 1, 512)
            features, before = torch.cat([features[:, 1:], hidden], 1), now


def test_the_export_agrees_with_torch_and_its_artifact_with_onnxruntime(
    network: DrivingNetwork, tmp_path: Path,
) -> None:
    model = onnx_model(network, {"trained_by": "nobody"})
    data = model.SerializeToString()
    assert len(data) <= SIZE_LIMIT
    random = np.random.RandomState(0)
    inputs = {name: (random.randint(0, 256, shape).astype(dtype) if dtype == "uint8"
                     else random.normal(size=shape).astype(dtype))
              for name, (dtype, shape) in INPUTS.items()}
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    theirs = session.run(None, inputs)[0]
    with torch.no_grad():
        ours = network(*map(torch.from_numpy, inputs.values())).numpy()
    assert np.abs(theirs - ours).max() <= 1e-2 * np.abs(ours).max()  # weights in f16
    (tmp_path / "model.onnx").write_bytes(data)
    artifact = tinynn.compile(tmp_path / "model.onnx")
    artifact.save(tmp_path / "model.tnn")
    runner = tinynn.load(tmp_path / "model.tnn", trust=True)
    assert {feed.name for feed in describe(runner).graphs[0].feeds} == set(INPUTS)
    assert np.allclose(runner(inputs)["outputs"], theirs, rtol=1e-4, atol=1e-4)


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    settings = loop.Settings(1000, rate=1.0, warmup=100)
    rates = [loop.rate_at(settings, batch) for batch in (0, 49, 99, 250, 400, 700, 1000)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0])


def test_the_network_is_small(network: DrivingNetwork) -> None:
    counted = [0]

    def count(layer, _, out) -> None:  # type: ignore[no-untyped-def]
        counted[0] += out.numel() * layer.weight[0].numel()

    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(*(torch.zeros(s, dtype=getattr(torch, d)) for d, s in INPUTS.values()))
    for hook in hooks:
        hook.remove()
    assert counted[0] <= MAC_LIMIT


def test_a_run_that_is_continued_is_the_run_that_was_not_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "make_clip", lambda seed, _, pressing: some_clip(seed, 3))
    monkeypatch.setattr(loop, "glimpse", lambda seed, _: some_clip(seed, 2))
    monkeypatch.setattr(loop, "STATISTICS_BATCHES", 2)

    def train(folder: Path, hours: float = math.inf) -> loop.Training:
        settings = loop.Settings(4, 1, 1, warmup=1, workers=0, repeat=1, device="cpu",
                                 hours=hours)
        training = loop.Training(folder, settings)
        training.run(lambda _: None)
        return training

    whole = train(tmp_path / "whole")
    for _ in range(4):
        parts = train(tmp_path / "parts", hours=0.0)  # one step each
    assert parts.batch == whole.batch == 4
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name]), name


@pytest.mark.slow
def test_one_clip_can_be_learned_by_heart() -> None:
    torch.manual_seed(0)
    network = DrivingNetwork()
    clip = some_clip(0)
    truth = {name: torch.from_numpy(values) for name, values in clip.truth.items()}
    standardise(network, truth)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    groups = [tuple(torch.from_numpy(values)[None] for values in inputs_of(clip))]
    batch = groups, truth
    first = loop.step(network, optimizer, batch)["total"]
    for _ in range(60):
        last = loop.step(network, optimizer, batch)["total"]
    said = run_clips(network, groups)
    assert float(losses_of(network, said, truth)["total"].detach()) < first - 5
    assert last < first - 5
