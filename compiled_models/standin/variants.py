"""Contracts that differ from those in `models` in inputs and outputs only.

name                 openpilot                     outputs
supercombo_095       0.9.5                         and a lateral solution, fed back
driving_vision_632   0.9.9                         what needs no memory, features; no road
driving_policy_5884  0.9.9, with the former        plan of 5 hypotheses, road, curvature
driving_vision_1432  July 2025                     and lane lines and road edges
driving_policy_5072  July 2025, with the former    plan, curvature, leads
driving_vision_1536  0.10.0                        and leads of 2 hypotheses
driving_policy_4968  0.10.0, with the former       plan, curvature
driving_off_policy   April and June 2026           plan and road; the first of two policies
dmonitoring_545      September 2024                one value for both eyes
dmonitoring_553      after 0.11.1                  and whether the driver sleeps

The three-file models of 2026 are driving_vision, driving_off_policy and, in the place of the
on-policy model, driving_policy, whose contract it has. Which vision layout they had is not known.
"""
from __future__ import annotations

from compiled_models.standin.layers import heads
from compiled_models.standin.models import (
    CLASSIC_ORDER,
    DRIVER_SEAT,
    FEATURE_STD,
    FEATURES,
    LINE_HEADS,
    PICTURE,
    ROAD_HEADS,
    Sizes,
    Slices,
    classic_parts,
    desired_curvature,
    finish,
    monitor,
    policy_inputs,
    summarize_past,
    vision_parts,
)
from compiled_models.standin.net import Net

OLD_PLAN: Sizes = {"plan": (256, 4955)}
OLD_LEAD: Sizes = {"lead": (512, 102), "lead_prob": (256, 3)}
DESIRE_STATE: Sizes = {"desire_state": (256, 8)}


def supercombo_095(net: Net) -> Slices:
    """0.9.5: navigation inputs, and the state of its own lateral solution."""
    imgs = [net.input(name, PICTURE) for name in ("input_imgs", "big_input_imgs")]
    desire = net.reshape(net.input("desire", (1, 100, 8), 0.1), 1, 800)
    told = [net.input(name, (1, width), 0.5) for name, width in (
        ("traffic_convention", 2), ("lat_planner_state", 4), ("nav_features", 256),
        ("nav_instructions", 150))]
    past = net.input("features_buffer", (1, 99, FEATURES), FEATURE_STD)
    solution = "lat_planner_solution"
    out, hidden, _ = classic_parts(
        net, imgs, past, desire, net.concat(told, 1), {solution: (512, 264)})
    parts = {key: out[key] for key in (*CLASSIC_ORDER, solution)}
    return finish(net, {**parts, "hidden_state": hidden}, pad=2)


def vision(net: Net, inputs: tuple[str, str], road: Sizes, pad: int) -> Slices:
    """uint8 pictures of both cameras, under the given names -> frame heads, road, features."""
    imgs = [net.input_u8(name, PICTURE) for name in inputs]
    return finish(net, vision_parts(net, net.concat(imgs, 1), road), pad=pad)


def driving_vision_632(net: Net) -> Slices:
    """0.9.9: the road is left to the policy."""
    return vision(net, ("input_imgs", "big_input_imgs"), {}, pad=3)


def driving_vision_1432(net: Net) -> Slices:
    """July 2025: leads are left to the policy."""
    return vision(net, ("img", "big_img"), LINE_HEADS, pad=3)


def driving_vision_1536(net: Net) -> Slices:
    """0.10.0: leads still have two hypotheses."""
    return vision(net, ("img", "big_img"), {**LINE_HEADS, **OLD_LEAD}, pad=2)


def policy(net: Net, sizes: Sizes, order: tuple[str, ...], pad: int) -> Slices:
    """0.9.9 to 0.10.0: features and past curvatures at 5 Hz, five hypotheses of the plan.

    order: of the outputs, which are those of `sizes` and desired_curvature.
    """
    desire = net.reshape(net.input("desire", (1, 25, 8), 0.1), 1, 200)
    traffic = net.input("traffic_convention", (1, 2), 0.7)
    params = net.input("lateral_control_params", (1, 2))
    curvature = net.input("prev_desired_curv", (1, 25, 1))
    features = net.input("features_buffer", (1, 25, FEATURES), FEATURE_STD)
    summary = summarize_past(net, features, desire, traffic)
    out = heads(net, summary, "temporal_hydra", sizes, 3)
    out["desired_curvature"] = desired_curvature(net, summary, params, curvature)
    return finish(net, {key: out[key] for key in order}, pad=pad)


def driving_policy_5884(net: Net) -> Slices:
    """0.9.9."""
    sizes = {**OLD_PLAN, **LINE_HEADS, **OLD_LEAD, **DESIRE_STATE, "sim_pose": (256, 12)}
    return policy(net, sizes, (*sizes, "desired_curvature"), pad=2)


def driving_policy_5072(net: Net) -> Slices:
    """July 2025."""
    order = ("plan", "desire_state", "desired_curvature", "lead", "lead_prob")
    return policy(net, {**OLD_PLAN, **DESIRE_STATE, **OLD_LEAD}, order, pad=2)


def driving_policy_4968(net: Net) -> Slices:
    """0.10.0; the daemons of that age fed prev_desired_curv with zeros."""
    order = ("plan", "desire_state", "desired_curvature")
    return policy(net, {**OLD_PLAN, **DESIRE_STATE}, order, pad=3)


def driving_off_policy(net: Net) -> Slices:
    """April and June 2026: what the road is like, and a plan that the on-policy one replaces."""
    features, desire, traffic = policy_inputs(net, 25)
    with net.scope("off_policy"):
        summary = summarize_past(net, features, desire, traffic)
        out = heads(net, summary, "temporal_hydra", {"plan": (256, 990), **ROAD_HEADS}, 2)
    return finish(net, out, pad=3)


def dmonitoring_545(net: Net) -> Slices:
    """September 2024."""
    return monitor(net, ("face_descs", "face_prob", "eyes_visible_prob", "eyes_closed_prob",
                         "using_phone_prob"))


def dmonitoring_553(net: Net) -> Slices:
    """2026."""
    return monitor(net, (*DRIVER_SEAT, "sleep_prob"))
