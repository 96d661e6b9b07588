"""Camera to outputs as one program: warp, packing, history and network in a single graph.

`compose` puts what modeld otherwise does on the host around the files of a driving model: NV12
frames come in as they lie in camera memory, with the matrices that warp them; queues are state of
the program. Size, stride and chroma offset of a frame are inputs too, so one artifact serves any
camera. What a model is fed with is read from `modeld.contract`, which knows all generations.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeld.camera_program import CAMERAS, KEY, WARP_SHAPE
from modeld.constants import DESIRE_LEN, MODEL_HEIGHT, MODEL_WIDTH, PICTURE_SHAPE
from modeld.contract import Feed, describe
from modeld.contract import Graph as Fed
from tinynn import Tensor, ir
from tinynn.ir import DType, Graph
from tinynn.program import TensorSpec

FRAME_BYTES = 4 << 20  # room for NV12 frames up to 1928 x 1208 with padded rows
GEOMETRY = ("width", "height", "stride", "chroma_offset")
SAMPLINGS = ("nearest", "bilinear")
_FIXED_ONE = 32.0  # bilinear positions have five fractional bits
_FAR = float(1 << 20)  # positions beyond this are far outside any picture


class ComposeError(ValueError):
    """The graphs cannot be put together; the message says which and why."""


@dataclass(frozen=True)
class Frame:
    """A camera frame inside the program.

    data: (FRAME_BYTES,) u8, NV12. geometry: (4,) i32, as GEOMETRY names it; width and height in
    luma pixels, stride in bytes, chroma_offset in bytes from the start. warp: (2, 3, 3) f32, model
    pixel -> camera pixel, of the luma plane and of the chroma planes (`modeld.warp.chroma_matrix`).
    """

    data: Tensor
    geometry: Tensor
    warp: Tensor


def compose(graphs: Sequence[Graph], sampling: str = "nearest",
            frame_bytes: int = FRAME_BYTES) -> Graph:
    """One graph from camera frames to `outputs`.

    graphs: in the order in which they run: one model; vision and policy; or vision, off-policy and
    on-policy, as `tinynn.onnx.reader.import_model` gives them.
    sampling: how the warp picks pixels, see `modeld.warp`. frame_bytes: capacity of a frame input.

    Inputs: for both cameras NAME_frame (frame_bytes,) u8, NAME_geometry (4,) i32, NAME_warp
    (2, 3, 3) f32 with NAME "main" and "extra"; desire (8,) f32 one-hot as long as the wish lasts;
    and the vectors the model has, such as traffic_convention (2,) f32. Output: the outputs of all
    graphs one behind the other, (n,) f32. The queues are state and start as zeros.

    Raises ComposeError, and modeld.contract.ContractError for a model it does not know.
    """
    if sampling not in SAMPLINGS:
        raise ComposeError(f"sampling is {sampling!r} and must be one of {', '.join(SAMPLINGS)}.")
    for graph in graphs:
        if graph.state:
            raise ComposeError(f"{graph.name} keeps state by itself ({', '.join(graph.state)}); "
                               "compose needs the plain model.")
    contract = describe(*(_Bordered(graph) for graph in _as_described(graphs)))
    if "lat_planner_state" in contract.queues:
        raise ComposeError("models of 0.9.5, with lat_planner_state, run with their queues on the "
                           "host only; leave [camera] out of the recipe.")
    program = _Program(frame_bytes)
    history = {name: program.state(f"queue_{name}", (spec.length, *spec.shape), spec.dtype)
               for name, spec in contract.queues.items()}
    before = dict(history)
    for name in [*CAMERAS, "desire", *_vectors(contract.queues)]:
        if name in history:
            row = program.row(name, history[name].shape[1:], sampling)
            history[name] = _pushed(history[name], row)
    outputs, slices, length = [], {}, 0
    for graph, fed in zip(graphs, contract.graphs, strict=True):
        results = _inlined(graph, fed, history)
        flat = results["outputs"].cast("f32").flatten()
        outputs.append(flat)
        named = {name: flat[where] for name, where in fed.slices.items()}
        slices.update({name: [where.start + length, where.stop + length, None]
                       for name, where in fed.slices.items()})
        length += flat.size
        for state, output in fed.carried.items():
            history[state] = _pushed(history[state], results[output])
        if "hidden_state" in named and "features" in history:
            history["features"] = _pushed(history["features"], named["hidden_state"])
        if "desired_curvature" in named and "curvature" in history:
            history["curvature"] = _pushed(history["curvature"], named["desired_curvature"][:1])
    changed = {name: queue for name, queue in history.items() if queue is not before[name]}
    metadata = {**graphs[-1].metadata, "output_slices": slices, KEY: {
        "sampling": sampling, "frame_bytes": frame_bytes, "era": contract.era,
        "models": [graph.name for graph in graphs]}}
    return program.graph("_".join(graph.name for graph in graphs),
                         Tensor.concat(outputs), changed, metadata)


def _as_described(graphs: Sequence[Graph]) -> list[Graph]:
    """In the order of arguments of `contract.describe`: model, policy, off-policy."""
    if not 1 <= len(graphs) <= 3:
        raise ComposeError(f"a driving model has one to three graphs, got {len(graphs)}.")
    return list(graphs) if len(graphs) < 3 else [graphs[0], graphs[2], graphs[1]]


def _vectors(queues: Mapping[str, Any]) -> list[str]:
    """Queues whose row the host gives in every run."""
    inner = (*CAMERAS, "desire", "features", "curvature")
    return [name for name in queues
            if name not in inner and not name.startswith(("zeros/", "state_"))]


class _Bordered:
    """A graph as `contract.describe` wants to see a loaded model; it is only described."""

    target = ""

    def __init__(self, graph: Graph) -> None:
        self.inputs, self.outputs = (
            {name: TensorSpec(name, node.dtype.value, node.shape) for name, node in border.items()}
            for border in (graph.inputs, graph.outputs))
        self.metadata = graph.metadata

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise NotImplementedError


class _Program:
    """Collects the inputs and the state of the graph under construction."""

    def __init__(self, frame_bytes: int) -> None:
        self.frame_bytes = frame_bytes
        self.inputs: dict[str, ir.Node] = {}

    def input(self, name: str, dtype: DType, shape: Sequence[int]) -> Tensor:
        self.inputs[name] = ir.input_(name, dtype, shape)
        return Tensor.of(self.inputs[name])

    def state(self, name: str, shape: Sequence[int], dtype: np.dtype) -> Tensor:
        """A queue. Those of zeros never change and are constants."""
        if name.startswith("queue_zeros/"):
            return Tensor.of(ir.full(shape, 0, DType.of(dtype)))
        return self.input(name, DType.of(dtype), shape)

    def row(self, name: str, shape: Sequence[int], sampling: str) -> Tensor:
        """The newest row of a queue."""
        if name in CAMERAS:
            return packed_picture(self.frame(name), sampling)
        if name == "desire":
            return self.desire().reshape(*shape)
        return self.input(name, DType.F32, shape)

    def frame(self, name: str) -> Frame:
        return Frame(self.input(f"{name}_frame", DType.U8, (self.frame_bytes,)),
                     self.input(f"{name}_geometry", DType.I32, (len(GEOMETRY),)),
                     self.input(f"{name}_warp", DType.F32, WARP_SHAPE))

    def desire(self) -> Tensor:
        """A wish is a pulse: 1 only in the run in which it appears; entry 0 never passes."""
        desire = self.input("desire", DType.F32, (DESIRE_LEN,))
        previous = self.input("last_desire", DType.F32, (DESIRE_LEN,))
        real = Tensor.constant(np.arange(DESIRE_LEN) > 0)
        return ((desire - previous > 0.99) & real).where(desire, 0.0)

    def graph(self, name: str, outputs: Tensor, changed: Mapping[str, Tensor],
              metadata: dict[str, Any]) -> Graph:
        """The finished graph; `changed`: queue -> its next value. Only what is read is kept."""
        nexts = {f"queue_{queue}": tensor.node for queue, tensor in changed.items()}
        if "desire" in self.inputs:
            nexts["last_desire"] = self.inputs["desire"]
        kept: dict[str, ir.Node] = {}
        while True:
            used = set(ir.toposort([outputs.node, *kept.values()]))
            read = {state: node for state, node in nexts.items() if self.inputs[state] in used}
            if read.keys() == kept.keys():
                break
            kept = read
        inputs = {name: node for name, node in self.inputs.items() if node in used}
        state = {state: f"next_{state}" for state in kept}
        roots = {"outputs": outputs.node, **{state[name]: node for name, node in kept.items()}}
        return Graph(name, inputs, roots, state, metadata)


def _pushed(queue: Tensor, row: Tensor) -> Tensor:
    """The queue with `row` as its newest entry and without its oldest."""
    newest = row.cast(queue.dtype).reshape(1, *queue.shape[1:])
    return Tensor.concat([queue[1:], newest]) if queue.shape[0] > 1 else newest


def _taken(queue: Tensor, rows: Sequence[int], pool: int) -> Tensor:
    """Rows of a queue, stacked; the maximum over groups of `pool`."""
    length = queue.shape[0]
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    picked = queue[length + rows[0]:length + rows[-1] + 1:step]
    return picked if pool == 1 else picked.reshape(-1, pool, *queue.shape[1:]).max(axis=1)


def _inlined(graph: Graph, fed: Fed, history: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a graph whose inputs are taken from the queues."""
    given = {graph.inputs[feed.name]: _made(feed, history).node for feed in fed.feeds}
    return {name: Tensor.of(node)
            for name, node in ir.substitute(graph.outputs, given).items()}


def _made(feed: Feed, history: Mapping[str, Tensor]) -> Tensor:
    rows = [_taken(history[name], feed.rows, feed.pool) for name in feed.queues]
    return Tensor.concat(rows).reshape(*feed.shape).cast(feed.dtype)


def packed_picture(frame: Frame, sampling: str) -> Tensor:
    """The model's view of a frame as packed picture (6, 128, 256) u8; see `modeld.warp`.

    Four phases of luma (row, column) ee, oe, eo, oo, then U and V. All six are one expression whose
    numbers differ by channel, so that a GPU needs one kernel for them and stores no coordinates.
    """
    width, height, stride, chroma_offset = (frame.geometry[i] for i in range(len(GEOMETRY)))
    last_column, last_row = (
        _by_channel((size.cast("f32") * Tensor.constant(_RESOLUTION)).floor() - 1.0)
        for size in (width, height))
    offset = chroma_offset * Tensor.constant(_IS_CHROMA) + Tensor.constant(_BEHIND)
    plane = Plane(last_column, last_row, stride, offset, Tensor.constant(_STEP))
    sample = _nearest if sampling == "nearest" else _bilinear
    picture = sample(frame.data, _projected(frame.warp), plane)
    assert picture.shape == PICTURE_SHAPE
    return picture


# By plane, luma and chroma:
_RESOLUTION = np.array([1.0, 0.5], np.float32)
# By channel, (6, 1, 1) each: whether it is chroma, its bytes behind the start of its plane, bytes
# from a pixel to the next.
_IS_CHROMA, _BEHIND, _STEP = np.array(
    [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 2, 2]], np.int32).reshape(3, 6, 1, 1)
# Where each channel is looked up in the model's view: (6, 128, 1) rows and (6, 1, 256) columns.
_PHASES = [(row, column) for column in (0, 1) for row in (0, 1)]
_ROWS = np.stack([*(np.arange(row, MODEL_HEIGHT, 2) for row, _ in _PHASES),
                  *[np.arange(MODEL_HEIGHT // 2)] * 2]).astype(np.float32)[:, :, None]
_COLUMNS = np.stack([*(np.arange(column, MODEL_WIDTH, 2) for _, column in _PHASES),
                     *[np.arange(MODEL_WIDTH // 2)] * 2]).astype(np.float32)[:, None, :]


def _by_channel(planes: Tensor) -> Tensor:
    """(2,) of luma and chroma -> (6, 1, 1) of the channels: views only."""
    return planes.unsqueeze(1).expand(2, 4).flatten()[:6].reshape(6, 1, 1)


@dataclass(frozen=True)
class Plane:
    """Where the planes of the channels lie in the bytes of a frame: offset + row * stride +
    column * step; i32, (6, 1, 1) or one for all. last_column, last_row: f32 whole numbers."""

    last_column: Tensor
    last_row: Tensor
    stride: Tensor
    offset: Tensor
    step: Tensor

    def index(self, column: Tensor, row: Tensor) -> Tensor:
        """Position of a pixel; both f32 whole numbers, clipped to the plane."""
        column = column.clip(0.0, self.last_column).cast("i32")
        row = row.clip(0.0, self.last_row).cast("i32")
        return (self.offset + row * self.stride + column * self.step).cast("u32")


def _projected(warp: Tensor) -> list[Tensor]:
    """x, y, w (6, 128, 256) f32 of warp @ (column, row, 1); warp (2, 3, 3) of luma and chroma."""
    x, y = Tensor.constant(_COLUMNS), Tensor.constant(_ROWS)
    return [_by_channel(warp[:, i, 0]) * x + _by_channel(warp[:, i, 1]) * y
            + _by_channel(warp[:, i, 2]) for i in range(3)]


def _nearest(data: Tensor, projected: Sequence[Tensor], plane: Plane) -> Tensor:
    """u8 (6, 128, 256): the nearest pixel, rounded half to even; where w = 0, pixel (0, 0)."""
    x, y, w = projected
    flat = w == 0.0
    divisor = flat.where(1.0, w)
    column, row = (flat.where(0.0, (v / divisor).round()) for v in (x, y))
    return data[plane.index(column, row)]


def _bilinear(data: Tensor, projected: Sequence[Tensor], plane: Plane) -> Tensor:
    """u8 (6, 128, 256): four taps with weights in fixed point, clamped to the edge.

    Every quantity is a whole number below 2^24, so f32 computes what integers would.
    """
    x, y, w = projected
    flat = w == 0.0
    scale = flat.where(0.0, _FIXED_ONE / flat.where(1.0, w))
    limit = _FAR * _FIXED_ONE
    fixed = [(v * scale).round().clip(-limit, limit) for v in (x, y)]
    left, top = ((v / _FIXED_ONE).floor() for v in fixed)
    part_x, part_y = fixed[0] - left * _FIXED_ONE, fixed[1] - top * _FIXED_ONE
    total = Tensor.constant(0.5 * _FIXED_ONE ** 2, "f32")  # rounds half up
    for down in (0, 1):
        for right in (0, 1):
            weight = part_x if right else _FIXED_ONE - part_x
            weight = weight * (part_y if down else _FIXED_ONE - part_y)
            total = total + weight * data[plane.index(left + right, top + down)].cast("f32")
    return (total / _FIXED_ONE ** 2).floor().cast("u8")
