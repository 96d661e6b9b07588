"""Layers and small blocks of the stand-in networks, each with its design moments.

Inputs called `x` have a leading batch axis of 1: pictures (1, C, H, W), vectors (1, C), token
sequences (1, L, C).
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import helper

from compiled_models.standin.net import Net, Value, on_grid

# Design std before an activation, where it is not 1. At 1 the gain of GELU grows with its input,
# and through many layers a bright picture would swamp the output.
PRE_STD = {"gelu": 2.0}
# Mean and std behind an activation whose input is N(0, PRE_STD).
POST_MOMENTS = {
    "elu": (0.160, 0.787),
    "gelu": (0.714, 1.192),
    "sigmoid": (0.5, 0.208),
    "tanh": (0.0, 0.628),
}
BATCHNORM_EPSILON = 1e-3


def relu_moments(mean: float, std: float) -> tuple[float, float]:
    """Mean and std of max(z, 0) for z of N(mean, std)."""
    above = 0.5 * (1 + math.erf(mean / std / math.sqrt(2)))
    slope = std * math.exp(-0.5 * (mean / std) ** 2) / math.sqrt(2 * math.pi)
    result = mean * above + slope
    return result, math.sqrt((mean**2 + std**2) * above + mean * slope - result**2)


def activation(net: Net, x: Value, kind: str) -> Value:
    """relu, elu, sigmoid, tanh, or gelu in the spelling the options ask for."""
    mean, std = relu_moments(x.mean, x.std) if kind == "relu" else POST_MOMENTS[kind]
    if kind != "gelu":
        return net.op(kind.capitalize(), [x], x.shape, mean, std)
    if net.options.gelu == "op":
        return net.op("Gelu", [x], x.shape, mean, std, approximate="tanh")

    def mul(a: Value | str, b: Value) -> Value:
        return net.op("Mul", [a, b], x.shape, mean, std)

    if net.options.gelu == "erf":
        gate = net.op("Erf", [net.scale(x, "Div", math.sqrt(2))], x.shape)
    else:
        # The small constant takes its number before the products: names are part of the model.
        cubic = net.const(0.044715)
        inner = net.op("Add", [x, mul(cubic, mul(x, mul(x, x)))], x.shape)
        gate = net.op("Tanh", [mul(net.const(math.sqrt(2 / math.pi)), inner)], x.shape)
    half = net.const(0.5)
    return mul(half, mul(x, net.scale(gate, "Add", 1.0)))


def affine_params(net: Net, x: Value, shape: Sequence[int],
                  std: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, ...) and bias (out,) that give mean 0 and the wanted std for inputs like x."""
    fan_in = math.prod(shape[1:])
    weight = net.draw("weight", shape, std / (x.std * math.sqrt(fan_in)))
    row_sums = weight.sum(tuple(range(1, len(shape))), dtype=np.float64)  # exact on that grid
    bias = net.draw("bias", shape[:1], 0.1 * std) - x.mean * row_sums
    return weight, on_grid(bias)


def conv(net: Net, x: Value, name: str, cout: int, k: int = 1, stride: int = 1, groups: int = 1,
         act: str = "", std: float = 1.0, skip: bool = False) -> Value:
    """(1, C, H, W) -> (1, cout, ceil(H/stride), ceil(W/stride)), padded by k//2; activation.

    skip (depthwise only) adds the identity to the kernel: a RepMixer folded into one conv.
    """
    with net.scope(name):
        std = PRE_STD.get(act, std)
        weight, bias = affine_params(net, x, (cout, x.shape[1] // groups, k, k), std)
        mean = 0.0
        if skip:
            weight[:, 0, k // 2, k // 2] += 1.0
            mean, std = x.mean, math.hypot(x.std, std)
        shape = (1, cout, -(-x.shape[2] // stride), -(-x.shape[3] // stride))
        params = [] if net.options.batchnorm else [net.param("bias", bias)]
        params.insert(0, net.param("weight", on_grid(weight)))
        y = net.op("Conv", [x, *params], shape, mean, std, group=groups, kernel_shape=[k, k],
                   strides=[stride, stride], pads=[k // 2] * 4)
        if net.options.batchnorm:
            y = batchnorm(net, y, bias)
        return activation(net, y, act) if act else y


def batchnorm(net: Net, x: Value, bias: np.ndarray) -> Value:
    """BatchNormalization whose effect is adding `bias`, with plausible running statistics."""
    channels = bias.shape
    center = net.draw("running_mean", channels, 0.1)
    spread = on_grid((1 + net.draw("running_var", channels, 0.1)) ** 2)
    values = {
        "scale": np.sqrt(spread + BATCHNORM_EPSILON),
        "shift": bias + center,
        "running_mean": center,
        "running_var": spread,
    }
    params = [net.param(leaf, on_grid(value)) for leaf, value in values.items()]
    return net.op("BatchNormalization", [x, *params], x.shape, x.mean, x.std,
                  epsilon=BATCHNORM_EPSILON)


def linear(net: Net, x: Value, name: str, cout: int, act: str = "", std: float = 1.0) -> Value:
    """(1, C) -> (1, cout) as Gemm; (1, L, C) -> (1, L, cout) as MatMul and Add; activation."""
    with net.scope(name):
        std = PRE_STD.get(act, std)
        shape = (*x.shape[:-1], cout)
        weight, bias = affine_params(net, x, (cout, x.shape[-1]), std)
        flat = len(shape) == 2
        w = net.param("weight", weight if flat else weight.T)
        b = net.param("bias", bias)
        if flat:
            y = net.op("Gemm", [x, w, b], shape, 0.0, std, transB=1)
        else:
            y = net.op("Add", [net.op("MatMul", [x, w], shape), b], shape, 0.0, std)
        return activation(net, y, act) if act else y


def mlp(net: Net, x: Value, name: str, widths: Sequence[int]) -> Value:
    """Linear and ReLU for each width."""
    for i, width in enumerate(widths):
        x = linear(net, x, f"{name}/{i}", width, "relu")
    return x


def layernorm(net: Net, x: Value, name: str, spelt: bool) -> Value:
    """Normalise the last axis: one node, or the nine of exports before opset 17."""
    with net.scope(name):
        gain = net.param("scale", on_grid(1 + net.draw("scale", x.shape[-1:], 0.1)))
        bias = net.param("bias", net.draw("bias", x.shape[-1:], 0.1))
        if not spelt:
            return net.op("LayerNormalization", [x, gain, bias], x.shape, axis=-1)
        last = [len(x.shape) - 1]
        x = net.op("Sub", [x, net.reduce("ReduceMean", x, last)], x.shape)
        power = net.reduce("ReduceMean", net.scale(x, "Pow", 2.0), last)
        norm = net.op("Sqrt", [net.scale(power, "Add", 1e-5)], power.shape)
        x = net.op("Mul", [net.op("Div", [x, norm], x.shape), gain], x.shape)
        return net.op("Add", [x, bias], x.shape)


def global_pool(net: Net, x: Value) -> Value:
    """(1, C, H, W) -> (1, C), the mean over the picture; averaging leaves 0.6 of the std."""
    y = net.op("GlobalAveragePool", [x], (*x.shape[:2], 1, 1), x.mean, 0.6 * x.std)
    return net.op("Flatten", [y], x.shape[:2], y.mean, y.std)


def resblock(net: Net, x: Value, name: str, expansion: int = 2) -> Value:
    """(1, C) -> (1, C): two bottlenecks with skips and a last ReLU: four Gemm, four Relu."""
    width = x.shape[-1]
    with net.scope(name):
        y = linear(net, x, "block_a.0", expansion * width, "relu")
        x = net.add(x, linear(net, y, "block_a.3", width, std=0.6 * x.std))
        y = linear(net, activation(net, x, "relu"), "block_b.1", expansion * width, "relu")
        x = net.add(x, linear(net, y, "block_b.4", width, std=0.6 * x.std))
        return activation(net, x, "relu")


def heads(net: Net, x: Value, name: str, sizes: dict[str, tuple[int, int]],
          expansion: int = 0) -> dict[str, Value]:
    """A small residual network per head, behind a common resblock if expansion is not 0.

    sizes: head -> (hidden width, output width).
    """
    if expansion:
        x = resblock(net, x, f"{name}/resblock", expansion)
    parts = {}
    for key, (hidden, out) in sizes.items():
        with net.scope(f"{name}/{key}"):
            y = linear(net, x, "in_layer", hidden, "relu")
            z = linear(net, y, "res_layer.0", hidden, "relu")
            z = linear(net, z, "res_layer.2", hidden, std=0.6)
            y = activation(net, net.add(y, z), "relu")
            parts[key] = linear(net, y, "final_layer", out)
    return parts


def attention(net: Net, x: Value, count: int = 8) -> Value:
    """Self-attention with `count` heads and no mask: (1, L, C) -> (1, L, C)."""
    _, length, width = x.shape
    depth = width // count
    qkv = linear(net, x, "c_attn", 3 * width)
    qkv = net.reshape(qkv, 1, length, 3, count, depth)
    q = net.transpose(net.gather(qkv, 0, 2), 0, 2, 1, 3)
    k = net.transpose(net.gather(qkv, 1, 2), 0, 2, 3, 1)
    v = net.transpose(net.gather(qkv, 2, 2), 0, 2, 1, 3)
    scores = net.op("MatMul", [q, k], (1, count, length, length))
    scores = net.scale(scores, "Mul", depth**-0.5)
    shares = net.op("Softmax", [scores], scores.shape, axis=-1)
    mixed = net.op("MatMul", [shares, v], q.shape, 0.0, 0.5)
    mixed = net.transpose(mixed, 0, 2, 1, 3)
    return linear(net, net.reshape(mixed, 1, length, width), "c_proj", width)


def gru(net: Net, x: Value, state: Value) -> Value:
    """One GRU step from primitives, gates in torch's order r, z, n. (1, C), (1, H) -> (1, H)."""
    shape = state.shape

    def product(a: Value, b: Value, std: float) -> Value:
        return net.op("Mul", [a, b], shape, 0.0, std)

    with net.scope("rnn"):
        from_x = split_gates(net, linear(net, x, "ih", 3 * shape[1]), "ih")
        from_state = split_gates(net, linear(net, state, "hh", 3 * shape[1], std=0.7), "hh")
        reset = activation(net, net.add(from_x[0], from_state[0]), "sigmoid")
        update = activation(net, net.add(from_x[1], from_state[1]), "sigmoid")
        new = net.add(from_x[2], product(reset, from_state[2], 0.4))
        new = activation(net, new, "tanh")
        keep = net.op("Sub", [net.const(1.0), update], shape)
        return net.add(product(keep, new, 0.4), product(update, state, 0.3))


def split_gates(net: Net, x: Value, tag: str) -> list[Value]:
    """(1, 3 H) -> the three gates r, z, n, each (1, H)."""
    width = x.shape[1] // 3
    names = [f"rnn/split_{tag}_{gate}" for gate in "rzn"]
    sizes = net.const([width] * 3)
    node = helper.make_node("Split", [x.name, sizes], names, name=f"rnn/split_{tag}", axis=1)
    net.nodes.append(node)
    return [Value(name, (1, width), 0.0, x.std) for name in names]


