"""Lowerings: RNN, GRU and LSTM, written out step by step.

Axes follow ONNX: x (time, batch, input), weights with a leading axis of directions, states
(directions, batch, hidden), result (time, directions, batch, hidden); layout=1 puts the batch
first.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.ops_math import elu, hard_sigmoid
from tinynn.onnx.registry import Call, lowers, static_ints

_MOST_STEPS = 10_000

Activation = Callable[[Node], Node]

_ACTIVATIONS: dict[str, Callable[[float | None, float | None], Activation]] = {
    "sigmoid": lambda a, b: d.sigmoid,
    "tanh": lambda a, b: d.tanh,
    "relu": lambda a, b: d.relu,
    "affine": lambda a, b: lambda x: d.add(d.mul(x, _or(a, 1.0)), _or(b, 0.0)),
    "leakyrelu": lambda a, b: lambda x: d.where(d.less(x, 0), d.mul(x, _or(a, 0.01)), x),
    "hardsigmoid": lambda a, b: lambda x: hard_sigmoid(x, _or(a, 0.2), _or(b, 0.5)),
    "elu": lambda a, b: lambda x: elu(x, _or(a, 1.0)),
    "scaledtanh": lambda a, b: lambda x: d.mul(d.tanh(d.mul(x, _or(b, 1.0))), _or(a, 1.0)),
    "softsign": lambda a, b: lambda x: d.div(x, d.add(d.absolute(x), 1)),
    "softplus": lambda a, b: d.softplus,
}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


@dataclass
class Cell:
    """One direction of a recurrent layer.

    x (time, batch, input); w (gates * hidden, input); r (gates * hidden, hidden);
    wb, rb (gates * hidden,) input and recurrent bias; h, c (batch, hidden) initial states.
    """

    x: Node
    w: Node
    r: Node
    wb: Node
    rb: Node
    h: Node
    c: Node
    hidden: int
    activations: list[Activation]
    call: Call

    def gate(self, x: Node, i: int) -> Node:
        """Part i of (.., gates * hidden)."""
        return d.take_range(x, len(x.shape) - 1, i * self.hidden, self.hidden)

    def rows(self, x: Node, i: int) -> Node:
        """Part i of (gates * hidden, ..)."""
        return d.take_range(x, 0, i * self.hidden, self.hidden)

    def inputs(self, with_recurrent_bias: bool = True) -> list[Node]:
        """x w^T + bias of every step, as one product: per step (batch, gates * hidden)."""
        bias = d.add(self.wb, self.rb) if with_recurrent_bias else self.wb
        product = d.add(d.matmul(self.x, ir.permute(self.w, (1, 0))), bias)
        steps = self.x.shape[0]
        return [ir.reshape(d.take_range(product, 0, t, 1), product.shape[1:])
                for t in range(steps)]

    def recur(self, h: Node, weights: Node) -> Node:
        return d.matmul(h, ir.permute(weights, (1, 0)))

    def limited(self, x: Node) -> Node:
        """The argument of an activation, kept within +-clip."""
        if not self.call.has("clip"):
            return x
        limit = self.call.number("clip")
        return d.clip(x, d.scalar(-limit, x), d.scalar(limit, x))


def _rnn(cell: Cell) -> tuple[list[Node], Node]:
    (activation,), h, states = cell.activations, cell.h, []
    for given in cell.inputs():
        h = activation(cell.limited(ir.add(given, cell.recur(h, cell.r))))
        states.append(h)
    return states, cell.c


def _gru(cell: Cell) -> tuple[list[Node], Node]:
    """Gates in the order update z, reset r, hidden."""
    f, g = cell.activations
    linear_before_reset = cell.call.flag("linear_before_reset")
    h, states = cell.h, []
    for given in cell.inputs(with_recurrent_bias=False):
        if linear_before_reset:
            recurrent = d.add(cell.recur(h, cell.r), cell.rb)
            z, r = (f(cell.limited(ir.add(cell.gate(given, i), cell.gate(recurrent, i))))
                    for i in (0, 1))
            reset = ir.mul(r, cell.gate(recurrent, 2))
        else:
            z, r = (f(cell.limited(ir.add(
                cell.gate(given, i),
                d.add(cell.recur(h, cell.rows(cell.r, i)), cell.rows(cell.rb, i)))))
                    for i in (0, 1))
            reset = d.add(cell.recur(ir.mul(r, h), cell.rows(cell.r, 2)), cell.rows(cell.rb, 2))
        new = g(cell.limited(ir.add(cell.gate(given, 2), reset)))
        h = ir.add(ir.mul(d.sub(d.scalar(1, z), z), new), ir.mul(z, h))
        states.append(h)
    return states, cell.c


def _lstm(cell: Cell, peepholes: Node | None) -> tuple[list[Node], Node]:
    """Gates in the order input, output, forget, cell."""
    f, g, out = cell.activations
    h, c, states = cell.h, cell.c, []

    def peep(x: Node, state: Node, i: int) -> Node:
        return x if peepholes is None else ir.add(x, d.mul(state, cell.rows(peepholes, i)))

    for given in cell.inputs():
        gates = ir.add(given, cell.recur(h, cell.r))
        i = f(cell.limited(peep(cell.gate(gates, 0), c, 0)))
        if cell.call.flag("input_forget"):
            forget = d.sub(d.scalar(1, i), i)
        else:
            forget = f(cell.limited(peep(cell.gate(gates, 2), c, 2)))
        new = g(cell.limited(cell.gate(gates, 3)))
        c = ir.add(ir.mul(forget, c), ir.mul(i, new))
        o = f(cell.limited(peep(cell.gate(gates, 1), c, 1)))
        h = ir.mul(o, out(c))
        states.append(h)
    return states, c


_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULT = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def _activations(call: Call, directions: int) -> list[list[Activation]]:
    """Per direction, the activation functions with their parameters."""
    names = call.texts("activations", _DEFAULT[call.op] * directions)
    alphas, betas = call.numbers("activation_alpha", []), call.numbers("activation_beta", [])
    each = len(_DEFAULT[call.op])
    if len(names) != each * directions:
        raise ModelError(f"{len(names)} activations for {directions} directions of {each}")
    made = []
    for i, name in enumerate(names):
        build = _ACTIVATIONS.get(name.lower())
        if build is None:
            raise UnsupportedModel(f"activation {name!r} is not supported")
        made.append(build(alphas[i] if i < len(alphas) else None,
                          betas[i] if i < len(betas) else None))
    return [made[i * each:(i + 1) * each] for i in range(directions)]


def _part(x: Node, direction: int) -> Node:
    """x[direction]."""
    return ir.reshape(d.take_range(x, 0, direction, 1), x.shape[1:])


@lowers("RNN", "GRU", "LSTM", since=7)
def recurrent(call: Call, x: Node, w: Node, r: Node, b: Node | None = None,
              lengths: Node | None = None, h0: Node | None = None, c0: Node | None = None,
              p: Node | None = None) -> list[Node]:
    batch_first = call.flag("layout")
    if batch_first:
        x = ir.permute(x, (1, 0, 2))
        h0, c0 = (None if s is None else ir.permute(s, (1, 0, 2)) for s in (h0, c0))
    time, batch, _ = x.shape
    if time > _MOST_STEPS:
        raise UnsupportedModel(f"a sequence of {time} steps; at most {_MOST_STEPS} are written out")
    if lengths is not None and any(n != time for n in static_ints(lengths, "sequence_lens")):
        raise UnsupportedModel("sequences of different lengths in one batch are not supported")
    direction = call.text("direction", "forward", ("forward", "reverse", "bidirectional"))
    directions = 2 if direction == "bidirectional" else 1
    hidden = call.integer("hidden_size", r.shape[2])
    width = _GATES[call.op] * hidden
    if w.shape != (directions, width, x.shape[2]) or r.shape != (directions, width, hidden):
        raise ModelError(f"weights {w!r} and {r!r} do not fit input {x!r} and hidden_size {hidden}")
    bias = b if b is not None else ir.full((directions, 2 * width), 0, x.dtype)
    zero = ir.full((directions, batch, hidden), 0, x.dtype)
    activations = _activations(call, directions)

    steps, last_h, last_c = [], [], []
    for i in range(directions):
        reverse = direction == "reverse" or i == 1
        part = _part(bias, i)
        cell = Cell(
            x=d.take_range(x, 0, time - 1, time, -1) if reverse else x,
            w=_part(w, i), r=_part(r, i),
            wb=d.take_range(part, 0, 0, width), rb=d.take_range(part, 0, width, width),
            h=_part(zero if h0 is None else h0, i), c=_part(zero if c0 is None else c0, i),
            hidden=hidden, activations=activations[i], call=call)
        if call.op == "LSTM":
            states, c = _lstm(cell, None if p is None else _part(p, i))
        else:
            states, c = {"RNN": _rnn, "GRU": _gru}[call.op](cell)
        last_h.append(d.unsqueeze(states[-1], 0))
        last_c.append(d.unsqueeze(c, 0))
        ordered = list(reversed(states)) if reverse else states
        steps.append(ir.concat([ir.reshape(s, (1, 1, batch, hidden)) for s in ordered], 0))
    y, h, c = ir.concat(steps, 1), ir.concat(last_h, 0), ir.concat(last_c, 0)
    if batch_first:
        y = ir.permute(y, (2, 0, 1, 3))
        h, c = (ir.permute(s, (1, 0, 2)) for s in (h, c))
    return [y, h, c]
