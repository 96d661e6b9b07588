"""Lazy tensors against numpy, by the C backend and by the interpreter."""
from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import tinynn
from tinynn import evaluate
from tinynn.ir import DType, GraphError, Op
from tinynn.tensor import Tensor, numpy_of, trace

Array = np.ndarray[Any, Any]
DOCS = Path(__file__).resolve().parents[2] / "docs"

quick = settings(max_examples=25, deadline=None, derandomize=True,
                 suppress_health_check=[HealthCheck.too_slow])


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def close(got: Any, want: Array, tolerance: float = 2e-6) -> None:
    """Equal shapes, and values within a tolerance of the largest value."""
    got = got.numpy() if isinstance(got, Tensor) else got
    assert got.shape == np.shape(want)
    scale = max(1.0, float(np.abs(want).max(initial=0.0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


# Laziness, kernels, the cache

def test_multiply_add_is_one_kernel() -> None:
    a, b, c = (normal(64, 32, seed=seed) for seed in range(3))
    result = Tensor(a) * Tensor(b) + Tensor(c)
    (kernel,) = result.kernels()
    assert kernel.flop == 2 * 64 * 32 and kernel.note.startswith("MUL ADD")
    close(result, a.astype(np.float64) * b + c)


def test_a_matrix_product_with_what_follows_is_one_kernel() -> None:
    x, w, b = normal(8, 16), normal(16, 24, seed=1), normal(24, seed=2)
    result = (Tensor(x) @ Tensor(w) + Tensor(b)).relu() * 0.5
    assert len(result.kernels()) == 1
    close(result, np.maximum(x.astype(np.float64) @ w + b, 0) / 2)


def test_a_form_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def lower(graph: Any, *args: Any) -> Any:
        compiled.append(graph.name)
        return original(graph, *args)

    original = evaluate.lower
    monkeypatch.setattr(evaluate, "lower", lower)
    evaluate.compiled.cache_clear()
    for seed in range(3):
        a, b = normal(5, 7, seed=seed), normal(7, seed=seed + 9)
        close((Tensor(a) - Tensor(b)).exp(), np.exp(a.astype(np.float64) - b))
    assert len(compiled) == 1
    (Tensor(a) - Tensor(a)).numpy()  # one leaf twice is another form
    (Tensor(a[:4]) - Tensor(b)).numpy()  # and so is another shape
    assert len(compiled) == 3


def test_nothing_runs_before_a_value_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("something ran")

    monkeypatch.setattr("tinynn.tensor.evaluate", refuse)
    source = normal(3, 4)
    tensor = (Tensor(source) @ Tensor(source.T)).softmax()[1:, None]
    assert (tensor.shape, tensor.dtype, tensor.ndim, tensor.size) == ((2, 1, 3), DType.F32, 3, 6)
    monkeypatch.undo()
    source[:] = 0  # a tensor keeps the values it was made of
    assert np.abs(tensor.numpy() - 1 / 3).max() > 1e-3


def test_several_results_of_one_program() -> None:
    x = normal(6, 5)
    y = Tensor(x).exp()
    total, most = numpy_of(y.sum(), y.max(axis=1))
    close(total, np.exp(x.astype(np.float64)).sum())
    close(most, np.exp(x.astype(np.float64)).max(1))


def test_realize_item_and_array() -> None:
    x = normal(4)
    held = (Tensor(x) * 2).realize()
    assert held.node.op is Op.INPUT
    close(held + 1, x * 2.0 + 1)
    assert Tensor(x).sum().item() == pytest.approx(float(x.sum()), rel=1e-6)
    np.testing.assert_array_equal(np.asarray(held), x * 2)
    assert np.asarray(held, np.float64).dtype == np.float64


def test_results_are_new_arrays() -> None:
    x = Tensor(normal(3))
    first = (x + 1).numpy()
    first[:] = 7
    assert (x + 1).numpy()[0] != 7


# Elementwise

UNARY: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp, "exp2": np.exp2, "sin": np.sin, "cos": np.cos, "floor": np.floor,
    "ceil": np.ceil, "round": np.round, "abs": np.abs, "sign": np.sign, "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)), "softplus": lambda x: np.log1p(np.exp(x)),
    "erf": np.vectorize(math.erf),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "__neg__": np.negative, "__abs__": np.abs,
}


def test_functions() -> None:
    """All in one program: compiling once is quicker."""
    x = np.concatenate([normal(4, 6) * 2, [[0.0, 0.5, 1.5, -0.5, -2.5, 3.0]]]).astype(np.float32)
    results = numpy_of(*(getattr(Tensor(x), name)() for name in UNARY))
    for name, got in zip(UNARY, results, strict=True):
        np.testing.assert_allclose(got, UNARY[name](x.astype(np.float64)), atol=2e-6, rtol=2e-6,
                                   err_msg=name)


def test_functions_of_positive_numbers() -> None:
    x = np.abs(normal(30)) + 0.01
    names = ("log", "log2", "sqrt")
    for name, got in zip(names, numpy_of(*(getattr(Tensor(x), n)() for n in names)), strict=True):
        close(got, getattr(np, name)(x.astype(np.float64)))
    tanh = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.astype(float) ** 3)))
    close(Tensor(x).gelu("tanh"), tanh)


def test_comparison_with_nan() -> None:
    a = np.array([1, 2, 3, np.nan, 1, np.nan], np.float32)
    b = np.array([2, 2, 2, 1, np.nan, np.nan], np.float32)
    names = ("lt", "le", "gt", "ge", "eq", "ne")
    functions = [getattr(operator, name) for name in names]
    results = numpy_of(*(f(Tensor(a), Tensor(b)) for f in functions))
    for name, f, got in zip(names, functions, results, strict=True):
        np.testing.assert_array_equal(got, f(a, b), err_msg=name)


def test_bool() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    x, y = Tensor(a), Tensor(b)
    for got, want in ((x & y, a & b), (x | y, a | b), (~x, ~a), (x == y, a == b),
                      (True & x, a), (x.max(), a.any()), (x.min(), a.all())):
        np.testing.assert_array_equal(got.numpy(), want)
    np.testing.assert_array_equal(x.where(1.0, Tensor(normal(4))).numpy()[:2], [1, 1])


def test_integer_division_rounds_down() -> None:
    a = np.array([7, -7, 7, -7, 6, 0, -128, 5], np.int32)
    b = np.array([2, 2, -2, -2, 3, 5, 3, -1], np.int32)
    quotient, rest = numpy_of(Tensor(a) // Tensor(b), Tensor(a) % Tensor(b))
    np.testing.assert_array_equal(quotient, a // b)
    np.testing.assert_array_equal(rest, a % b)
    np.testing.assert_array_equal((Tensor(a) // 0).numpy(), np.zeros(8))
    np.testing.assert_array_equal((Tensor(a) % 0).numpy(), np.zeros(8))
    unsigned = np.array([0, 1, 200, 255], np.uint8)
    np.testing.assert_array_equal((Tensor(unsigned) % 7).numpy(), unsigned % 7)


def test_power() -> None:
    x = normal(20)
    close(Tensor(x) ** 3, x.astype(np.float64) ** 3)
    close(Tensor(x) ** 0, np.ones(20))
    close(Tensor(np.abs(x) + 1) ** -2, (np.abs(x) + 1.0) ** -2)
    close(Tensor(np.abs(x)) ** 1.5, np.abs(x).astype(np.float64) ** 1.5)
    close(2.0 ** Tensor(x), 2.0 ** x.astype(np.float64))


def test_numpy_arrays_and_numbers_on_either_side() -> None:
    x = normal(3, 2)
    t = Tensor(x)
    for got, want in ((x + t, x + x), (1 - t, 1 - x), (np.float32(2) * t, 2 * x),
                      (2 / (t + 9), 2 / (x + 9)), (x.T @ t, x.T @ x), (t - np.float64(1), x - 1)):
        assert isinstance(got, Tensor)
        close(got, want)


def test_clip_and_extremes() -> None:
    x = np.append(normal(9) * 3, np.float32(np.nan)).astype(np.float32)
    np.testing.assert_array_equal(Tensor(x).clip(-1, 1).numpy(), np.clip(x, -1, 1))
    np.testing.assert_array_equal(Tensor(x).clip(high=0.5).numpy(), np.minimum(x, 0.5))
    np.testing.assert_array_equal(Tensor(x).minimum(0).numpy(), np.minimum(x, 0))
    np.testing.assert_array_equal(Tensor(x).maximum(Tensor(-x)).numpy(), np.maximum(x, -x))


@pytest.mark.parametrize("dtype", list(DType))
def test_every_dtype_goes_in_and_out(dtype: DType) -> None:
    values = np.array([0, 1, 1, 0]).astype(dtype.numpy)
    doubled = (Tensor(values) + Tensor(values)).numpy()
    assert doubled.dtype == dtype.numpy
    np.testing.assert_array_equal(doubled, values + values)


def test_cast() -> None:
    x = np.array([1.7, -1.7, 300, np.nan], np.float32)
    np.testing.assert_array_equal(Tensor(x).cast("u8").numpy(), [1, 0, 255, 0])
    np.testing.assert_array_equal(Tensor(x).cast(np.int32).numpy()[:3], [1, -1, 300])
    half = Tensor(x[:3]).cast(DType.BF16).numpy()
    assert half.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(half, x[:3].astype(ml_dtypes.bfloat16))


def test_default_dtypes() -> None:
    assert [Tensor(v).dtype.value for v in ([1.0], [1], [True], 2, np.zeros(1), np.int64(1))] == [
        "f32", "i32", "bool", "i32", "f64", "i64"]
    assert Tensor([1, 2], "f16").dtype is DType.F16
    assert [Tensor.arange(3).dtype.value, Tensor.arange(0.5, 2).dtype.value] == ["i32", "f32"]


def test_constants() -> None:
    np.testing.assert_array_equal(Tensor.arange(2, 9, 3).numpy(), [2, 5, 8])
    np.testing.assert_array_equal(Tensor.zeros(2, 3).numpy(), np.zeros((2, 3)))
    np.testing.assert_array_equal(Tensor.ones((2,), dtype="i8").numpy(), np.ones(2, np.int8))
    np.testing.assert_array_equal(Tensor.full((2, 2), 1.5).numpy(), np.full((2, 2), 1.5))
    # Constants are folded: what is left only stores one.
    (kernel,) = (Tensor.arange(4) * 2 + 1).kernels()
    assert kernel.flop == 0


# Reductions

@quick
@given(st.data())
def test_reductions(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axes = data.draw(st.none() | st.sets(st.integers(-len(shape), len(shape) - 1), min_size=1))
    if axes is not None:
        assume(len({a % len(shape) for a in axes}) == len(axes))
    axis = None if axes is None else tuple(axes)
    keep = data.draw(st.booleans())
    x = normal(*shape, seed=data.draw(st.integers(0, 99)))
    names = ("sum", "mean", "prod", "max", "min")
    results = numpy_of(*(getattr(Tensor(x), n)(axis, keep) for n in names))
    for name, got in zip(names, results, strict=True):
        want = getattr(x.astype(np.float64), name)(axis=axis, keepdims=keep)
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5, err_msg=name)
        assert got.shape == want.shape


def test_reduction_of_nothing() -> None:
    empty = Tensor(np.zeros((0, 3), np.float32))
    np.testing.assert_array_equal(empty.sum(0).numpy(), np.zeros(3))
    np.testing.assert_array_equal(empty.prod(0).numpy(), np.ones(3))
    assert empty.max(1).numpy().shape == (0,)
    with pytest.raises(GraphError, match="no element"):
        empty.max(0)


# Products

@quick
@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 5), st.integers(1, 5),
       st.integers(1, 5), st.sampled_from(["both", "left", "right", "vectors"]))
def test_matmul(lead: list[int], m: int, k: int, n: int, batched: str) -> None:
    vectors = batched == "vectors"
    a = normal(k) if vectors else normal(*(lead if batched != "right" else []), m, k)
    b = normal(k, seed=1) if vectors else normal(*(lead if batched != "left" else []), k, n, seed=1)
    close(Tensor(a) @ Tensor(b), a.astype(np.float64) @ b)


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [
    (1, 0, 1, 1), (2, 1, 1, 1), ((1, 2), (2, 0), (2, 1), 2), (1, 1, 1, 4)])
def test_conv2d_against_onnxruntime(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    x, w, b = normal(2, 4, 9, 8), normal(8, 4 // groups, 3, 3, seed=1), normal(8, seed=2)

    def pair(value: Any) -> list[int]:
        return [value, value] if isinstance(value, int) else list(value)

    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=pair(stride),
                            pads=pair(padding) * 2, dilations=pair(dilation), group=groups)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
              for name, array in (("x", x), ("w", w), ("b", b))]
    graph = helper.make_graph(
        [node], "conv", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": x, "w": w, "b": b})
    close(Tensor(x).conv2d(w, b, stride, padding, dilation, groups), want, 1e-5)


# Views, joins and indices

def test_views() -> None:
    x = normal(2, 3, 4)
    t = Tensor(x)
    pairs = [(t.reshape(4, -1), x.reshape(4, -1)), (t.reshape((6, 4)), x.reshape(6, 4)),
             (t.permute(2, 0, -2), x.transpose(2, 0, 1)), (t.T, x.T),
             (t.transpose(), x.swapaxes(-1, -2)), (t.transpose(0, 2), x.swapaxes(0, 2)),
             (t.flatten(1), x.reshape(2, 12)), (t[:, :1].expand(2, 3, 4), x[:, [0, 0, 0]]),
             (t.unsqueeze(-1), x[..., None]), (t[:1].squeeze(0), x[0]),
             (t.pad([(0, 0), (1, 2), (0, 1)], 5), np.pad(
                 x, [(0, 0), (1, 2), (0, 1)], constant_values=5)),
             (Tensor.concat([t, t[:, ::-1]], -2), np.concatenate([x, x[:, ::-1]], -2)),
             (Tensor.stack([t, t * 2], -1), np.stack([x, x * 2], -1))]
    for got, want in zip(numpy_of(*(p[0] for p in pairs)), [p[1] for p in pairs], strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.stack([row.numpy() for row in t]), x)
    assert len(t) == 2


SHAPE = (3, 4, 2, 5)


@st.composite
def keys(draw: st.DrawFn) -> tuple[Any, ...]:
    """Any numpy index with constants for an array of SHAPE."""
    arrays = draw(st.booleans())
    size = draw(st.integers(1, 3))  # all index arrays have one length, or are of length one
    items: list[Any] = []
    for length in SHAPE:
        ends = st.none() | st.integers(-length - 1, length + 1)
        position = st.integers(-length, length - 1)
        choices = [st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, -1, -2])), position]
        if arrays:
            choices += [st.lists(position, min_size=size, max_size=size),
                        st.lists(position, min_size=1, max_size=1)]
        items.append(draw(st.one_of(choices)))
    first, last = sorted(draw(st.tuples(*[st.integers(0, len(SHAPE))] * 2)))
    if draw(st.booleans()):
        items[first:last] = [Ellipsis]
    elif draw(st.booleans()):
        items = items[:last]
    for at in draw(st.lists(st.integers(0, len(items)), max_size=2)):
        items.insert(at, None)
    return tuple(items)


NUMBERS = np.arange(math.prod(SHAPE), dtype=np.int32).reshape(SHAPE)


@settings(quick, max_examples=300)
@given(keys())
def test_index_with_constants(key: tuple[Any, ...]) -> None:
    want = NUMBERS[key]
    got = Tensor(NUMBERS)[key]
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.numpy("interp"), want)


@settings(quick, max_examples=15)
@given(keys())
def test_index_with_constants_compiled(key: tuple[Any, ...]) -> None:
    np.testing.assert_array_equal(Tensor(NUMBERS)[key].numpy(), NUMBERS[key])


def test_index_with_tensors() -> None:
    rows, columns = np.array([[2, 0], [-1, 1]]), np.array([1, -3])
    t, r, c = Tensor(NUMBERS), Tensor(rows), Tensor(columns)
    pairs = [(t[r], NUMBERS[rows]), (t[r, c], NUMBERS[rows, columns]),
             (t[:, c, :, r], NUMBERS[:, columns, :, rows]),
             (t[1, ..., c], NUMBERS[1, ..., columns]),
             (t[r, 1:, c // 9], NUMBERS[rows, 1:, columns // 9])]
    for got, want in zip(numpy_of(*(p[0] for p in pairs)), [p[1] for p in pairs], strict=True):
        np.testing.assert_array_equal(got, want)


def test_indices_of_run_time_are_clipped() -> None:
    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    far = Tensor([5, 1, -9])
    np.testing.assert_array_equal(Tensor(x)[far].numpy(), x[[2, 1, 0]])
    np.testing.assert_array_equal(Tensor(x)[far, far].numpy(), x[[2, 1, 0], [3, 1, 0]])


# Random programs

BINARY: list[Callable[[Any, Any], Any]] = [
    operator.add, operator.sub, operator.mul, lambda x, y: x / (y * y + 1)]


@settings(quick, max_examples=30)
@given(st.data())
def test_random_programs(data: st.DataObject) -> None:
    """The same random steps on tensors and on float64 arrays; broadcasting in all directions."""
    shapes = [(4, 1, 5), (3, 1), (5,), (), (4, 3, 5)]
    arrays: list[Array] = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    tensors = [Tensor(a) for a in arrays]
    wide: list[Any] = [a.astype(np.float64) for a in arrays]
    for _ in range(data.draw(st.integers(1, 8))):
        i = data.draw(st.integers(0, len(tensors) - 1))
        j = data.draw(st.integers(0, len(tensors) - 1))
        step = data.draw(st.sampled_from(["binary", "scalar", "tanh", "sum", "where", "flip"]))
        which = data.draw(st.integers(0, 3))
        made: list[Any] = []
        for values in (tensors, wide):
            x, y = values[i], values[j]
            if step == "binary":
                made.append(BINARY[which](x, y))
            elif step == "scalar":
                made.append(BINARY[which](x, 0.75))
            elif step == "tanh":
                made.append(x.tanh() if isinstance(x, Tensor) else np.tanh(x))
            elif step == "sum":
                made.append(x.sum(axis=-1, keepdims=True) / 4 if x.ndim else x)
            elif step == "where":
                # Far from equal, so that rounding cannot decide.
                cond = x > 100.0
                made.append(cond.where(x, y) if isinstance(x, Tensor) else np.where(cond, x, y))
            else:
                made.append(x[..., ::-1] if x.ndim else x)
        tensors.append(made[0])
        wide.append(made[1])
    np.testing.assert_array_equal(tensors[-1].shape, np.shape(wide[-1]))
    close(tensors[-1], wide[-1], 1e-4)
    close(tensors[-1].numpy("interp"), wide[-1], 1e-4)


# Tracing

def test_a_traced_function_becomes_an_artifact(tmp_path: Path) -> None:
    weight = Tensor(normal(6, 3, seed=4))

    def head(x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        y = (x @ weight) * scale
        return {"scores": y.softmax(), "best": y.max(-1)}

    graph = trace(head, {"x": ("f32", (5, 6)), "scale": (np.float32, ())})
    assert graph.name == "head" and list(graph.inputs) == ["x", "scale"]
    path = tmp_path / "head.tnn"
    tinynn.compile(graph).save(path)
    x, scale = normal(5, 6), np.float32(2)
    with tinynn.load(path) as runner:
        assert all(result.passed for result in runner.verify())
        outputs = runner({"x": x, "scale": scale})
    y = x.astype(np.float64) @ normal(6, 3, seed=4) * 2
    close(outputs["best"], y.max(-1))
    close(outputs["scores"], np.exp(y) / np.exp(y).sum(-1, keepdims=True))


def test_a_traced_function_with_state() -> None:
    graph = trace(lambda x, memory: {"next": memory * 0.5 + x},
                  {"x": ("f32", (2,)), "memory": ("f32", (2,))})
    artifact = tinynn.compile(graph, state={"memory": "next"})
    assert graph.state == {}  # the caller's graph stays as it was
    with tinynn.load(artifact.to_bytes(), trust=True) as runner:
        for want in (1.0, 1.5, 1.75):
            np.testing.assert_array_equal(runner({"x": np.ones(2, np.float32)})["next"], [want] * 2)
    with pytest.raises(ValueError, match="give them to trace"):
        tinynn.compile(graph, shapes={"x": (3,)})


# Errors

@pytest.mark.parametrize(("expression", "message"), [
    (lambda t: t + Tensor([1]), r"one dtype .* f32\[2, 3\].* i32\[1\].*\.cast\(\)"),
    (lambda t: t + np.zeros(3), r"f64\[3\].*\.cast\(\)"),
    (lambda t: t.cast("i32") + 1.5, r"1\.5 is not a value of a i32 tensor.*\.cast"),
    (lambda t: t.cast("u8") + 256, "256 is not a value of a u8 tensor"),
    (lambda t: t + True, "True is not a value of a f32 tensor"),
    (lambda t: t + "x", "'x' is not a value"),
    (lambda t: t.cast("i32") / 2, r"use // or \.cast"),
    (lambda t: t // 2, r"use \(a / b\)\.floor"),
    (lambda t: t & t, "needs a bool tensor"),
    (lambda t: t.where(1.0, 2.0), "needs a bool tensor"),
    (lambda t: (t > 0).where(1.0, 2.0), "numbers alone"),
    (lambda t: (t > 0).sum(), r"use \.cast\('i32'\)"),
    (lambda t: t.cast("i32").mean(), r"use \.cast\('f32'\)"),
    (lambda t: t.cast("i32").exp(), "needs a float tensor"),
    (lambda t: t + Tensor(np.zeros(4, np.float32)), "cannot be broadcast"),
    (lambda t: t.sum(2), "axis 2 of a tensor with 2 axes"),
    (lambda t: t.reshape(4, -1), "another number of elements"),
    (lambda t: t.cast("float99"), "known are bool, u8"),
    (lambda t: t @ t, "inner lengths differ"),
    (lambda t: t.conv2d(t), "four axes"),
])
def test_errors_of_operands(expression: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        expression(Tensor(normal(2, 3)))


@pytest.mark.parametrize(("key", "message"), [
    (2, "index 2 is outside an axis of length 2"), ((0, -4), "index -4 is outside"),
    ([0, 5], "index 5 is outside"), ((0, 0, 0), "3 items for the 2 axes"),
    ((..., ...), "more than one"), (True, "For a mask use where"), ("a", "cannot be an index"),
    (np.array([True, False]), "For a mask use where"), (1.0, "cannot be an index")])
def test_errors_of_indices(key: Any, message: str) -> None:
    with pytest.raises(IndexError, match=re.escape(message)):
        Tensor(normal(2, 3))[key]


def test_other_errors() -> None:
    t = Tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="where\\(\\)"):
        bool(t == t)
    with pytest.raises(TypeError, match="unhashable"):
        hash(t)
    with pytest.raises(TypeError, match="no length"):
        len(t[0])
    with pytest.raises(ValueError, match="choose one of c, interp"):
        t.numpy("cuda")
    with pytest.raises(TypeError, match="returns a Tensor or a dict"):
        trace(lambda x: 1, {"x": ("f32", (1,))})  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="x has no value"):
        trace(lambda x: Tensor(x.numpy()), {"x": ("f32", (1,))})


# What it shows

def test_debug_and_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    x = Tensor(normal(6, 6)) * 3 + 1
    marks = ["target cpu:", "measured us", "loops, at most", "void k000_loops"]
    for level in range(5):
        monkeypatch.setenv("DEBUG", str(level))
        x.numpy()
        shown = capsys.readouterr().err
        assert [mark in shown for mark in marks] == [level > i for i in range(4)]
    monkeypatch.setenv("DEBUG", "0")
    monkeypatch.setenv("GRAPH", "1")
    x.numpy()
    path = Path(capsys.readouterr().err.split()[-1])
    assert path.parent == tmp_path and "k000_loops" in path.read_text(encoding="utf-8")


def code_blocks() -> list[str]:
    text = (DOCS / "tensor.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_there_are_five_examples() -> None:
    assert len(code_blocks()) == 5


@pytest.mark.parametrize("number", range(5))
def test_examples_of_the_documentation(number: int, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs by itself; what it prints is checked by the assertions in it."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code_blocks()[number], f"docs/tensor.md, block {number}", "exec"), {})
