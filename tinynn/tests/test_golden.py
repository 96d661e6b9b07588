"""Golden vectors: frozen inputs, expected outputs from the interpreter, comparison."""
from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tinynn import derived, halves, ir
from tinynn.golden import (
    make_golden,
    probe_inputs,
    reduced_bounds,
    tolerance,
)
from tinynn.ir import DType, Graph
from tinynn.program import TensorSpec
from tinynn.runtime.golden import as_numbers, bf16_bits, relative_error, sample_inputs


def test_inputs_are_frozen() -> None:
    """Written down once: another value would make every older artifact fail its check."""
    specs = [TensorSpec("f", "f32", (2, 2)), TensorSpec("u", "u8", (4,)),
             TensorSpec("i", "i64", (4,)), TensorSpec("b", "bool", (4,)),
             TensorSpec("h", "f16", (2,)), TensorSpec("bf", "bf16", (2,)),
             TensorSpec("s", "f32", ())]
    arrays = sample_inputs(specs, seed=0)
    np.testing.assert_array_equal(arrays["f"], np.array(
        [[0.09762701, 0.43037874], [0.20552675, 0.08976637]], np.float32))
    assert arrays["u"].tolist() == [9, 211, 21, 242]
    assert arrays["i"].tolist() == [4, 7, 6, 8]
    assert arrays["b"].tolist() == [False, False, False, True]
    assert [array.dtype for array in arrays.values()] == [
        np.float32, np.uint8, np.int64, np.bool_, np.float16, np.uint16, np.float32]
    assert arrays["s"].shape == ()


def test_inputs_depend_on_the_seed_and_stay_in_range() -> None:
    specs = [TensorSpec("f", "f32", (1000,)), TensorSpec("u", "u8", (1000,))]
    first, second = sample_inputs(specs, 0), sample_inputs(specs, 1)
    assert (first["f"] != second["f"]).any() and (first["u"] != second["u"]).any()
    assert first["f"].min() < -0.9 and 0.9 < first["f"].max() < 1
    assert first["u"].min() == 0 and first["u"].max() == 255


def test_bf16_agrees_with_ml_dtypes() -> None:
    values = np.random.RandomState(3).standard_normal(1000).astype(np.float32) * 100
    bits = bf16_bits(values)
    np.testing.assert_array_equal(bits, values.astype(ml_dtypes.bfloat16).view(np.uint16))
    np.testing.assert_array_equal(as_numbers(bits, "bf16"),
                                  values.astype(ml_dtypes.bfloat16).astype(np.float64))


@pytest.mark.parametrize(("got", "want", "error"), [
    ([3.0, 4.0], [3.0, 4.0], 0.0), ([3.0, 4.5], [3.0, 4.0], 0.1), ([0.5], [0.0], 0.5),
    ([1.0, np.nan], [1.0, np.nan], 0.0), ([1.0, np.inf], [1.0, np.inf], 0.0),
    ([1.0, -np.inf], [1.0, np.inf], np.inf), ([np.nan, 1.0], [0.0, 1.0], np.inf),
    ([1.0, 0.0], [1.0, np.nan], np.inf), ([], [], 0.0)])
def test_relative_error(got: list[float], want: list[float], error: float) -> None:
    assert relative_error(np.array(got), np.array(want)) == pytest.approx(error)


def counter(dtype: DType = DType.F32) -> Graph:
    """y = 2 x + total; total takes y."""
    x, total = ir.input_("x", dtype, (3,)), ir.input_("total", dtype, (3,))
    y = ir.add(ir.mul(x, ir.full((3,), 2, dtype)), total)
    return Graph("counter", {"x": x, "total": total}, {"y": y, "n": ir.cast(y, DType.I32)},
                 state={"total": "y"})


def test_golden_runs_follow_each_other() -> None:
    first, second = make_golden(counter())
    x0, x1 = (sample_inputs([TensorSpec("x", "f32", (3,))], seed)["x"] for seed in (0, 1))
    assert (first.seed, second.seed) == (0, 1)
    np.testing.assert_array_equal(first.outputs["y"], x0 * 2)
    np.testing.assert_array_equal(second.outputs["y"], x1 * 2 + x0 * 2)


def test_tolerances() -> None:
    assert tolerance(counter(), "y") == 1e-4
    assert tolerance(counter(DType.I32), "y") == 0.0  # integers are equal or wrong
    assert tolerance(counter(DType.F16), "y") == 2e-2
    assert tolerance(counter(DType.BF16), "y") == 1e-1


def test_integers_that_rounding_made_may_go_either_way() -> None:
    x = ir.input_("x", DType.F32, (3,))
    picture = ir.cast(ir.floor(x), DType.U8)
    graph = Graph("g", {"x": x}, {"p": picture, "next": ir.concat([picture, picture], 0)})
    assert tolerance(graph, "p") == tolerance(graph, "next") == 1e-2


def product(scale: float = 1.0) -> Graph:
    """y = x @ weights: sums of 300 products."""
    x = ir.input_("x", DType.F32, (4, 300))
    weights = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32) * scale
    return Graph("product", {"x": x}, {"y": derived.matmul(x, ir.const(weights))})


def test_half_sums_are_rounded_at_every_step_and_parts_are_added_in_float() -> None:
    graph = product()
    x = sample_inputs([TensorSpec("x", "f32", (4, 300))], 0)["x"].astype(np.float16)
    (weights,) = [n.arg.array.astype(np.float16) for n in graph.nodes() if n.op is ir.Op.CONST]
    want = np.zeros((4, 8), np.float32)
    for start in range(0, 300, 128):
        part = np.zeros((4, 8), np.float16)
        for k in range(start, min(start + 128, 300)):
            exact = part + x[:, k, None].astype(np.float64) * weights[k]
            part = exact.astype(np.float32).astype(np.float16)
        want += part
    rounded = halves.round_stored(graph)
    got = halves.run(rounded, {"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(got, want)
    assert [halves.part_length(n) for n in (9, 300, 2048, 4096)] == [128, 128, 128, 256]


def test_positions_and_outputs_are_not_rounded() -> None:
    x, table = ir.input_("x", DType.F32, (3,)), ir.input_("table", DType.F32, (5000,))
    place = ir.cast(ir.add(x, ir.full((3,), 4000.25, DType.F32)), DType.I32)
    graph = Graph("g", {"x": x, "table": table}, {"y": ir.gather(table, place, 0)})
    inputs = {"x": np.array([1, 2, 3], np.float32), "table": np.arange(5000, dtype=np.float32) % 7}
    got = halves.run(halves.round_stored(graph), inputs)["y"]
    np.testing.assert_array_equal(got, inputs["table"][[4001, 4002, 4003]])


def test_bounds_of_reduced_precisions_are_measured_and_limited() -> None:
    graph = product()
    bounds = reduced_bounds(graph, halves.round_stored(graph), halves.run)
    assert 1e-4 < bounds["y"] < 1e-2
    assert bounds["y"] == float(f"{bounds['y']:.1e}"), "two digits, the same on every machine"
    assert make_golden(graph, bounds)[1].tolerance == bounds
    assert make_golden(graph)[0].tolerance == {"y": 1e-4}
    # Beyond the range of half: infinite, which no bound allows.
    huge = product(1e6)
    with pytest.raises(ValueError, match=r"output y: in the reduced precision its relative error "
                                         r"is inf.* Compile with --precision f32"):
        reduced_bounds(huge, halves.round_stored(huge), halves.run)


def test_probes_hold_scenes_in_the_place_of_pictures() -> None:
    specs = [TensorSpec("picture", "u8", (1, 6, 128, 256)), TensorSpec("vector", "f32", (1, 8))]
    plain, bright, dim = (probe_inputs(specs, 5, light) for light in (0.0, 1.0, 0.1))
    np.testing.assert_array_equal(plain["vector"], bright["vector"])
    assert plain["picture"].mean() > 120 and bright["picture"].max() > 240
    assert dim["picture"].max() < 30
    rows = bright["picture"].astype(np.float64).mean(axis=(0, 1, 3))
    assert rows[0] - rows[-1] > 100, "a sky and a road"


def test_f16_weights_alone_do_not_loosen_the_tolerance() -> None:
    x = ir.input_("x", DType.F32, (2,))
    weight = ir.cast(ir.const(np.array([1.5, 2.5], np.float16)), DType.F32)
    assert tolerance(Graph("g", {"x": x}, {"y": ir.mul(x, weight)}), "y") == 1e-4


def test_bf16_graphs_give_bit_patterns() -> None:
    first = make_golden(counter(DType.BF16))[0]
    assert first.outputs["y"].dtype == np.uint16
