"""Lowerings: Fourier transforms, as products with constant matrices of cosines and sines.

Complex numbers are a last axis of length 2, as ONNX has them.
"""
from __future__ import annotations

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.registry import Call, lowers, normal_axis, static_scalar


def _transform(x: Node, length: int, inverse: bool, onesided: bool) -> Node:
    """DFT along the last but one axis: x (.., n, 1 or 2), cut or padded to `length`.

    onesided: only frequencies up to length // 2, of a real x. inverse: from those back to the real
    one.
    """
    complex_input = x.shape[-1] == 2
    kept = length // 2 + 1 if inverse else length
    x = _fitted(x, kept)
    frequencies = length // 2 + 1 if onesided and not inverse else length
    d.require_small(4 * kept * frequencies)
    angle = 2 * np.pi / length * (np.outer(np.arange(kept), np.arange(frequencies)) % length)
    scale = np.full((kept, 1), 1 / length if inverse else 1.0)
    if inverse:
        # The frequencies that are left out are conjugates of those that are there.
        scale[1:(length + 1) // 2] *= 2
    cosines, sines = scale * np.cos(angle), scale * np.sin(angle) * (1 if inverse else -1)
    real = [cosines] if not complex_input else [cosines, -sines]
    imaginary = [sines] if not complex_input else [sines, cosines]
    # Row (n, part) and column (frequency, part) of one matrix.
    parts = [real] if inverse else [real, imaginary]
    matrix = np.stack([np.stack(rows, 1) for rows in parts], -1)
    flat = ir.reshape(x, (*x.shape[:-2], kept * x.shape[-1]))
    product = d.matmul(flat, ir.const(matrix.reshape(flat.shape[-1], -1), x.dtype))
    return ir.reshape(product, (*x.shape[:-2], frequencies, len(parts)))


def _fitted(x: Node, length: int) -> Node:
    """Cut or padded with zeros to this length along the last but one axis."""
    axis = len(x.shape) - 2
    x = d.take_range(x, axis, 0, min(length, x.shape[axis]))
    missing = length - x.shape[axis]
    return ir.pad(x, [(0, missing) if i == axis else (0, 0) for i in range(len(x.shape))])


@lowers("DFT", since=17)
def dft(call: Call, x: Node, length_input: Node | None = None,
        axis_input: Node | None = None) -> Node:
    rank = len(x.shape)
    inverse, onesided = call.flag("inverse"), call.flag("onesided")
    if inverse and not onesided:
        raise UnsupportedModel("an inverse transform with a complex result is not supported; "
                               "conjugate before and after a forward one")
    axis = call.integer("axis", 1) if call.opset < 20 else -2
    if axis_input is not None:
        axis = int(static_scalar(axis_input, "the axis"))
    axis = normal_axis(axis, rank)
    if axis == rank - 1 or x.shape[-1] not in (1, 2):
        raise ModelError(f"{x!r} along axis {axis}: the last axis must hold 1 or 2 parts")
    length = 2 * (x.shape[axis] - 1) if inverse else x.shape[axis]
    if length_input is not None:
        length = int(static_scalar(length_input, "the length"))
    order = [*(i for i in range(rank) if i not in (axis, rank - 1)), axis, rank - 1]
    y = _transform(ir.permute(x, order), length, inverse, onesided)
    return ir.permute(y, [order.index(i) for i in range(rank)])


@lowers("STFT", since=17)
def stft(call: Call, x: Node, step: Node, window: Node | None = None,
         length_input: Node | None = None) -> Node:
    """DFT of frames: x (batch, time, 1 or 2) -> (batch, frames, frequencies, 2)."""
    if length_input is not None:
        length = int(static_scalar(length_input, "the frame length"))
    elif window is not None:
        length = window.size
    else:
        raise ModelError("neither a window nor a frame length is given")
    stride = int(static_scalar(step, "the frame step"))
    frames = ir.permute(ir.window(x, [(1, length, stride, 1)]), (0, 1, 3, 2))
    if window is not None:
        frames = d.mul(frames, ir.reshape(window, (length, 1)))
    return _transform(frames, length, False, call.flag("onesided", True))
