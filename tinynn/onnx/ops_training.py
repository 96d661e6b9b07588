"""Lowerings: one step of the optimisers of the training domain.

Inputs: the learning rate, the number of steps done, then all tensors X, all gradients G, and all
of each state that the optimiser keeps; outputs: the new X and states in the same order.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError
from tinynn.onnx.registry import Call, lowers

# (call, learning rate, steps done, [x, gradient, states...]) -> [x, states...]
Step = Callable[[Call, Node, Node, Sequence[Node]], list[Node]]


def _momentum(call: Call, rate: Node, steps: Node, operands: Sequence[Node]) -> list[Node]:
    """mode standard: x - rate v; nesterov: x - rate (g + alpha v)."""
    x, gradient, v = operands
    alpha, beta = call.number("alpha"), call.number("beta")
    nesterov = call.text("mode", choices=("standard", "nesterov")) == "nesterov"
    # The first step takes the whole gradient.
    factor = d.where(d.equal(steps, 0), d.scalar(1, x), d.scalar(beta, x))
    v = d.add(d.mul(v, alpha), d.mul(gradient, factor))
    slope = d.add(gradient, d.mul(v, alpha)) if nesterov else v
    return [d.sub(x, d.mul(slope, rate)), v]


def _adagrad(call: Call, rate: Node, steps: Node, operands: Sequence[Node]) -> list[Node]:
    """x - rate / (1 + decay steps) g / (sqrt(h) + epsilon), h the sum of squared gradients."""
    x, gradient, h = operands
    decay = d.add(d.mul(ir.cast(steps, x.dtype), call.number("decay_factor", 0.0)), 1)
    h = d.add(h, d.mul(gradient, gradient))
    divisor = d.add(ir.sqrt(h), call.number("epsilon", 1e-6))
    return [d.sub(x, d.div(d.mul(gradient, d.div(rate, decay)), divisor)), h]


def _adam(call: Call, rate: Node, steps: Node, operands: Sequence[Node]) -> list[Node]:
    x, gradient, v, h = operands
    alpha, beta = call.number("alpha", 0.9), call.number("beta", 0.999)
    v = d.add(d.mul(v, alpha), d.mul(gradient, 1 - alpha))
    h = d.add(d.mul(h, beta), d.mul(d.mul(gradient, gradient), 1 - beta))
    count = ir.cast(steps, x.dtype)

    def bias(factor: float) -> Node:
        """1 - factor ** steps."""
        return d.sub(d.scalar(1, x), d.power(d.scalar(factor, x), count))
    corrected = d.div(d.mul(rate, ir.sqrt(bias(beta))), bias(alpha))
    rate = d.where(d.less(d.scalar(0, count), count), corrected, rate)
    moved = d.sub(x, d.div(d.mul(v, rate), d.add(ir.sqrt(h), call.number("epsilon", 1e-6))))
    after = d.mul(moved, 1 - call.number("norm_coefficient_post", 0.0))
    return [after, v, h]


_OPTIMISERS: dict[str, tuple[int, Step]] = {
    "Momentum": (1, _momentum), "Adagrad": (1, _adagrad), "Adam": (2, _adam)}


@lowers(*(f"ai.onnx.preview.training::{name}" for name in _OPTIMISERS))
def optimise(call: Call, rate: Node, steps: Node, *tensors: Node) -> list[Node]:
    """One step for every tensor; `norm_coefficient` pulls the tensors towards 0."""
    states, step = _OPTIMISERS[call.op]
    columns = 2 + states
    count, rest = divmod(len(tensors), columns)
    if rest:
        raise ModelError(f"{len(tensors)} tensors are not {columns} for each one optimised")
    pull = call.number("norm_coefficient", 0.0)
    results = []
    for i in range(count):
        x, gradient, *kept = tensors[i::count]
        slope = d.add(gradient, d.mul(x, pull))
        results.append(step(call, ir.cast(rate, x.dtype), ir.cast(steps, DType.I64),
                            [x, slope, *kept]))
    return [row[column] for column in range(1 + states) for row in results]
