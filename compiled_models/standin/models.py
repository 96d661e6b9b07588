"""The contracts of seven openpilot models: inputs, layers, output slices, metadata.

name                         openpilot               network
supercombo_08                <= 0.8.13, N 6472       EfficientNet-B2 without SE, ELU, GRU state
supercombo_097               0.9.7, N 6504           FastViT-T12, attention over 10 tokens
driving_vision               0.10.1-0.11.1, N 1576   FastViT-T12, uint8 pictures
driving_policy               same, N 1000            attention over 25 features
driving_supercombo           0.11.2, N 2576          the two above in one graph
driving_supercombo_stateful  after 0.11.2, N 2576    the same with its queues in the graph
dmonitoring                  0.10.3, N 551           MobileNetV4-Conv-Small, tanh GELU

`variants` has the contracts that differ from these in their borders only.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from compiled_models.standin.backbones import (
    efficientnet_b2,
    fastvit_t12,
    mobilenet_v4_small,
    pixels,
)
from compiled_models.standin.layers import (
    activation,
    attention,
    gru,
    heads,
    layernorm,
    linear,
    mlp,
    resblock,
)
from compiled_models.standin.net import Net, Value

FEATURES = 512  # width of hidden_state
FEATURE_STD = 1 / math.sqrt(FEATURES)  # of the elements of a vector of norm 1
FRAME_SKIP = 4  # 20 Hz runs per 5 Hz context step
TOKEN_STEP = 3  # of the features at 5 Hz every third becomes a token: 8 past ones and the current
PICTURE = (1, 12, 128, 256)  # two frames of six half-size planes
# Heads that look at the current pictures alone: (hidden width, output width).
FRAME_HEADS = {
    "desire_pred": (256, 32),
    "pose": (256, 12),
    "wide_from_device_euler": (256, 6),
    "road_transform": (256, 12),
}
LINE_HEADS = {"lane_lines": (512, 528), "lane_lines_prob": (384, 8), "road_edges": (512, 264)}
ROAD_HEADS = {**LINE_HEADS, "lead": (512, 144), "lead_prob": (256, 3)}
Slices = dict[str, slice]
Sizes = dict[str, tuple[int, int]]  # head -> (hidden width, output width)


def finish(net: Net, parts: dict[str, Value], pad: int | None = None,
           open_end: bool = False) -> Slices:
    """Join the parts to `outputs` (1, N), padded with zeros; returns where each part lies.

    As in real files the padding is slice(-pad, None), hence slice(0, None) if pad is 0, and the
    last slice of 0.9.7 has no end (`open_end`).
    """
    slices: Slices = {}
    at = 0
    for key, x in parts.items():
        slices[key] = slice(at, at + x.shape[1])
        at += x.shape[1]
    if open_end:
        last = [*parts][-1]
        slices[last] = slice(slices[last].start, None)
    joined = [*parts.values()]
    if pad is not None:
        slices["pad"] = slice(-pad, None)
    if pad:
        joined.append(Value(net.const(np.zeros((1, pad), np.float32)), (1, pad)))
    net.output("outputs", net.concat(joined, 1))
    return slices


def summarize(net: Net, vision: Value) -> Value:
    """(1, 2048) -> hidden_state (1, 512) of Euclidean norm 1."""
    x = mlp(net, vision, "summarizer/in_layer", [FEATURES])
    x = resblock(net, x, "summarizer/resblock")
    x = linear(net, x, "summarizer/_mu", FEATURES)
    length = net.reduce("ReduceL2", x, [1])
    length = net.op("Clip", [length, net.const(1e-3)], (1, 1))
    return net.op("Div", [x, length], x.shape, 0.0, FEATURE_STD)


def command_token(net: Net, desire: Value, traffic: Value) -> Value:
    """Desire (1, D) and traffic convention (1, 2) -> a token (1, 1, 512) as large as a feature."""
    x = mlp(net, net.concat([desire, traffic], 1), "desire_embed", [FEATURES] * 3)
    x = linear(net, x, "desire_embed/3", FEATURES, "relu", 1.7 * FEATURE_STD)
    return net.reshape(x, 1, 1, FEATURES)


def temporal(net: Net, tokens: Value, feed_forward: str, spelt_norm: bool) -> Value:
    """Embed the tokens, one transformer block, sum over tokens: (1, L, 512) -> (1, 512).

    feed_forward: activation of its hidden layer. spelt_norm: LayerNorm as elementary nodes.
    """
    with net.scope("temporal"):
        x = linear(net, tokens, "_encode", FEATURES, "relu")
        place = net.param("position", net.draw("position", x.shape, 0.3))
        x = net.op("Add", [x, place], x.shape, x.mean, math.hypot(x.std, 0.3))
        with net.scope("_attention"):
            x = net.add(x, attention(net, layernorm(net, x, "ln", spelt_norm)))
        with net.scope("_mlp"):
            y = layernorm(net, x, "ln", spelt_norm)
            y = linear(net, y, "c_fc", 4 * FEATURES, feed_forward)
            x = net.add(x, linear(net, y, "c_proj", FEATURES))
        total = net.reduce("ReduceSum", x, [1], keep=False, std=9.0)
        return total._replace(mean=4.0)


def supercombo_08(net: Net) -> Slices:
    """0.8.x: one camera, GRU state (initial_state in, outputs[:, 5960:] out).

    Files of that age had no metadata. The slices given here are the offsets then in the code, with
    the 80 wide `meta` (48 and desire_pred 32).
    """
    img = net.input("input_imgs", PICTURE)
    desire = net.input("desire", (1, 8), 0.3)
    traffic = net.input("traffic_convention", (1, 2), 0.7)
    state = net.input("initial_state", (1, FEATURES), 0.5)
    with net.scope("vision"):
        seen = efficientnet_b2(net, pixels(net, img))
    x = activation(net, net.concat([seen, desire, traffic], 1), "elu")
    x = mlp(net, x, "summarizer", [1024])
    hidden = gru(net, x, state)
    x = mlp(net, net.concat([hidden, x], 1), "temporal", [1024])
    out = heads(net, x, "temporal_policy", {
        "plan": (256, 4955),
        **{f"lane_{i}": (32, 132) for i in range(4)},
        **{f"edge_{i}": (16, 132) for i in range(2)},
        "lane_lines_prob": (16, 8),
        "lead": (64, 102),
        "lead_prob": (16, 3),
        "desire_state": (32, 8),
    })
    x = mlp(net, activation(net, seen, "elu"), "frame_policy/in_layer", [1024])
    out |= heads(net, x, "frame_policy", {
        "meta": (64, 48),
        "desire_pred": (32, 32),
        "pose": (32, 12),
    })
    out["lane_lines"] = join_lines(net, [out[f"lane_{i}"] for i in range(4)])
    out["road_edges"] = join_lines(net, [out[f"edge_{i}"] for i in range(2)])
    out["meta"] = net.concat([out["meta"], out["desire_pred"]], 1)
    order = ("plan", "lane_lines", "lane_lines_prob", "road_edges", "lead", "lead_prob",
             "desire_state", "meta", "pose")
    return finish(net, {**{key: out[key] for key in order}, "hidden_state": hidden})


def join_lines(net: Net, lines: list[Value]) -> Value:
    """Lines, each (1, 132) means then stds -> (1, 132 n): all means, then all stds."""
    halves = [net.reshape(line, 1, 2, 66) for line in lines]
    return net.reshape(net.concat(halves, 2), 1, 132 * len(lines))


def supercombo_097(net: Net) -> Slices:
    """0.9.7: both cameras, 99 past features at 20 Hz, no navigation inputs (gone since April 2024).

    Behind the encoder it has 82 Gemm and 67 Relu, as counted in the real file. Uncertain: which 8
    past features it reads, what the tenth token is, the activation of the feed-forward layer.
    """
    imgs = [net.input(name, PICTURE) for name in ("input_imgs", "big_input_imgs")]
    desire = net.reshape(net.input("desire", (1, 100, 8), 0.1), 1, 800)
    traffic = net.input("traffic_convention", (1, 2), 0.7)
    params = net.input("lateral_control_params", (1, 2))
    curvature = net.input("prev_desired_curv", (1, 100, 1))
    past = net.input("features_buffer", (1, 99, FEATURES), FEATURE_STD)
    out, hidden, summary = classic_parts(net, imgs, past, desire, traffic, {})
    out["desired_curvature"] = desired_curvature(net, summary, params, curvature)
    order = (*CLASSIC_ORDER, "desired_curvature")
    return finish(net, {**{key: out[key] for key in order}, "hidden_state": hidden},
                  open_end=True)


CLASSIC_ORDER = (
    "plan", "lane_lines", "lane_lines_prob", "road_edges", "lead", "lead_prob", "desire_state",
    "meta", "desire_pred", "pose", "wide_from_device_euler", "sim_pose", "road_transform")


def classic_parts(
    net: Net, imgs: list[Value], past: Value, desire: Value, told: Value, more: Sizes,
) -> tuple[dict[str, Value], Value, Value]:
    """Outputs by name, features (1, 512) and summary (1, 512) of the single files of 2023 and 2024.

    imgs: pictures of both cameras. past: features (1, 99, 512). desire: (1, 800). told: what else
    is known, (1, n). more: heads beside those that all have.
    """
    with net.scope("vision"):
        vision = fastvit_t12(net, pixels(net, net.concat(imgs, 1)))
    hidden = summarize(net, vision)
    x = mlp(net, vision, "hydra/in_layer", [FEATURES])
    out = heads(net, x, "hydra", {"meta": (256, 48), **FRAME_HEADS}, 3)

    ages = [TOKEN_STEP * FRAME_SKIP * i for i in range(8, 0, -1)]  # runs before the current one
    past = net.gather(past, [99 - age for age in ages], 1)
    current = net.op("Unsqueeze", [hidden, net.const([1])], (1, 1, FEATURES), 0.0, FEATURE_STD)
    tokens = net.concat([past, current, command_token(net, desire, told)], 1)
    summary = temporal(net, tokens, "elu", spelt_norm=True)
    out |= heads(net, summary, "temporal_hydra", {
        "plan": (256, 4955),
        "lane_lines": (512, 528),
        "lane_lines_prob": (256, 8),
        "road_edges": (512, 264),
        "lead": (512, 102),
        "lead_prob": (256, 3),
        "desire_state": (256, 8),
        "sim_pose": (256, 12),
        **more,
    }, 3)
    return out, hidden, summary


def desired_curvature(net: Net, summary: Value, params: Value, past: Value) -> Value:
    """Mean and log-std (1, 2) from summary (1, 512), lateral params (1, 2), past ones (1, L, 1)."""
    with net.scope("action_block"):
        last = net.gather(past, past.shape[1] - 1, 1)
        x = mlp(net, net.concat([summary, params, last], 1), "in_layer", [128])
        x = resblock(net, resblock(net, x, "resblocks.0"), "resblocks.1")
        x = linear(net, x, "out", 2)
        x = net.op("Clip", [x, net.const(-10.0), net.const(10.0)], x.shape)
        return net.scale(x, "Mul", [0.5, 1.0])


def vision_parts(net: Net, raw: Value, road: Sizes) -> dict[str, Value]:
    """uint8 (1, 24, 128, 256), narrow camera first -> the parts of a vision model.

    road: heads that look at the road, beside those that every model has.
    """
    with net.scope("vision"):
        vision = fastvit_t12(net, pixels(net, net.cast(raw)))
    x = mlp(net, vision, "hydra/in_layer", [FEATURES])
    out = heads(net, x, "hydra", {"meta": (256, 55), **FRAME_HEADS}, 2)
    if road:
        x = mlp(net, vision, "road_hydra/in_layer", [FEATURES])
        out |= heads(net, x, "road_hydra", road, 2)
    return out | {"hidden_state": summarize(net, vision)}


def summarize_past(net: Net, features: Value, desire: Value, traffic: Value) -> Value:
    """features (1, 25, 512), desire (1, 200), traffic (1, 2) -> (1, 512)."""
    tokens = net.gather(features, range(0, 25, TOKEN_STEP), 1)
    tokens = net.concat([tokens, command_token(net, desire, traffic)], 1)
    return temporal(net, tokens, "gelu", spelt_norm=False)


def policy_parts(net: Net, features: Value, desire: Value, traffic: Value) -> dict[str, Value]:
    """features (1, 25, 512), desire (1, 200), traffic (1, 2) -> the parts of driving_policy."""
    x = summarize_past(net, features, desire, traffic)
    return heads(net, x, "temporal_hydra", {"plan": (256, 990), "desire_state": (128, 8)}, 2)


def policy_inputs(net: Net, length: int) -> tuple[Value, Value, Value]:
    """features_buffer (1, length, 512), desire_pulse as (1, 200), traffic_convention (1, 2)."""
    desire = net.reshape(net.input("desire_pulse", (1, 25, 8), 0.1), 1, 200)
    traffic = net.input("traffic_convention", (1, 2), 0.7)
    features = net.input("features_buffer", (1, length, FEATURES), FEATURE_STD)
    return features, desire, traffic


def driving_vision(net: Net) -> Slices:
    """0.10.1 to 0.11.1: pictures -> everything that needs no memory, and hidden_state."""
    imgs = [net.input_u8(name, PICTURE) for name in ("img", "big_img")]
    return finish(net, vision_parts(net, net.concat(imgs, 1), ROAD_HEADS), pad=0)


def driving_policy(net: Net) -> Slices:
    """0.10.1 to 0.11.1: the newest of the 25 features is that of the current frame."""
    features, desire, traffic = policy_inputs(net, 25)
    return finish(net, policy_parts(net, features, desire, traffic), pad=2)


def driving_supercombo(net: Net) -> Slices:
    """0.11.2: 24 past features come in, the graph appends the current one; action_t is not read."""
    imgs = [net.input_u8(name, PICTURE) for name in ("img", "big_img")]
    past, desire, traffic = policy_inputs(net, 24)
    net.input("action_t", (1, 2))
    parts = vision_parts(net, net.concat(imgs, 1), ROAD_HEADS)
    current = net.reshape(parts["hidden_state"], 1, 1, FEATURES)
    features = net.concat([past, current], 1)
    return finish(net, parts | policy_parts(net, features, desire, traffic), pad=2)


def driving_supercombo_stateful(net: Net) -> Slices:
    """After 0.11.2: one new frame per run, next_state_x comes back as state_x in the next one.

    Uncertain for the small model: the lengths of its queues (100 and 96 here, from the size of the
    state), its slices (those of 0.11.2 here), whether the older picture is 4 runs back (here) or 1
    (readers of the big graph disagree), and whether it reads action_t.
    """
    new = net.input_u8("new_img", (2, 6, 128, 256))
    desire = net.input("desire", (8,), 0.1)
    traffic = net.input("traffic_convention", (1, 2), 0.7)
    net.input("action_t", (1, 2))
    images = net.input_u8("state_img_q", (2, FRAME_SKIP + 1, 6, 128, 256))
    pulses = net.input("state_desire_q", (25 * FRAME_SKIP, 1, 8), 0.1)
    past = net.input("state_feat_q", (24 * FRAME_SKIP, 1, FEATURES), FEATURE_STD)

    # Shift each queue by one and append: the pictures and the desire now, the features at the end.
    images = net.concat([net.slice(images, 1, 1), net.reshape(new, 2, 1, 6, 128, 256)], 1)
    pulses = net.concat([net.slice(pulses, 1, 0), net.reshape(desire, 1, 1, 8)], 0)
    windows = net.reshape(pulses, 25, FRAME_SKIP, 8)
    windows = net.reduce("ReduceMax", windows, [1], keep=False, std=0.1)
    pair = net.gather(images, [0, FRAME_SKIP], 1)
    parts = vision_parts(net, net.reshape(pair, 1, 24, 128, 256), ROAD_HEADS)
    current = net.reshape(parts["hidden_state"], 1, 1, FEATURES)
    features = net.concat([net.slice(past, 0, 0, FRAME_SKIP), current], 0)
    features = net.reshape(features, 1, 25, FEATURES)
    parts |= policy_parts(net, features, net.reshape(windows, 1, 200), traffic)
    slices = finish(net, parts, pad=2)
    net.output("next_state_img_q", images, TensorProto.UINT8)
    net.output("next_state_desire_q", pulses)
    net.output("next_state_feat_q", net.concat([net.slice(past, 1, 0), current], 0))
    return slices


DRIVER_SEAT = (
    "face_descs", "face_prob", "left_eye_prob", "right_eye_prob", "sunglasses_prob",
    "left_blink_prob", "right_blink_prob", "using_phone_prob",
)


def dmonitoring(net: Net) -> Slices:
    """Driver monitoring of 0.10.3."""
    return monitor(net, DRIVER_SEAT)


def monitor(net: Net, seat: Sequence[str]) -> Slices:
    """Driver monitoring: the 960x1440 luma picture as one row, and the calibration.

    seat: outputs of each of the two seats, face_descs is 12 wide, the others 1.

    Known: 8x12 cells of 128 channels enter a 1x1 to 960, tanh GELU and the mean, which is how
    MobileNetV4-Conv-Small ends on a quarter of the resolution. How the picture is quartered (space
    to depth here) and what follows the pooling are guesses that fit the sizes of two real files.
    """
    luma = net.input_u8("input_img", (1, 960 * 1440))
    calib = net.input_f32("calib", (1, 3), 0.1)
    with net.scope("vision"):
        x = net.reshape(net.cast(luma), 1, 240, 4, 360, 4)
        x = net.transpose(x, 0, 2, 4, 1, 3)
        x = net.reshape(x, 1, 16, 240, 360)
        x = mobilenet_v4_small(net, pixels(net, x))
        x = linear(net, x, "conv_head", 1280, "gelu")
    x = mlp(net, net.concat([x, calib], 1), "summarizer", [FEATURES])
    y = linear(net, x, "res_layer.0", FEATURES, "relu")
    y = linear(net, y, "res_layer.2", FEATURES, std=0.6)
    x = activation(net, net.add(x, y), "relu")
    sides = [f"{key}_{side}" for side in ("lhd", "rhd") for key in seat]
    out = {}
    for key in [*sides, "wheel_on_right"]:
        out[key] = linear(net, x, f"heads/{key}", 12 if "descs" in key else 1)
    return finish(net, {**out, "features": x})
