"""Lowerings: resizing, one axis after the other, as a GATHER of taps with constant weights."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinynn import derived as d
from tinynn import ir
from tinynn.ir import Node
from tinynn.onnx.errors import ModelError
from tinynn.onnx.registry import Call, lowers, normal_axis, static, static_ints

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Sampling:
    """How elements are taken from an axis, in ONNX's words.

    mode: nearest, linear or cubic. where: coordinate_transformation_mode. rounding: nearest_mode.
    cubic: coefficient of Keys' kernel. exclude: taps outside do not count. extrapolation: value
    outside the region of tf_crop_and_resize. antialias: a kernel as wide as the new elements.
    """

    mode: str
    where: str
    rounding: str
    cubic: float = -0.75
    exclude: bool = False
    extrapolation: float = 0.0
    antialias: bool = False


_WHOLE = (0.0, 1.0)


@lowers("Upsample", since=7)
def upsample(call: Call, x: Node, scales_input: Node | None = None) -> Node:
    scales = (call.numbers("scales") if scales_input is None
              else [float(v) for v in static(scales_input, "the scales").reshape(-1)])
    mode = call.text("mode", "nearest", ("nearest", "linear", "bilinear"))
    sampling = _Sampling(mode.removeprefix("bi"), "asymmetric", "floor")
    for axis, scale in enumerate(scales):
        x = _resize_axis(x, axis, math.floor(x.shape[axis] * scale), scale, _WHOLE, sampling)
    return x


_COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
                "half_pixel_symmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@lowers("Resize", since=10)
def resize(call: Call, x: Node, *rest: Node | None) -> Node:
    """Inputs behind x: scales (opset 10); region of interest, scales, sizes (since 11)."""
    old = call.opset < 11
    inputs = [*([None] if old else []), *rest, None, None, None]
    roi, scales_input, sizes_input = inputs[:3]
    sampling = _Sampling(
        call.text("mode", "nearest", ("nearest", "linear", "cubic")),
        call.text("coordinate_transformation_mode", "asymmetric" if old else "half_pixel",
                  _COORDINATES),
        call.text("nearest_mode", "floor" if old else "round_prefer_floor", _ROUNDINGS),
        call.number("cubic_coeff_a", -0.75), call.flag("exclude_outside"),
        call.number("extrapolation_value", 0.0), call.flag("antialias"))
    rank = len(x.shape)
    axes = [normal_axis(a, rank) for a in call.integers("axes", list(range(rank)))]
    if sizes_input is not None and sizes_input.size:
        lengths, scales = _from_sizes(call, x, axes, static_ints(sizes_input, "the sizes"))
    elif scales_input is not None:
        scales = [float(v) for v in static(scales_input, "the scales").reshape(-1)]
        lengths = [math.floor(x.shape[a] * s) for a, s in zip(axes, scales, strict=True)]
    else:
        raise ModelError("neither scales nor sizes are given")
    regions = [_WHOLE] * len(axes)
    if sampling.where == "tf_crop_and_resize":
        if roi is None:
            raise ModelError("tf_crop_and_resize needs the region of interest")
        flat = [float(v) for v in static(roi, "the region of interest").reshape(-1)]
        regions = list(zip(flat[:len(axes)], flat[len(axes):], strict=True))
    for axis, length, scale, region in zip(axes, lengths, scales, regions, strict=True):
        x = _resize_axis(x, axis, length, scale, region, sampling)
    return x


def _from_sizes(call: Call, x: Node, axes: list[int], sizes: list[int]
                ) -> tuple[list[int], list[float]]:
    """Lengths and scales of the axes for the sizes asked for."""
    scales = [n / x.shape[a] for n, a in zip(sizes, axes, strict=True)]
    policy = call.text("keep_aspect_ratio_policy", "stretch",
                       ("stretch", "not_larger", "not_smaller"))
    if policy == "stretch":
        return sizes, scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [math.floor(x.shape[a] * scale + 0.5) for a in axes], [scale] * len(axes)


def _resize_axis(x: Node, axis: int, length: int, scale: float, region: tuple[float, float],
                 sampling: _Sampling) -> Node:
    """Resize one axis to `length`; identity if nothing changes."""
    old, rank = x.shape[axis], len(x.shape)
    if (length, scale, region) == (old, 1.0, _WHOLE):
        return x
    at = _source_coordinates(old, length, scale, sampling.where, region)
    if sampling.mode == "nearest":
        indices = np.clip(_nearest(at, sampling.rounding), 0, old - 1)
        y = ir.gather(x, ir.const(indices), axis)
    else:
        indices, weights = _taps(at, old, min(scale, 1.0), sampling)
        along = [1] * (rank + 1)
        along[axis:axis + 2] = weights.shape
        picked = ir.gather(x, ir.const(indices), axis)
        y = ir.reduce(d.mul(picked, ir.const(weights.reshape(along), x.dtype)), "sum", (axis + 1,))
    if sampling.where != "tf_crop_and_resize":
        return y
    outside = (at < 0) | (at > old - 1)
    mask = ir.const(outside.reshape([length if i == axis else 1 for i in range(rank)]))
    return d.where(mask, d.scalar(sampling.extrapolation, x), y)


def _source_coordinates(old: int, new: int, scale: float, where: str,
                        region: tuple[float, float]) -> Array:
    """Where in the old axis each new element lies (elements at integers), by the ONNX formulas."""
    d.require_small(new)
    i = np.arange(new, dtype=np.float64)
    if where == "asymmetric":
        return i / scale
    if where == "align_corners":
        # With the resized length before rounding, as the ONNX reference; onnxruntime rounds it.
        return i * (old - 1) / (scale * old - 1) if new > 1 else i * 0
    if where == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if where == "tf_crop_and_resize":
        start, end = region
        if new == 1:
            return i * 0 + 0.5 * (start + end) * (old - 1)
        return start * (old - 1) + i * (end - start) * (old - 1) / (new - 1)
    if where == "pytorch_half_pixel" and new == 1:
        return i * 0
    if where == "half_pixel_symmetric":
        # The centre stays where it is although the new length was rounded.
        shift = old / 2 * (1 - new / (scale * old))
        return shift + (i + 0.5) / scale - 0.5
    return (i + 0.5) / scale - 0.5


def _nearest(at: Array, rounding: str) -> Array:
    rules = {"round_prefer_floor": np.ceil(at - 0.5), "round_prefer_ceil": np.floor(at + 0.5),
             "floor": np.floor(at), "ceil": np.ceil(at)}
    return rules[rounding].astype(np.int64)


def _kernel(distance: Array, sampling: _Sampling) -> Array:
    """Weight of an element by its distance: a triangle, or Keys' cubic kernel."""
    far = np.abs(distance)
    if sampling.mode == "linear":
        return np.maximum(1 - far, 0)
    a = sampling.cubic
    inner = (a + 2) * far**3 - (a + 3) * far**2 + 1
    outer = a * far**3 - 5 * a * far**2 + 8 * a * far - 4 * a
    return np.where(far <= 1, inner, np.where(far < 2, outer, 0))


def _taps(at: Array, old: int, scale: float, sampling: _Sampling) -> tuple[Array, Array]:
    """Indices and weights (new, taps) of linear or cubic resizing."""
    base = np.floor(at)
    part = (at - base)[:, None]
    reach = 1 if sampling.mode == "linear" else 2
    width = 1 / scale if sampling.antialias else 1.0
    reach = math.ceil(reach * width)
    d.require_small(2 * reach * len(at))
    offsets = np.arange(1 - reach, reach + 1)
    weights = _kernel((offsets - part) / width, sampling)
    if sampling.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    indices = base[:, None].astype(np.int64) + offsets
    if sampling.exclude:
        weights = np.where((indices >= 0) & (indices < old), weights, 0)
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(indices, 0, old - 1), weights
