"""Literals put together: fewer operations, the same results."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinynn import derived, ir
from tinynn.algebra import fold_literals
from tinynn.compiler import generate
from tinynn.fuse import fuse
from tinynn.ir import DType, Graph, Node, Op
from tinynn.kernel import Compute, Kernel
from tinynn.tests.direct import Direct


def _x() -> Node:
    return ir.input_("x", DType.F32, (64,))


def _operations(y: Node, x: Node, fold: bool = True) -> list[Op]:
    """Operations of the one kernel that computes y."""
    (kernel,) = fuse(Graph("test", {"x": x}, {"y": y})).kernels
    folded: Kernel = fold_literals(kernel) if fold else kernel
    return [v.op for v in folded.values() if isinstance(v, Compute)]


def test_gelu_loses_operations() -> None:
    x = _x()
    y = derived.gelu(x, "tanh")
    assert len(_operations(y, x, fold=False)) == 14
    assert len(_operations(y, x)) == 11


@pytest.mark.parametrize("build", [
    lambda x: derived.sub(derived.add(x, 1.0), 1.0),  # wants the rounding of x + 1
    lambda x: derived.mul(derived.mul(x, 1e30), 1e-30),  # wants what overflows to overflow
    lambda x: derived.add(derived.mul(x, 3.0), 1.0),
], ids=("cancelling sum", "extreme factors", "nothing to put together"))
def test_what_would_change_results_is_kept(build: Callable[[Node], Node]) -> None:
    x = _x()
    assert _operations(build(x), x) == _operations(build(x), x, fold=False)


def test_factors_and_terms_are_put_together() -> None:
    x = _x()
    assert _operations(derived.mul(derived.mul(x, 3.0), 5.0), x) == [Op.MUL]
    assert _operations(derived.add(derived.add(x, 3.0), 5.0), x) == [Op.ADD]
    assert _operations(derived.mul(derived.div(derived.scalar(3.0, x), x), 5.0), x) == [Op.DIV]


def test_a_value_with_another_user_is_not_computed_twice() -> None:
    x = _x()
    gate = derived.add(derived.mul(x, 3.0), 1.0)
    y = derived.add(derived.mul(derived.mul(x, gate), 0.5), gate)
    assert len(_operations(y, x)) <= len(_operations(y, x, fold=False))


@pytest.mark.parametrize(("name", "exact"), [
    ("gelu", lambda v: v / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v ** 3)))),
    ("tanh", np.tanh), ("sigmoid", lambda v: 1 / (1 + np.exp(-v)))])
def test_folded_functions_are_right(
        name: str, exact: Callable[[np.ndarray], np.ndarray]) -> None:
    values = np.concatenate([np.linspace(-20, 20, 4000), [0.0, np.inf, 1e30]]).astype(np.float32)
    x = ir.input_("x", DType.F32, values.shape)
    y = derived.gelu(x, "tanh") if name == "gelu" else getattr(derived, name)(x)
    program = Direct(generate(Graph(name, {"x": x}, {"y": y}), "cpu", exact=False))
    got = program({"x": values})["y"]
    program.close()
    with np.errstate(over="ignore"):
        want = exact(values.astype(np.float64))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=2e-6)
