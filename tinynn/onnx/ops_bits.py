"""Lowerings: shifts and bitwise logic, in arithmetic on integers that wrap around."""
from __future__ import annotations

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError
from tinynn.onnx.protos import element_type
from tinynn.onnx.registry import Call, lowers, static

_UNSIGNED = {1: DType.U8, 2: DType.U16, 4: DType.U32, 8: DType.U64}


def _powers(dtype: DType) -> Node:
    """2**k for every bit k of the dtype, wrapped around in signed ones, and 0 behind the last."""
    unsigned = _UNSIGNED[dtype.itemsize].numpy.type
    bits = [unsigned(1 << k) for k in range(8 * dtype.itemsize)]
    return ir.const(np.array([*bits, unsigned(0)]).view(dtype.numpy))


@lowers("BitShift", since=11)
def bit_shift(call: Call, x: Node, count: Node) -> Node:
    """A product with 2**count or a quotient; shifting out everything gives 0, as does x / 0.
    A negative count shifts out everything."""
    direction = call.text("direction", choices=("LEFT", "RIGHT"))
    count = d.where(d.less(count, 0), d.scalar(8 * x.dtype.itemsize, count), count)
    x, power = d.broadcast(x, ir.gather(_powers(x.dtype), count, 0))
    if direction == "LEFT":
        return ir.mul(x, power)
    # Of a negative number all bits are flipped before and after, so that 1 is shifted in.
    down = d.flip(ir.div(d.flip(x), power))
    return d.where(d.less(x, 0), down, ir.div(x, power))


def _bits(x: Node) -> Node:
    """The bits of unsigned integers along a new last axis, as booleans."""
    powers = d.take_range(_powers(x.dtype), 0, 0, 8 * x.dtype.itemsize)
    shifted = d.div(d.unsqueeze(x, len(x.shape)), powers)
    return d.equal(d.sub(shifted, d.mul(d.div(shifted, 2), 2)), 1)


_LOGIC = {"BitwiseAnd": d.mul, "BitwiseOr": d.add,
          "BitwiseXor": lambda a, b: d.logical_not(d.equal(a, b))}


@lowers(*_LOGIC, since=18)
def bitwise(call: Call, a: Node, b: Node) -> Node:
    unsigned = _UNSIGNED[a.dtype.itemsize]
    bits = _LOGIC[call.op](_bits(ir.cast(a, unsigned)), _bits(ir.cast(b, unsigned)))
    powers = d.take_range(_powers(unsigned), 0, 0, bits.shape[-1])
    total = ir.reduce(d.mul(ir.cast(bits, unsigned), powers), "sum", (len(bits.shape) - 1,))
    return ir.cast(total, a.dtype)


@lowers("BitwiseNot", since=18)
def bitwise_not(call: Call, x: Node) -> Node:
    return d.flip(x)


@lowers("BitCast", since=26)
def bit_cast(call: Call, x: Node) -> Node:
    """Of constants only: the graph has no operation that looks at the bits of a float."""
    target = element_type(call.integer("to"))
    if target.itemsize != x.dtype.itemsize:
        raise ModelError(f"{x!r} and {target.value} differ in size")
    return ir.const(static(x, "the operand").view(target.numpy))
