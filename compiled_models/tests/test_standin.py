"""The stand-in models: recorded digests, the contracts, and that three graphs give one answer."""
import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from compiled_models.standin import MODELS, UNTRAINED, VARIANTS, Options, build
from tinynn.onnx.reader import import_model

Models = dict[str, onnx.ModelProto]
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "models"

OLD_POLICY = {
    "desire": ("float32", (1, 25, 8)), "traffic_convention": ("float32", (1, 2)),
    "lateral_control_params": ("float32", (1, 2)), "prev_desired_curv": ("float32", (1, 25, 1)),
    "features_buffer": ("float32", (1, 25, 512))}
# name -> width of `outputs`, and input -> (element type, shape).
CONTRACTS = {
    "supercombo_08": (6472, {
        "input_imgs": ("float32", (1, 12, 128, 256)), "desire": ("float32", (1, 8)),
        "traffic_convention": ("float32", (1, 2)), "initial_state": ("float32", (1, 512))}),
    "supercombo_097": (6504, {
        "input_imgs": ("float32", (1, 12, 128, 256)),
        "big_input_imgs": ("float32", (1, 12, 128, 256)), "desire": ("float32", (1, 100, 8)),
        "traffic_convention": ("float32", (1, 2)), "lateral_control_params": ("float32", (1, 2)),
        "prev_desired_curv": ("float32", (1, 100, 1)),
        "features_buffer": ("float32", (1, 99, 512))}),
    "driving_vision": (1576, {
        "img": ("uint8", (1, 12, 128, 256)), "big_img": ("uint8", (1, 12, 128, 256))}),
    "driving_policy": (1000, {
        "desire_pulse": ("float32", (1, 25, 8)), "traffic_convention": ("float32", (1, 2)),
        "features_buffer": ("float32", (1, 25, 512))}),
    "driving_supercombo": (2576, {
        "img": ("uint8", (1, 12, 128, 256)), "big_img": ("uint8", (1, 12, 128, 256)),
        "desire_pulse": ("float32", (1, 25, 8)), "traffic_convention": ("float32", (1, 2)),
        "features_buffer": ("float32", (1, 24, 512)), "action_t": ("float32", (1, 2))}),
    "driving_supercombo_stateful": (2576, {
        "new_img": ("uint8", (2, 6, 128, 256)), "desire": ("float32", (8,)),
        "traffic_convention": ("float32", (1, 2)), "action_t": ("float32", (1, 2)),
        "state_img_q": ("uint8", (2, 5, 6, 128, 256)), "state_desire_q": ("float32", (100, 1, 8)),
        "state_feat_q": ("float32", (96, 1, 512))}),
    "dmonitoring": (551, {
        "input_img": ("uint8", (1, 1382400)), "calib": ("float32", (1, 3))}),
    "supercombo_095": (6768, {
        "input_imgs": ("float32", (1, 12, 128, 256)),
        "big_input_imgs": ("float32", (1, 12, 128, 256)), "desire": ("float32", (1, 100, 8)),
        "traffic_convention": ("float32", (1, 2)), "lat_planner_state": ("float32", (1, 4)),
        "nav_features": ("float32", (1, 256)), "nav_instructions": ("float32", (1, 150)),
        "features_buffer": ("float32", (1, 99, 512))}),
    "driving_vision_632": (632, {
        "input_imgs": ("uint8", (1, 12, 128, 256)),
        "big_input_imgs": ("uint8", (1, 12, 128, 256))}),
    "driving_policy_5884": (5884, OLD_POLICY),
    "driving_vision_1432": (1432, {
        "img": ("uint8", (1, 12, 128, 256)), "big_img": ("uint8", (1, 12, 128, 256))}),
    "driving_policy_5072": (5072, OLD_POLICY),
    "driving_vision_1536": (1536, {
        "img": ("uint8", (1, 12, 128, 256)), "big_img": ("uint8", (1, 12, 128, 256))}),
    "driving_policy_4968": (4968, OLD_POLICY),
    "driving_off_policy": (1940, {
        "desire_pulse": ("float32", (1, 25, 8)), "traffic_convention": ("float32", (1, 2)),
        "features_buffer": ("float32", (1, 25, 512))}),
    "dmonitoring_545": (545, {
        "input_img": ("uint8", (1, 1382400)), "calib": ("float32", (1, 3))}),
    "dmonitoring_553": (553, {
        "input_img": ("uint8", (1, 1382400)), "calib": ("float32", (1, 3))}),
}

# Where real files of these generations have their outputs: name -> end of each.
ENDS = {
    "supercombo_095": {
        "plan": 4955, "lane_lines": 5483, "lane_lines_prob": 5491, "road_edges": 5755,
        "lead": 5857, "lead_prob": 5860, "desire_state": 5868, "meta": 5916, "desire_pred": 5948,
        "pose": 5960, "wide_from_device_euler": 5966, "sim_pose": 5978, "road_transform": 5990,
        "lat_planner_solution": 6254, "hidden_state": 6766},
    "driving_vision_632": {
        "meta": 55, "desire_pred": 87, "pose": 99, "wide_from_device_euler": 105,
        "road_transform": 117, "hidden_state": 629},
    "driving_vision_1432": {
        "road_transform": 117, "lane_lines": 645, "lane_lines_prob": 653, "road_edges": 917,
        "hidden_state": 1429},
    "driving_vision_1536": {
        "road_edges": 917, "lead": 1019, "lead_prob": 1022, "hidden_state": 1534},
    "driving_policy_5884": {
        "plan": 4955, "lane_lines": 5483, "lane_lines_prob": 5491, "road_edges": 5755,
        "lead": 5857, "lead_prob": 5860, "desire_state": 5868, "sim_pose": 5880,
        "desired_curvature": 5882},
    "driving_policy_5072": {
        "plan": 4955, "desire_state": 4963, "desired_curvature": 4965, "lead": 5067,
        "lead_prob": 5070},
    "driving_policy_4968": {"plan": 4955, "desire_state": 4963, "desired_curvature": 4965},
    "driving_off_policy": {
        "plan": 990, "lane_lines": 1518, "lane_lines_prob": 1526, "road_edges": 1790,
        "lead": 1934, "lead_prob": 1937},
    "dmonitoring_545": {"wheel_on_right": 33, "features": 545},
    "dmonitoring_553": {
        "sleep_prob_lhd": 20, "sleep_prob_rhd": 40, "wheel_on_right": 41, "features": 553},
}

# (name, options, digest of nodes and parameters); they must never change.
DIGESTS = [
    ("supercombo_08", {}, "e41118b3a6a47493"),
    ("supercombo_097", {}, "f5776b42f82b0232"),
    ("driving_vision", {}, "03092cabf022521b"),
    ("driving_policy", {}, "bc4aaf90f07734a5"),
    ("driving_supercombo", {}, "5ffc49e74e839b35"),
    ("driving_supercombo_stateful", {}, "7f4b29f27f147766"),
    ("dmonitoring", {}, "cf85360fedd8636e"),
    ("driving_policy", {"seed": 1}, "ca16af77194583cf"),
    ("driving_policy", {"weights": "f32"}, "2fec38a9efbb7cb7"),
    ("driving_policy", {"compute": "f16"}, "516274857297e6f5"),
    ("driving_policy", {"gelu": "erf"}, "5086beeb15d53eec"),
    ("driving_policy", {"gelu": "op"}, "da0e06ceba6fe487"),
    ("dmonitoring", {"compute": "f16"}, "3a1af4a79fd39526"),
    ("dmonitoring", {"gelu": "op"}, "b1d7f20888e62e3d"),
    ("supercombo_08", {"batchnorm": True}, "fd993702899b021b"),
]


def digest(model: onnx.ModelProto) -> str:
    """Of names, operators, attributes and edges of all nodes, and of all initialisers."""
    state = hashlib.sha256()
    for node in model.graph.node:
        state.update(f"{node.name} {node.op_type} {list(node.input)} {list(node.output)}".encode())
        for attribute in sorted(node.attribute, key=lambda item: item.name):
            value = onnx.helper.get_attribute_value(attribute)
            if not isinstance(value, bytes | int | float):
                value = list(value)
            state.update(f"{attribute.name}={value!r}".encode())
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        state.update(f"{tensor.name} {array.dtype} {array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()[:16]


def declared(infos: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """name -> (element type, shape) of graph inputs or outputs."""
    return {
        info.name: (
            str(onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)),
            tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim),
        )
        for info in infos
    }


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options,
                                providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("name", "options", "expected"), DIGESTS)
def test_graph_and_weights_never_change(name: str, options: dict[str, Any], expected: str) -> None:
    assert digest(build(name, Options(**options))) == expected


@pytest.mark.shared
@pytest.mark.parametrize("options", [{"seed": 3, "gelu": "op"}], ids=str)
def test_graphs_equal_those_of_the_reference_generator(options: dict[str, Any]) -> None:
    path = SHARED / "make_driving_models.py"
    if not path.exists():
        pytest.skip("the reference generator does not lie beside the project")
    spec = importlib.util.spec_from_file_location("make_driving_models", path)
    assert spec is not None and spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = reference  # dataclasses look their module up
    try:
        spec.loader.exec_module(reference)
        for name in MODELS:
            theirs = reference.build(name, reference.Options(**options))
            ours = build(name, Options(**options))
            assert ours.graph == theirs.graph, name
            assert ours.opset_import == theirs.opset_import
    finally:
        del sys.modules[spec.name]


@pytest.fixture(scope="module")
def models() -> Models:
    return {name: build(name) for name in MODELS | VARIANTS}


@pytest.mark.parametrize("name", CONTRACTS)
def test_contract(models: Models, name: str) -> None:
    width, inputs = CONTRACTS[name]
    graph = models[name].graph
    assert declared(graph.input) == inputs
    assert declared(graph.output)["outputs"] == ("float32", (1, width))


@pytest.mark.parametrize("name", ENDS)
def test_outputs_lie_where_real_models_have_them(models: Models, name: str) -> None:
    slices = import_model(models[name]).metadata["output_slices"]
    assert {key: slices[key][1] for key in ENDS[name]} == ENDS[name]


def test_states_of_the_stateful_model_come_back_in_the_same_shape(models: Models) -> None:
    graph = models["driving_supercombo_stateful"].graph
    inputs, outputs = declared(graph.input), declared(graph.output)
    states = [name for name in inputs if name.startswith("state_")]
    assert len(states) == 3
    for name in states:
        assert outputs[f"next_{name}"] == inputs[name]


@pytest.mark.parametrize("name", CONTRACTS)
def test_metadata_says_untrained_and_slices_tile_the_output(models: Models, name: str) -> None:
    width = CONTRACTS[name][0]
    metadata = {item.key: item.value for item in models[name].metadata_props}
    assert metadata["training"] == UNTRAINED
    assert "random weights" in UNTRAINED
    assert metadata["model_checkpoint"].endswith("/0")
    # Decoded by the compiler's own restricted reader.
    slices = import_model(models[name]).metadata["output_slices"]
    spans = sorted(slice(*bounds).indices(width)[:2] for key, bounds in slices.items()
                   if key != "pad")
    starts, ends = zip(*spans, strict=True)
    assert starts == (0, *ends[:-1])
    padding = -(slices.get("pad", [0])[0] or 0)
    assert ends[-1] == width - padding


def test_storage_of_the_weights_does_not_change_the_result() -> None:
    random = np.random.RandomState(0)
    feed = policy_inputs(random)
    half, full = (session(build("driving_policy", Options(weights=kind))).run(None, feed)[0]
                  for kind in ("f16", "f32"))
    assert np.array_equal(half, full)


def policy_inputs(random: np.random.RandomState) -> dict[str, np.ndarray]:
    features = random.standard_normal((1, 25, 512)).astype(np.float32)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    pulse = np.zeros((1, 25, 8), np.float32)
    pulse[0, 20, 3] = 1
    return {"features_buffer": features, "desire_pulse": pulse,
            "traffic_convention": np.array([[1, 0]], np.float32)}


def test_supercombo_is_the_policy_behind_the_vision(models: Models) -> None:
    random = np.random.RandomState(1)
    pictures = {name: random.randint(0, 256, (1, 12, 128, 256)).astype(np.uint8)
                for name in ("img", "big_img")}
    policy_feed = policy_inputs(random)
    seen = session(models["driving_vision"]).run(None, pictures)[0]
    hidden = seen[:, 1576 - 512 :]
    assert np.linalg.norm(hidden) == pytest.approx(1, abs=1e-4)
    past = policy_feed["features_buffer"][:, 1:]
    policy_feed["features_buffer"] = np.concatenate([past, hidden[:, None]], axis=1)
    planned = session(models["driving_policy"]).run(None, policy_feed)[0]
    together = session(models["driving_supercombo"]).run(None, {
        **pictures, **policy_feed, "features_buffer": past,
        "action_t": np.zeros((1, 2), np.float32)})[0]
    assert np.array_equal(together, np.concatenate([seen, planned], axis=1))
    assert np.isfinite(together).all()
    assert 0.3 < together.std() < 3


def test_other_seeds_give_other_weights_and_f16_arithmetic_other_types() -> None:
    one, other = (build("driving_policy", Options(seed=seed)) for seed in (0, 1))
    assert digest(one) != digest(other)
    half = declared(build("driving_policy", Options(compute="f16")).graph.input)
    assert {kind for kind, _ in half.values()} == {"float16"}


def test_builds_are_byte_identical() -> None:
    one, same = (build("driving_policy").SerializeToString() for _ in range(2))
    assert one == same


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no stand-in model 'nope'; known are: supercombo_08"):
        build("nope")
    with pytest.raises(ValueError, match=r"weights must be one of f16, f32; got 'f64'"):
        Options(weights="f64")
    with pytest.raises(ValueError, match="seed must be an integer"):
        Options(seed=1.5)  # type: ignore[arg-type]
