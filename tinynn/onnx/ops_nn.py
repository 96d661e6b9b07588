"""Lowerings: convolutions, matrix products, pooling, normalisation, resizing."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinynn import derived as d
from tinynn import interp, ir
from tinynn.ir import DType, Node
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.ops_shape import pad_or_crop
from tinynn.onnx.registry import Call, lowers, static, static_ints, static_scalar

Pads = list[tuple[int, int]]

# Matrix products

@lowers("MatMul")
def matmul(call: Call, a: Node, b: Node) -> Node:
    return d.matmul(a, b)


@lowers("Gemm")
def gemm(call: Call, a: Node, b: Node, c: Node | None = None) -> Node:
    """alpha * op(a) @ op(b) + beta * c."""
    a = ir.permute(a, (1, 0)) if call.flag("transA") else a
    b = ir.permute(b, (1, 0)) if call.flag("transB") else b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    call.has("broadcast")  # before opset 7 c was broadcast only if this was set
    product = d.matmul(a, b)
    if alpha != 1.0:
        product = d.mul(product, alpha)
    if c is None:
        return product
    added = c if beta == 1.0 else d.mul(c, beta)
    return ir.add(product, d.broadcast_to(added, product.shape))


# Convolutions

def _pads(call: Call, lengths: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
          dilations: Sequence[int]) -> Pads:
    """(before, after) per spatial axis from `pads` or `auto_pad`."""
    auto = call.text("auto_pad", "NOTSET", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    rank = len(kernel)
    if auto == "NOTSET":
        flat = call.integers("pads", [0] * (2 * rank))
        if len(flat) != 2 * rank:
            raise ModelError(f"{len(flat)} pads for {rank} spatial axes")
        return [(flat[i], flat[i + rank]) for i in range(rank)]
    if auto == "VALID":
        return [(0, 0)] * rank
    pairs = []
    for length, k, s, dil in zip(lengths, kernel, strides, dilations, strict=True):
        # As many outputs as ceil(length / stride).
        total = max(0, (-(-length // s) - 1) * s + dil * (k - 1) + 1 - length)
        small = total // 2
        pairs.append((total - small, small) if auto == "SAME_LOWER" else (small, total - small))
    return pairs


def spatial(call: Call, name: str, rank: int, default: Sequence[int] | None = None) -> list[int]:
    """An attribute with one positive integer per spatial axis; 1 by default."""
    values = call.integers(name, default if default is not None else [1] * rank)
    if len(values) != rank or any(v < 1 for v in values):
        raise ModelError(f"attribute {name!r} should be {rank} positive integers, is {values}")
    return values


def add_channels(x: Node, bias: Node | None) -> Node:
    """x (N, C, ...) + bias (C,)."""
    if bias is None:
        return x
    return d.add(x, ir.reshape(bias, (bias.size, *(1 for _ in x.shape[2:]))))


@lowers("Conv")
def conv(call: Call, x: Node, weight: Node, bias: Node | None = None) -> Node:
    return convolution(call, x, weight, bias)


def convolution(call: Call, x: Node, weight: Node, bias: Node | None = None) -> Node:
    """As the attributes of Conv say, of floats or integers."""
    rank = len(weight.shape) - 2
    kernel = spatial(call, "kernel_shape", rank, weight.shape[2:])
    if rank < 1 or tuple(kernel) != weight.shape[2:] or len(x.shape) != rank + 2:
        raise ModelError(f"kernel {kernel}, weight {weight!r} and input {x!r} do not fit")
    strides, dilations = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    pads = _pads(call, x.shape[2:], kernel, strides, dilations)
    padded = pad_or_crop(x, [(0, 0), (0, 0), *pads], 0)
    y = d.conv(padded, weight, strides, dilations, [(0, 0)] * rank, call.integer("group", 1))
    return add_channels(y, bias)


@lowers("ConvTranspose")
def conv_transpose(call: Call, x: Node, weight: Node, bias: Node | None = None) -> Node:
    """weight (C, M/groups, *K). Every stride-th element of the result, a phase, is a convolution of
    x with every stride-th tap of the flipped kernel; the phases are put side by side.
    """
    rank = len(weight.shape) - 2
    if rank < 1 or len(x.shape) != rank + 2:
        raise ModelError(f"weight {weight!r} and input {x!r} do not fit")
    kernel = spatial(call, "kernel_shape", rank, weight.shape[2:])
    strides, dilations = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    extra = call.integers("output_padding", [0] * rank)
    full = [(n - 1) * s + dil * (k - 1) + 1 + e for n, s, k, dil, e
            in zip(x.shape[2:], strides, kernel, dilations, extra, strict=True)]
    pads = _transposed_pads(call, x.shape[2:], strides, full)
    for i, (s, dil) in enumerate(zip(strides, dilations, strict=True)):
        if s > 1 and dil > 1:
            x, strides[i] = _spread(x, 2 + i, s), 1
    y = _phases(x, weight, strides, dilations, call.integer("group", 1), [])
    # In the result, position and phase along an axis become one.
    y = ir.permute(y, [0, 1, *(a for i in range(rank) for a in (2 + rank + i, 2 + i))])
    lengths = [y.shape[2 + 2 * i] * s for i, s in enumerate(strides)]
    sides = [(-lo, want - hi - have) for (lo, hi), want, have
             in zip(pads, full, lengths, strict=True)]
    y = pad_or_crop(ir.reshape(y, (*y.shape[:2], *lengths)), [(0, 0), (0, 0), *sides], 0)
    return add_channels(y, bias)


def _phases(x: Node, weight: Node, strides: Sequence[int], dilations: Sequence[int], groups: int,
            chosen: list[tuple[int, int]]) -> Node:
    """Phases (N, M, *strides, *positions) of a transposed convolution; a stride or a dilation is 1.

    chosen: (first, count) of the phases along the axes decided so far. The phases of an axis are
    taken in two parts if the last ones have one tap less than the others.
    """
    axis, rank = len(chosen), len(strides)
    if axis < rank:
        longer = weight.shape[2 + axis] % strides[axis]
        kinds = [(0, longer), (longer, strides[axis] - longer)]
        return ir.concat([_phases(x, weight, strides, dilations, groups, [*chosen, kind])
                          for kind in kinds if kind[1]], 2 + axis)
    channels, per_group, *kernel = weight.shape
    most = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    taps = [(k - first - count) // s + 1
            for k, s, (first, count) in zip(kernel, strides, chosen, strict=True)]
    counts = [count for _, count in chosen]
    filters = groups * per_group
    reach = [dil * (n - 1) for dil, n in zip(dilations, most, strict=True)]
    out = [n + more for n, more in zip(x.shape[2:], reach, strict=True)]
    if 0 in taps:
        return ir.full((x.shape[0], filters, *counts, *out), 0, x.dtype)
    for i, (first, _) in enumerate(chosen, 2):
        weight = d.take_range(weight, i, first, weight.shape[i] - first)
    w = ir.window(weight, [(2 + i, count, s, 1) for i, (count, s)
                           in enumerate(zip(counts, strides, strict=True))])
    for i, n in enumerate(taps, 2):
        w = d.take_range(w, i, n - 1, n, -1)
    w = ir.reshape(w, (groups, channels // groups, per_group, *taps, *counts))
    w = ir.permute(w, (0, 2, *range(3 + rank, 3 + 2 * rank), 1, *range(3, 3 + rank)))
    w = ir.reshape(w, (filters * math.prod(counts), channels // groups, *taps))
    around = [(dil * (n - 1), after) for dil, n, after in zip(dilations, taps, reach, strict=True)]
    y = d.conv(x, w, [1] * rank, dilations, around, groups)
    return ir.reshape(y, (x.shape[0], filters, *counts, *out))


def _transposed_pads(call: Call, lengths: Sequence[int], strides: Sequence[int],
                     full: Sequence[int]) -> Pads:
    """What is cut off the full result of a transposed convolution, per axis."""
    auto = call.text("auto_pad", "NOTSET", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    rank = len(full)
    if call.has("output_shape"):
        wanted = call.integers("output_shape")[-rank:]
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(lengths, strides, strict=True)]
    else:
        flat = call.integers("pads", [0] * (2 * rank)) if auto == "NOTSET" else [0] * (2 * rank)
        return [(flat[i], flat[i + rank]) for i in range(rank)]
    pairs = []
    for have, want in zip(full, wanted, strict=True):
        total = have - want  # negative where the result is to be longer
        half = total // 2
        pairs.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
    return pairs


def _spread(x: Node, axis: int, stride: int) -> Node:
    """stride - 1 zeros between neighbours along an axis."""
    if stride == 1 or x.shape[axis] == 0:
        return x
    n, rank = x.shape[axis], len(x.shape)
    apart = ir.pad(d.unsqueeze(x, axis + 1),
                   [(0, stride - 1) if i == axis + 1 else (0, 0) for i in range(rank + 1)])
    flat = ir.reshape(apart, (*x.shape[:axis], n * stride, *x.shape[axis + 1:]))
    return d.take_range(flat, axis, 0, (n - 1) * stride + 1)


# Pooling

@dataclass(frozen=True)
class _Pooling:
    """The windows of a pooling node.

    windows: (axis, size, stride, dilation) per spatial axis, counted from the first spatial one.
    pads: (before, after) per axis as given; extra: what ceil_mode adds after them.
    """

    windows: list[tuple[int, int, int, int]]
    pads: Pads
    extra: list[int]

    @staticmethod
    def of(call: Call, x: Node) -> _Pooling:
        rank = len(x.shape) - 2
        kernel = spatial(call, "kernel_shape", rank)
        strides, dilations = spatial(call, "strides", rank), spatial(call, "dilations", rank)
        pads = _pads(call, x.shape[2:], kernel, strides, dilations)
        extra = [_ceil_extra(call, *one) for one in
                 zip(x.shape[2:], kernel, strides, dilations, pads, strict=True)]
        return _Pooling(list(zip(range(rank), kernel, strides, dilations, strict=True)), pads,
                        extra)

    def windows_of(self, x: Node, fill: float, spatial: int = 2) -> Node:
        """Pad with `fill` and slide the windows over the axes from `spatial` on."""
        around = [(lo, hi + e) for (lo, hi), e in zip(self.pads, self.extra, strict=True)]
        padded = ir.pad(x, [*[(0, 0)] * spatial, *around], fill)
        return ir.window(padded, [(a + spatial, k, s, dil) for a, k, s, dil in self.windows])

    def counts(self, lengths: Sequence[int], with_pads: bool) -> list[np.ndarray]:
        """Per axis, how many elements of each window count: those of x, or of the pads too."""
        results = []
        for length, (_, size, stride, dilation), (lo, hi), extra in zip(
                lengths, self.windows, self.pads, self.extra, strict=True):
            whole = lo + length + hi
            number = (whole + extra - dilation * (size - 1) - 1) // stride + 1
            d.require_small(number * size)
            taps = np.arange(number)[:, None] * stride + np.arange(size) * dilation
            first, end = (0, whole) if with_pads else (lo, lo + length)
            results.append(((taps >= first) & (taps < end)).sum(1))
        return results

    def reduce(self, x: Node, kind: str, fill: float, spatial: int = 2) -> Node:
        """The windows, each reduced."""
        rank = len(x.shape)
        return ir.reduce(self.windows_of(x, fill, spatial), kind,
                         range(rank, rank + len(self.windows)))


def _ceil_extra(call: Call, length: int, k: int, stride: int, dilation: int,
                pad: tuple[int, int]) -> int:
    """Padding that ceil_mode adds at the end so that the last, partial window exists."""
    if not call.flag("ceil_mode"):
        return 0
    free = length + sum(pad) - (dilation * (k - 1) + 1)
    positions = -(-free // stride) + 1
    # A window that would start in the padding at the end does not count.
    if (positions - 1) * stride >= length + pad[0]:
        positions -= 1
    return max(0, (positions - 1) * stride - free)


@lowers("MaxPool")
def max_pool(call: Call, x: Node) -> list[Node]:
    """The maxima, and if asked for the position of each (the first, of equals) in all of x."""
    pooling = _Pooling.of(call, x)
    lowest = interp.lowest(x.dtype)
    top = pooling.reduce(x, "max", lowest)
    if call.outputs == 1:
        return [top]
    rank = len(x.shape)
    position = ir.const(0, DType.I64)
    for axis, length in enumerate(x.shape):
        position = d.add(d.mul(position, length), d.positions(x.shape, axis))
    same_shape = ir.reshape(top, (*top.shape, *[1] * (rank - 2)))
    is_top = d.equal(pooling.windows_of(x, lowest), same_shape)
    beyond = d.scalar(x.size, position)
    found = d.where(is_top, pooling.windows_of(position, x.size), beyond)
    first = d.reduce_min(found, range(rank, 2 * rank - 2))
    return [top, _column_major(first, x.shape[2:]) if call.flag("storage_order") else first]


def _column_major(position: Node, spatial: Sequence[int]) -> Node:
    """Positions counted along the last spatial axis first, counted along the first one first."""
    rest, result = position, ir.const(0, DType.I64)
    for length in reversed(spatial):
        quotient = d.div(rest, length)
        result = d.add(d.mul(result, length), d.sub(rest, d.mul(quotient, length)))
        rest = quotient
    return d.add(d.mul(rest, math.prod(spatial)), result)


@lowers("MaxUnpool", since=9)
def max_unpool(call: Call, x: Node, indices: Node, shape_input: Node | None = None) -> Node:
    """Each element at its index in the tensor that was pooled, zeros elsewhere."""
    rank = len(x.shape) - 2
    kernel, strides = spatial(call, "kernel_shape", rank), spatial(call, "strides", rank)
    pads = call.integers("pads", [0] * (2 * rank))
    shape = [*x.shape[:2], *((x.shape[2 + i] - 1) * strides[i] + kernel[i] - pads[i]
                             - pads[i + rank] for i in range(rank))]
    empty = ir.full((math.prod(shape),), 0, x.dtype)
    flat = ir.scatter(empty, ir.reshape(indices, (x.size,)), ir.reshape(x, (x.size,)), 0)
    y = ir.reshape(flat, shape)
    if shape_input is None:
        return y
    wanted = static_ints(shape_input, "the output shape")
    return ir.pad(y, [(0, w - n) for w, n in zip(wanted, shape, strict=True)])


@lowers("AveragePool")
def average_pool(call: Call, x: Node) -> Node:
    """The sum over each window divided by the number of its elements that count."""
    pooling = _Pooling.of(call, x)
    total = pooling.reduce(x, "sum", 0)
    counts = pooling.counts(x.shape[2:], call.flag("count_include_pad"))
    if all(c.size and (c == c[0]).all() for c in counts):
        return d.div(total, math.prod(int(c[0]) for c in counts))
    divisor = d.scalar(1, x)
    for axis, count in enumerate(reversed(counts)):
        divisor = d.mul(divisor, ir.reshape(ir.const(count, x.dtype), (count.size, *[1] * axis)))
    return d.div(total, divisor)


@lowers("LpPool", since=2)
def lp_pool(call: Call, x: Node) -> Node:
    p = call.integer("p", 2)
    total = _Pooling.of(call, x).reduce(d.power_int(d.absolute(x), p), "sum", 0)
    return ir.sqrt(total) if p == 2 else d.power(total, d.scalar(1 / p, x))


@lowers("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call, x: Node) -> Node:
    axes = list(range(2, len(x.shape)))
    pooled = d.mean(x, axes) if call.op == "GlobalAveragePool" else ir.reduce(x, "max", axes)
    return ir.reshape(pooled, (*x.shape[:2], *(1 for _ in axes)))


# Normalisation

def _channel(values: Node, x: Node) -> Node:
    """(C,) ready to broadcast against x (N, C, ...), in f32 or x's dtype if that is wider."""
    return ir.reshape(values, (values.size, *(1 for _ in x.shape[2:])))


@lowers("BatchNormalization", since=6)
def batch_normalization(call: Call, x: Node, scale: Node, bias: Node, mean: Node,
                        variance: Node) -> list[Node]:
    """x * gain + (bias - mean * gain), gain = scale / sqrt(variance + epsilon)."""
    if call.opset < 7 and not call.flag("is_test"):
        raise UnsupportedModel("is_test = 0 is not supported: export the model for inference")
    if not call.flag("spatial", True):
        raise UnsupportedModel("statistics per element (spatial = 0) are not supported")
    if call.flag("training_mode"):
        return _train_batch(call, x, scale, bias, mean, variance)
    return [_batch_normalized(call, x, scale, bias, mean, variance)]


def _train_batch(call: Call, x: Node, scale: Node, bias: Node, mean: Node, variance: Node
                 ) -> list[Node]:
    """With the statistics of the batch, and the running ones moved towards them."""
    axes = [i for i in range(len(x.shape)) if i != 1]
    wide = ir.cast(x, mean.dtype)
    new_mean = d.mean(wide, axes)
    centred = d.sub(wide, _channel(new_mean, x))
    new_variance = d.mean(ir.mul(centred, centred), axes)
    momentum = call.number("momentum", 0.9)
    running = [d.add(d.mul(old, momentum), d.mul(new, 1 - momentum))
               for old, new in ((mean, new_mean), (variance, new_variance))]
    return [_batch_normalized(call, x, scale, bias, new_mean, new_variance), *running]


def _batch_normalized(call: Call, x: Node, scale: Node, bias: Node, mean: Node, variance: Node
                      ) -> Node:
    wide = DType.F64 if DType.F64 in (x.dtype, variance.dtype) else DType.F32
    spread = ir.sqrt(d.add(ir.cast(variance, wide), call.number("epsilon", 1e-5)))
    gain = ir.div(ir.cast(scale, wide), spread)
    offset = d.sub(ir.cast(bias, wide), ir.mul(ir.cast(mean, wide), gain))
    y = d.add(d.mul(ir.cast(x, wide), _channel(gain, x)), _channel(offset, x))
    return ir.cast(y, x.dtype)


@lowers("InstanceNormalization", since=6)
def instance_normalization(call: Call, x: Node, scale: Node, bias: Node) -> Node:
    axes = range(2, len(x.shape))
    y = d.in_f32(d.normalize)(x, axes, call.number("epsilon", 1e-5))
    return d.add(d.mul(y, _channel(scale, x)), _channel(bias, x))


@lowers("LayerNormalization", since=17)
def layer_normalization(call: Call, x: Node, scale: Node,
                        bias: Node | None = None) -> list[Node]:
    """Over the axes from `axis` on, in f32 where x is narrower: the result, and if they are asked
    for the mean and 1 / standard deviation."""
    axes = range(call.axis(len(x.shape), -1), len(x.shape))
    epsilon = call.number("epsilon", 1e-5)
    y = d.mul(d.in_f32(d.normalize)(x, axes, epsilon), scale)
    y = y if bias is None else d.add(y, bias)
    if call.outputs == 1:
        return [y]
    wide = ir.cast(x, DType.F32)
    keep = [1 if i in axes else n for i, n in enumerate(x.shape)]
    mean = ir.reshape(d.mean(wide, axes), keep)
    centred = d.sub(wide, mean)
    variance = ir.reshape(d.mean(ir.mul(centred, centred), axes), keep)
    return [y, mean, d.div(d.scalar(1, wide), ir.sqrt(d.add(variance, epsilon)))]


@lowers("LpNormalization")
def lp_normalization(call: Call, x: Node) -> Node:
    axis, p = call.axis(len(x.shape), -1), call.integer("p", 2)
    if p not in (1, 2):
        raise UnsupportedModel(f"p is {p}; supported: 1, 2")
    if p == 1:
        norm = d.reduce_keep(d.absolute(x), "sum", (axis,))
    else:
        norm = ir.sqrt(d.reduce_keep(ir.mul(x, x), "sum", (axis,)))
    # A vector of zeros stays one.
    return d.div(x, d.where(d.equal(norm, 0), d.scalar(1, x), norm))


@lowers("LRN")
def local_response_normalization(call: Call, x: Node) -> Node:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta."""
    count = call.integer("size")
    before = (count - 1) // 2
    pairs = [(before, count - 1 - before) if i == 1 else (0, 0) for i in range(len(x.shape))]
    squares = ir.window(ir.pad(ir.mul(x, x), pairs), [(1, count, 1, 1)])
    total = ir.reduce(squares, "sum", (len(x.shape),))
    scaled = d.add(d.mul(total, call.number("alpha", 1e-4) / count), call.number("bias", 1.0))
    return d.div(x, d.power(scaled, d.scalar(call.number("beta", 0.75), x)))


@lowers("Dropout")
def dropout(call: Call, x: Node, ratio: Node | None = None,
            training: Node | None = None) -> list[Node]:
    """Inference: the identity, and a mask of trues."""
    if call.opset < 7 and not call.flag("is_test"):
        raise UnsupportedModel("is_test = 0 is not supported: export the model for inference")
    if training is not None and bool(static(training, "training_mode").any()):
        dropped = 0.5 if ratio is None else float(static_scalar(ratio, "the ratio"))
        if dropped:
            raise UnsupportedModel("training mode is not supported: export the model for inference")
    return [x, d.broadcast_to(ir.const(True), x.shape)]
