"""Lowerings: branches and loops, written out at compile time; sequences and optionals."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.protos import declared
from tinynn.onnx.registry import (
    Absent,
    Call,
    TensorList,
    Value,
    is_static,
    lowers,
    normal_axis,
    static_ints,
    static_scalar,
)

# A loop is written out: with more rounds than this the graph would be larger than any sane model.
_MOST_ROUNDS = 10_000


@lowers("If")
def if_(call: Call, cond: Node) -> Sequence[Value]:
    """The branch is chosen at compile time if it can be, else by WHERE on both results."""
    cond = ir.reshape(cond, ())
    if is_static(cond):
        chosen = bool(static_scalar(cond, "the condition"))
        return call.branch("then_branch" if chosen else "else_branch")
    pairs = zip(call.branch("then_branch"), call.branch("else_branch"), strict=True)
    return [_choose(cond, a, b) for a, b in pairs]


def _choose(cond: Node, a: Value, b: Value) -> Node:
    same = (isinstance(a, Node) and isinstance(b, Node) and a.shape == b.shape
            and a.dtype is b.dtype)
    if not same:
        raise ModelError(f"the branches give {a!r} and {b!r} and the condition is known only "
                         "at run time: both must have the same shape and type")
    assert isinstance(a, Node)
    assert isinstance(b, Node)
    return d.where(cond, a, b)


@lowers("Loop", sequences=True)
def loop(call: Call, trips: Node | None = None, cond: Node | None = None,
         *carried: Value | None) -> list[Value]:
    """The body once per round; how many there are must be known at compile time.

    Body: (round, condition, carried...) -> (condition, carried..., a slice of each scan output...).
    """
    limit = None if trips is None else int(static_scalar(trips, "the number of trips"))
    going = cond is None or bool(static_scalar(cond, "the condition"))
    values: list[Value | None] = list(carried)
    slices: list[list[Value]] = [[] for _ in range(call.outputs - len(carried))]
    done = 0
    while going and (limit is None or done < limit):
        if done == _MOST_ROUNDS:
            raise UnsupportedModel(f"a loop of more than {_MOST_ROUNDS} rounds")
        given = [ir.const(done, DType.I64), ir.const(True), *values]
        again, *results = call.branch("body", given)
        values = list(results[:len(carried)])
        _collect(slices, results[len(carried):])
        going = bool(static_scalar(_tensor(again), "the condition of the loop"))
        done += 1
    body = call.subgraph("body")
    scanned = [_stacked(made, body.output[i]) for i, made in enumerate(slices, 1 + len(carried))]
    return [*(Absent() if v is None else v for v in values), *scanned]


def _collect(slices: list[list[Value]], results: Sequence[Value]) -> None:
    if len(results) != len(slices):
        raise ModelError(f"the body gives {len(results)} slices for {len(slices)} scan outputs")
    for kept, result in zip(slices, results, strict=True):
        kept.append(result)


def _stacked(slices: Sequence[Value], info: Any, axis: int = 0) -> Node:
    """Slices along a new axis; of none, the shape is what the body declares."""
    if slices:
        return ir.concat([d.unsqueeze(_tensor(s), axis) for s in slices], axis)
    dtype, shape = declared(info, {})
    return ir.full((*shape[:axis], 0, *shape[axis:]), 0, dtype)


def _tensor(value: Value | None) -> Node:
    if not isinstance(value, Node):
        raise ModelError(f"a tensor is expected, not {value!r}")
    return value


@lowers("Scan", since=9)
def scan(call: Call, *inputs: Node) -> list[Value]:
    """The body once per slice of the scan inputs.

    Body: (states..., slices...) -> (states..., a slice of each scan output...).
    """
    body = call.subgraph("body")
    count = call.integer("num_scan_inputs")
    states: list[Value] = list(inputs[:len(inputs) - count])
    scanned = inputs[len(inputs) - count:]
    results = call.outputs - len(states)
    axes = [normal_axis(a, len(x.shape)) for a, x in
            zip(call.integers("scan_input_axes", [0] * count), scanned, strict=True)]
    backwards = call.integers("scan_input_directions", [0] * count)
    lengths = {x.shape[a] for x, a in zip(scanned, axes, strict=True)}
    if len(lengths) != 1 or max(lengths) > _MOST_ROUNDS:
        raise UnsupportedModel(f"scan inputs of lengths {sorted(lengths)}; they must be the same, "
                               f"at most {_MOST_ROUNDS}")
    (length,) = lengths
    slices: list[list[Value]] = [[] for _ in range(results)]
    for i in range(length):
        given = [_at(x, axis, length - 1 - i if backward else i)
                 for x, axis, backward in zip(scanned, axes, backwards, strict=True)]
        made = call.branch("body", [*states, *given])
        states = made[:len(states)]
        _collect(slices, made[len(states):])
    outputs: list[Value] = []
    for i, (axis, backward) in enumerate(zip(
            call.integers("scan_output_axes", [0] * results),
            call.integers("scan_output_directions", [0] * results), strict=True)):
        info = body.output[len(states) + i]
        rank = len(_tensor(slices[i][0]).shape if slices[i] else declared(info, {})[1]) + 1
        ordered = slices[i][::-1] if backward else slices[i]
        outputs.append(_stacked(ordered, info, normal_axis(axis, rank)))
    return [*states, *outputs]


def _at(x: Node, axis: int, i: int) -> Node:
    """x[i] along an axis, which goes."""
    return ir.reshape(d.take_range(x, axis, i, 1), (*x.shape[:axis], *x.shape[axis + 1:]))


# Sequences and optionals

@lowers("Identity", sequences=True)
def identity(call: Call, x: Value | None = None) -> Value:
    return Absent() if x is None else x


@lowers("Optional", since=15, sequences=True)
def optional(call: Call, x: Value | None = None) -> Value:
    return Absent() if x is None else x


@lowers("OptionalHasElement", since=15, sequences=True)
def optional_has_element(call: Call, x: Value | None = None) -> Node:
    return ir.const(x is not None)


@lowers("OptionalGetElement", since=15, sequences=True)
def optional_get_element(call: Call, x: Value | None = None) -> Value:
    if x is None:
        raise ModelError("the optional has no value")
    return x


@lowers("SequenceEmpty", since=11)
def sequence_empty(call: Call) -> TensorList:
    call.has("dtype")  # a sequence of ours holds any
    return TensorList(())


@lowers("SequenceConstruct", since=11)
def sequence_construct(call: Call, *items: Node) -> TensorList:
    return TensorList(items)


def _items(x: Value) -> tuple[Node, ...]:
    if not isinstance(x, TensorList):
        raise ModelError(f"a sequence is expected, not {x!r}")
    return x.items


def _position(position: Node | None, length: int, default: int) -> int:
    if position is None:
        return default
    at = int(static_scalar(position, "the position"))
    if not -length <= at <= length:
        raise ModelError(f"position {at} in a sequence of {length}")
    return at + length if at < 0 else at


@lowers("SequenceLength", since=11, sequences=True)
def sequence_length(call: Call, x: Value) -> Node:
    return ir.const(len(_items(x)), DType.I64)


@lowers("SequenceAt", since=11, sequences=True)
def sequence_at(call: Call, x: Value, position: Node) -> Node:
    items = _items(x)
    return items[_position(position, len(items), 0)]


@lowers("SequenceInsert", since=11, sequences=True)
def sequence_insert(call: Call, x: Value, item: Node, position: Node | None = None) -> TensorList:
    items = _items(x)
    at = _position(position, len(items), len(items))
    return TensorList((*items[:at], item, *items[at:]))


@lowers("SequenceErase", since=11, sequences=True)
def sequence_erase(call: Call, x: Value, position: Node | None = None) -> TensorList:
    items = _items(x)
    at = _position(position, len(items), len(items) - 1)
    return TensorList(items[:at] + items[at + 1:])


@lowers("ConcatFromSequence", since=11, sequences=True)
def concat_from_sequence(call: Call, x: Value) -> Node:
    items = _items(x)
    new = call.flag("new_axis")
    axis = call.axis(len(items[0].shape) + new)
    return ir.concat([d.unsqueeze(i, axis) for i in items] if new else items, axis)


@lowers("SplitToSequence", since=11)
def split_to_sequence(call: Call, x: Node, sizes_input: Node | None = None) -> TensorList:
    """Parts of the given sizes, or of one size; of length 1 without a size."""
    axis = call.axis(len(x.shape), 0)
    length, keep = x.shape[axis], call.flag("keepdims", True)
    if length > _MOST_ROUNDS:
        raise UnsupportedModel(f"an axis of {length} elements; at most {_MOST_ROUNDS} are split")
    if sizes_input is None:
        return TensorList(tuple(d.take_range(x, axis, i, 1) if keep else _at(x, axis, i)
                                for i in range(length)))
    sizes = static_ints(sizes_input, "the sizes")
    if not sizes_input.shape:
        size = max(1, sizes[0])
        sizes = [min(size, length - i) for i in range(0, length, size)]
    starts = np.cumsum([0, *sizes])
    return TensorList(tuple(d.take_range(x, axis, int(i), n)
                            for i, n in zip(starts, sizes, strict=False)))
