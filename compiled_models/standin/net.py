"""An ONNX graph under construction: scoped names, nodes, parameters drawn from their names.

A parameter is drawn from (seed, its name) alone, so layers of equal name are equal in all models.
That makes three models comparable bit for bit: `driving_supercombo` is `driving_vision` followed by
`driving_policy`, and the stateful graph is `driving_supercombo` with its queues inside.

Every tensor carries the mean and standard deviation its elements are designed to have. Layers scale
their weights by them, as a trained network with batch normalisation does; without that the output
of a deep random network hardly depends on its input.
"""
from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHOICES = {"weights": ("f16", "f32"), "compute": ("f32", "f16"), "gelu": ("tanh", "erf", "op")}


@dataclass(frozen=True)
class Options:
    """How a model is written. The numbers it holds depend on the seed alone.

    seed: of all weights.
    weights: storage of the parameters; "f16" puts a Cast before each use in "f32" arithmetic.
    compute: type of the arithmetic and of the float inputs and outputs. Real files use "f16".
    gelu: "tanh" and "erf" write elementary nodes, "op" one Gelu node (opset 20 instead of 17).
    batchnorm: BatchNormalization nodes instead of ones folded into the convs, as 0.8.x has.

    Raises ValueError for a value that is none of these.
    """

    seed: int = 0
    weights: str = "f16"
    compute: str = "f32"
    gelu: str = "tanh"
    batchnorm: bool = False

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                raise ValueError(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
        if type(self.seed) is not int or type(self.batchnorm) is not bool:
            raise ValueError("seed must be an integer and batchnorm true or false")


class Value(NamedTuple):
    """A tensor of the graph, and the mean and std its elements are designed to have."""

    name: str
    shape: tuple[int, ...]
    mean: float = 0.0
    std: float = 1.0


class Net:
    """The graph. Methods append nodes and return the Value of their output."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.opset = 20 if options.gelu == "op" else 17
        self.dtype = np.dtype(np.float16 if options.compute == "f16" else np.float32)
        self.float_type = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._scopes: list[str] = []
        self._used: Counter[str] = Counter()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names made inside with `name/`."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def path(self, leaf: str) -> str:
        """`leaf` behind the names of the open scopes."""
        return "/".join([*self._scopes, leaf])

    # -- borders of the graph

    def input(self, name: str, shape: Sequence[int], std: float = 1.0) -> Value:
        """A float input in the compute type."""
        self.inputs.append(helper.make_tensor_value_info(name, self.float_type, shape))
        return Value(name, tuple(shape), 0.0, std)

    def input_f32(self, name: str, shape: Sequence[int], std: float = 1.0) -> Value:
        """An input that is float32 whatever the compute type; cast to it where they differ."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        x = Value(name, tuple(shape), 0.0, std)
        return x if self.dtype == np.float32 else self.cast(x)

    def input_u8(self, name: str, shape: Sequence[int]) -> Value:
        """A picture input: uint8, not yet cast."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        return Value(name, tuple(shape))

    def output(self, name: str, x: Value, elem_type: int | None = None) -> None:
        """Rename `x` everywhere and make it an output, in the compute type unless stated."""
        for node in self.nodes:
            node.input[:] = [name if source == x.name else source for source in node.input]
            node.output[:] = [name if result == x.name else result for result in node.output]
        elem_type = self.float_type if elem_type is None else elem_type
        self.outputs.append(helper.make_tensor_value_info(name, elem_type, x.shape))

    # -- constants and parameters

    def const(self, value: object) -> str:
        """Initialiser for a small constant: integers as int64, floats in the compute type."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else self.dtype)
        name = f"const/{len(self.initializers)}"
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def param(self, leaf: str, values: np.ndarray) -> str:
        """Parameter `path/leaf` in the storage type, cast at use if the arithmetic differs."""
        name = self.path(leaf)
        if name in self.initializers:
            raise ValueError(f"two parameters are called {name}")
        stored = values.astype(np.float16 if self.options.weights == "f16" else np.float32)
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(stored), name)
        if stored.dtype == self.dtype:
            return name
        return self.cast(Value(name, values.shape)).name

    def draw(self, leaf: str, shape: Sequence[int], std: float) -> np.ndarray:
        """Bell-shaped values on the float16 grid, a function of the seed and the name alone.

        Sums of four 16-bit uniforms from numpy's frozen generator, added as integers: the bits are
        equal on every platform and under every numpy.
        """
        key = zlib.crc32(f"{self.options.seed}/{self.path(leaf)}".encode())
        generator = np.random.RandomState(key)
        words = generator.randint(0, 1 << 16, (4, math.prod(shape)), np.uint16)
        centred = words.sum(0, dtype=np.int64) - 2 * 0xFFFF
        # A uniform has variance 1/12, the sum of four 1/3.
        return on_grid(centred * (math.sqrt(3) / 65536) * std).reshape(tuple(shape))

    # -- nodes

    def op(self, kind: str, inputs: Sequence[Value | str], shape: Sequence[int],
           mean: float = 0.0, std: float = 1.0, **attributes: Any) -> Value:
        """Append a node with one output of the given shape and design moments."""
        name = self.path(kind)
        self._used[name] += 1
        if self._used[name] > 1:
            name += f"_{self._used[name] - 1}"
        sources = [item if isinstance(item, str) else item.name for item in inputs]
        result = f"{name}_output"
        self.nodes.append(helper.make_node(kind, sources, [result], name=name, **attributes))
        # Rounding keeps the weights independent of the last bits of the math library.
        return Value(result, tuple(shape), round(mean, 3), round(std, 3))

    def cast(self, x: Value) -> Value:
        """x in the compute type."""
        return self.op("Cast", [x], x.shape, x.mean, x.std, to=self.float_type)

    def reshape(self, x: Value, *shape: int) -> Value:
        """x with another shape of the same size."""
        return self.op("Reshape", [x, self.const(shape)], shape, x.mean, x.std)

    def transpose(self, x: Value, *perm: int) -> Value:
        """x with axis perm[i] at place i."""
        shape = [x.shape[axis] for axis in perm]
        return self.op("Transpose", [x], shape, x.mean, x.std, perm=perm)

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        """The values joined along an axis; the moments are those of the union."""
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        sizes = [math.prod(x.shape) for x in xs]
        total = sum(sizes)
        mean = sum(n * x.mean for n, x in zip(sizes, xs, strict=True)) / total
        power = sum(n * (x.mean**2 + x.std**2) for n, x in zip(sizes, xs, strict=True)) / total
        return self.op("Concat", xs, shape, mean, math.sqrt(power - mean**2), axis=axis)

    def gather(self, x: Value, index: int | Sequence[int], axis: int) -> Value:
        """Entries along an axis; a single index removes the axis."""
        kept = [] if isinstance(index, int) else [len(index)]
        shape = [*x.shape[:axis], *kept, *x.shape[axis + 1 :]]
        return self.op("Gather", [x, self.const(index)], shape, x.mean, x.std, axis=axis)

    def slice(self, x: Value, start: int, axis: int, step: int = 1) -> Value:
        """x[start::step] along an axis."""
        end = x.shape[axis]
        shape = list(x.shape)
        shape[axis] = len(range(start, end, step))
        bounds = [self.const([bound]) for bound in (start, end, axis, step)]
        return self.op("Slice", [x, *bounds], shape, x.mean, x.std)

    def add(self, a: Value, b: Value) -> Value:
        """a + b for independent a and b of one shape."""
        return self.op("Add", [a, b], a.shape, a.mean + b.mean, math.hypot(a.std, b.std))

    def scale(self, x: Value, kind: str, constant: object, std: float = 1.0) -> Value:
        """x <kind> constant, for instance "Mul" 0.5; the caller states the std."""
        return self.op(kind, [x, self.const(constant)], x.shape, 0.0, std)

    def reduce(self, kind: str, x: Value, axes: Sequence[int], keep: bool = True,
               std: float = 1.0) -> Value:
        """Reduction; axes became an input in opset 13 (ReduceSum) and 18 (the others)."""
        shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
        if kind == "ReduceSum" or self.opset >= 18:
            return self.op(kind, [x, self.const(axes)], shape, 0.0, std, keepdims=int(keep))
        return self.op(kind, [x], shape, 0.0, std, keepdims=int(keep), axes=axes)


def on_grid(values: np.ndarray) -> np.ndarray:
    """Round to float16, so that both ways of storing weights hold the same numbers."""
    return values.astype(np.float16).astype(np.float32)
