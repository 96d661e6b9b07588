"""Every lowering against onnxruntime, on models of one node."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tinynn.onnx.functions import has_body
from tinynn.onnx.registry import LOWER
from tinynn.tests import conformance
from tinynn.tests import onnx_tools as tools

RNG = np.random.default_rng(7)


def f(*shape: int, scale: float = 2.0) -> np.ndarray[Any, Any]:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def positive(*shape: int) -> np.ndarray[Any, Any]:
    return np.abs(f(*shape)) + np.float32(0.1)


def i64(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def integers(*shape: int, low: int = -9, high: int = 10, dtype: Any = np.int32
             ) -> np.ndarray[Any, Any]:
    return RNG.integers(low, high, shape).astype(dtype)


def bools(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 2, shape).astype(np.bool_)


@dataclass
class Case:
    """One node: operator, inputs in order, attributes."""

    op: str
    inputs: list[Any]
    opset: int = 17
    outputs: int = 1
    fixed: tuple[int, ...] = ()  # which inputs are initialisers
    attributes: dict[str, Any] = field(default_factory=dict)
    rtol: float = 2e-5

    def __str__(self) -> str:
        shown = {k: v for k, v in self.attributes.items() if not isinstance(v, onnx.TensorProto)}
        return f"{self.op}-{self.opset} {shown}"


def case(op: str, *inputs: Any, opset: int = 17, outputs: int = 1, fixed: tuple[int, ...] = (),
         rtol: float = 2e-5, **attributes: Any) -> Case:
    return Case(op, list(inputs), opset, outputs, fixed, attributes, rtol)


UNARY = ["Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Exp", "Sin", "Cos", "Relu", "Sigmoid",
         "Tanh", "Erf", "Softplus", "Softsign", "HardSwish", "Mish", "Elu", "Selu",
         "Celu", "LeakyRelu", "HardSigmoid", "ThresholdedRelu", "IsNaN", "IsInf", "Reciprocal",
         "Sinh", "Cosh", "Tan", "Atan", "Asinh"]
BINARY = ["Add", "Sub", "Mul", "Div", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal",
          "Max", "Min"]
REDUCE = ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL1",
          "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]

CASES = [
    *(case(op, f(3, 4), opset=18) for op in UNARY),
    *(case(op, positive(3, 4)) for op in ("Sqrt", "Log")),
    *(case(op, RNG.uniform(-1, 1, (3, 40)).astype(np.float32)) for op in ("Asin", "Acos", "Atanh")),
    case("Acosh", positive(3, 40) + 1),
    *(case(op, f(3, 1, 4), f(5, 1)) for op in BINARY),
    *(case(op, integers(3, 4), integers(4, low=1)) for op in BINARY),
    *(case(op, bools(3, 4), bools(4)) for op in ("And", "Or", "Xor", "Equal")),
    case("Not", bools(5)),
    case("Max", f(3, 4), f(4), f(3, 1)),
    case("Sum", f(3, 4), f(4), f(3, 1)),
    case("Mean", f(3, 4), f(4), f(3, 1)),
    *(case("Pow", f(3, 4), np.float32(p), fixed=(1,)) for p in (1, 2, 3, 5, -2)),
    *(case("Pow", positive(3, 4), np.float32(p), fixed=(1,)) for p in (0, 0.5, -0.5, 1.7, 20)),
    case("Pow", positive(3, 4), f(4)),
    case("Pow", f(3, 4), integers(4, dtype=np.int64)),
    case("Pow", integers(3, 4), integers(3, 1, low=0, high=6)),
    case("Pow", integers(3, 4), np.float32(3), fixed=(1,)),
    case("Mod", integers(3, 4), np.array([[3], [-4], [5]], np.int32)),
    case("Mod", f(3, 4, scale=9), f(4), fmod=1, rtol=1e-4),
    case("Mod", integers(3, 4), np.array([[3], [-4], [5]], np.int32), fmod=1),
    case("Clip", f(3, 4), np.float32(-1), np.float32(0.5)),
    case("Clip", f(3, 4), None, np.float32(0.5)),
    case("Clip", f(3, 4), np.float32(-1)),
    case("Clip", integers(3, 4), np.int32(-2), np.int32(3), fixed=(1, 2)),
    case("Clip", f(3, 4), opset=9, min=-1.0, max=0.5),
    case("Where", bools(3, 1), f(4), f(3, 4)),
    *(case("Cast", f(3, 4), to=t) for t in (1, 6, 7, 9, 10, 11)),
    case("Cast", np.array([1.5, -1.5, 2.9], np.float32), to=3),
    case("Cast", integers(3, 4), to=1),
    case("CastLike", f(3, 4), i64(1)),
    case("PRelu", f(2, 3, 4, 4), f(3, 1, 1)),
    case("Gelu", f(3, 40), opset=20),
    case("Gelu", f(3, 40), opset=20, approximate="tanh"),
    *(case(op, f(2, 3, 4), axis=axis) for op in ("Softmax", "LogSoftmax", "Hardmax")
      for axis in (0, 1, -1)),
    *(case(op, f(2, 3, 4), opset=11, axis=1) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(case(op, f(2, 3, 4), axes=[0, 2]) for op in REDUCE if op != "ReduceSum"),
    *(case(op, f(2, 3, 4), axes=[-1], keepdims=0) for op in REDUCE if op != "ReduceSum"),
    *(case(op, f(2, 3, 4), i64(1), opset=18, fixed=(1,), keepdims=0) for op in REDUCE),
    *(case(op, f(2, 3, 4), opset=18) for op in REDUCE),
    case("ReduceLogSum", positive(2, 3, 4), axes=[1]),
    case("ReduceSum", f(2, 3), i64(), fixed=(1,), noop_with_empty_axes=1),
    case("ReduceMin", integers(2, 5), axes=[1]),
    case("ReduceMean", integers(2, 5), axes=[1]),
    *(case(op, f(3, 4), axis=1, keepdims=k) for op in ("ArgMax", "ArgMin") for k in (0, 1)),
    case("ArgMax", np.array([[1, 3, 3, 0]], np.float32), axis=1, select_last_index=1),
    case("ArgMax", np.array([[1, 3, 3, 0]], np.float32), axis=1),
    *(case("CumSum", f(3, 5), np.int64(1), fixed=(1,), exclusive=e, reverse=r)
      for e in (0, 1) for r in (0, 1)),
    *(case("BitShift", np.array([1, 200, 255], np.uint8), np.array([0, 3, 9], np.uint8),
           direction=side) for side in ("LEFT", "RIGHT")),
    case("BitShift", np.array([1, 2**63], np.uint64), np.array([63, 5], np.uint64),
         direction="RIGHT"),
    *(case(op, integers(3, 4, low=-2**30, high=2**30), integers(4, low=-2**30, high=2**30),
           opset=18) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    case("BitwiseNot", integers(3, 4), opset=18),
    *(case("Det", f(2, n, n)) for n in (1, 2, 3, 4)),
    *(case("Einsum", *(f(*shape) for shape in shapes), equation=equation)
      for equation, shapes in (
          ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("ij->ji", [(3, 4)]), ("ij->", [(3, 4)]),
          ("...ii->...i", [(2, 3, 3)]), ("ii", [(3, 3)]), ("i,j,k->kij", [(2,), (3,), (4,)]),
          ("...ij,...jk->...ik", [(5, 3, 4), (5, 4, 2)]),
          ("bhwij,hkj->bhwik", [(2, 3, 2, 4, 5), (3, 6, 5)]))),
    *(case("TopK", np.array([[3, 1, 3, 2, 0], [5, 5, 1, 5, 7]], np.float32), i64(3), fixed=(1,),
           outputs=2, largest=largest) for largest in (0, 1)),
    case("TopK", integers(4, 6, 2, low=-99, high=99), i64(6), fixed=(1,), outputs=2, axis=1),
    case("Compress", f(3, 4), bools(4), fixed=(1,), axis=1),
    case("Compress", f(3, 4), bools(7), fixed=(1,)),
    case("NonZero", integers(3, 4, low=0, high=2), fixed=(0,)),
    *(case("Unique", np.array([[2, 1, 1], [3, 4, 3]], np.float32), fixed=(0,), outputs=4, sorted=s)
      for s in (0, 1)),
    case("Unique", np.array([[2, 1, 1], [3, 4, 3], [2, 1, 1]], np.float32), fixed=(0,), outputs=4,
         axis=0),
    *(case("GridSample", f(2, 3, 4, 5), f(2, 3, 6, 2, scale=0.8), opset=20, mode=m, padding_mode=p,
           align_corners=c, rtol=1e-4)
      for m in ("linear", "nearest", "cubic") for p in ("zeros", "border", "reflection")
      for c in (0, 1)),
    case("GridSample", f(1, 2, 3, 4, 5), f(1, 2, 3, 4, 3, scale=0.8), opset=20, rtol=1e-4),
    *(case("RoiAlign", f(2, 3, 8, 9), np.array([[1, 1, 5, 6], [-2, 0, 9, 9]], np.float32),
           i64(1, 0), opset=16, output_height=2, output_width=3, sampling_ratio=2, mode=m,
           coordinate_transformation_mode=t, spatial_scale=0.7, rtol=1e-4)
      for m, t in (("avg", "half_pixel"), ("avg", "output_half_pixel"), ("max", "half_pixel"))),
    case("DeformConv", f(2, 4, 6, 5), f(6, 2, 3, 2), f(2, 24, 6, 6), f(6),
         np.abs(f(2, 12, 6, 6)), opset=19, group=2, offset_group=2, pads=[1, 1, 1, 1], rtol=1e-4),
    case("DeformConv", f(1, 2, 8, 7), f(3, 2, 2, 3), f(1, 12, 3, 3), opset=19, strides=[2, 1],
         dilations=[2, 2], rtol=1e-4),
    case("Col2Im", f(2, 12, 9), i64(4, 6), i64(2, 2), fixed=(1, 2), opset=18, strides=[1, 2],
         pads=[0, 0, 0, 0]),
    case("Col2Im", f(1, 18, 16), i64(6, 6), i64(3, 3), fixed=(1, 2), opset=18, dilations=[2, 2],
         pads=[1, 1, 1, 1]),
    case("MaxUnpool", f(1, 2, 2, 2), i64([[[5, 7], [13, 15]], [[16, 18], [24, 26]]]),
         opset=11, kernel_shape=[2, 2], strides=[2, 2]),
    *(case("DFT", f(2, 7, 3, 1), None, np.int64(axis), fixed=(2,), opset=20, onesided=o, rtol=1e-3)
      for axis in (1, 2) for o in (0, 1)),
    *(case("DFT", f(2, 7, 2), np.int64(n), fixed=(1,), opset=20, rtol=1e-3) for n in (5, 9)),
    case("STFT", f(2, 30, 1), np.int64(4), positive(8), fixed=(1,), rtol=1e-3),
    case("MatMulInteger", integers(3, 4, dtype=np.int8), integers(4, 5, dtype=np.int8), np.int8(3),
         np.int8(-2)),
    case("MatMulInteger", integers(3, 4, low=0, dtype=np.uint8), integers(4, 5, dtype=np.int8)),
    case("ConvInteger", integers(1, 2, 5, 5, low=0, dtype=np.uint8),
         integers(3, 2, 3, 3, low=0, dtype=np.uint8), np.uint8(4), pads=[1, 1, 1, 1]),
    case("QLinearMatMul", integers(3, 4, low=0, high=99, dtype=np.uint8), np.float32(0.1),
         np.uint8(7), integers(4, 5, low=0, high=99, dtype=np.uint8), np.float32(0.02), np.uint8(9),
         np.float32(0.09), np.uint8(50)),
    case("QLinearConv", integers(1, 2, 5, 5, low=0, high=99, dtype=np.uint8), np.float32(0.1),
         np.uint8(7), integers(3, 2, 3, 3, high=99, dtype=np.int8), positive(3) / 10,
         np.zeros(3, np.int8), np.float32(0.9), np.uint8(50), integers(3, high=2000),
         fixed=(1, 2, 3, 4, 5, 6, 7, 8), strides=[2, 1]),
    case("QuantizeLinear", f(3, 8, scale=9), positive(3, 2), integers(3, 2, dtype=np.int8),
         fixed=(1, 2), opset=21, axis=1, block_size=4),
    case("DequantizeLinear", integers(3, 7, dtype=np.int8), positive(3, 2), fixed=(1,), opset=21,
         axis=1, block_size=4),
    case("QuantizeLinear", f(3, 4, scale=9), np.float32(0.1), np.uint8(128), fixed=(1, 2)),
    case("QuantizeLinear", f(3, 4, scale=9), positive(3) / 10, integers(3, dtype=np.int8),
         fixed=(1, 2), axis=0),
    case("DequantizeLinear", integers(3, 4, dtype=np.int8), positive(4), integers(4, dtype=np.int8),
         fixed=(1, 2), axis=1),
    case("DequantizeLinear", integers(3, 4), np.float32(0.3), fixed=(1,)),
    case("DynamicQuantizeLinear", f(3, 4), outputs=3),
    case("Range", np.int64(3), np.int64(11), np.int64(3), fixed=(0, 1, 2)),
    case("Range", np.float32(1), np.float32(-1), np.float32(-0.3), fixed=(0, 1, 2)),

    case("ConstantOfShape", i64(2, 3), fixed=(0,), value=numpy_helper.from_array(i64(7))),
    case("ConstantOfShape", i64(2, 3), fixed=(0,)),
    case("Shape", f(2, 3, 4)),
    case("Shape", f(2, 3, 4), start=-2, end=3),
    case("Size", f(2, 3, 4)),
    case("Reshape", f(2, 3, 4), i64(0, -1), fixed=(1,)),
    case("Reshape", f(2, 3, 4), i64(4, 3, 2), fixed=(1,)),
    case("Flatten", f(2, 3, 4), axis=2),
    case("Flatten", f(2, 3, 4), axis=0),
    case("Squeeze", f(1, 3, 1), i64(0), fixed=(1,)),
    case("Squeeze", f(1, 3, 1)),
    case("Squeeze", f(1, 3, 1), opset=11, axes=[2]),
    case("Unsqueeze", f(3, 4), i64(0, -1), fixed=(1,)),
    case("Unsqueeze", f(3, 4), opset=11, axes=[1, 3]),
    case("Expand", f(3, 1), i64(2, 1, 4), fixed=(1,)),
    case("Tile", f(2, 3), i64(2, 3), fixed=(1,)),
    case("Transpose", f(2, 3, 4)),
    case("Transpose", f(2, 3, 4), perm=[1, 2, 0]),
    case("Concat", f(2, 3), f(1, 3), f(4, 3), axis=-2),
    case("Split", f(2, 7), i64(3, 4), fixed=(1,), outputs=2, axis=1),
    case("Split", f(2, 6), outputs=3, axis=1),
    case("Split", f(2, 7), outputs=3, axis=1, opset=18, num_outputs=3),
    case("Split", f(2, 7), outputs=2, axis=1, opset=11, split=[2, 5]),
    case("Slice", f(5, 6), i64(1, -1), i64(4, -100), i64(0, 1), i64(2, -2), fixed=(1, 2, 3, 4)),
    case("Slice", f(5, 6), i64(-2), i64(2**62), i64(-1), fixed=(1, 2, 3)),
    case("Slice", f(5, 6), i64(4, 0), i64(2, 3), fixed=(1, 2)),
    case("Slice", f(5, 6), opset=9, starts=[1], ends=[-1], axes=[1]),
    case("Pad", f(2, 3), i64(1, 0, 0, 2), np.float32(7), fixed=(1, 2)),
    case("Pad", f(2, 3), i64(0, -1, 1, 0), fixed=(1,)),
    *(case("Pad", f(3, 4), i64(2, 1, 1, 3), fixed=(1,), mode=m) for m in ("edge", "reflect")),
    case("Pad", f(3, 4), i64(2, 1, 1, 3), fixed=(1,), mode="wrap", opset=19),
    case("Pad", f(3, 4), i64(2, 1), np.float32(1), i64(1), fixed=(1, 2, 3), opset=18),
    case("Pad", f(3, 4), opset=9, pads=[0, 1, 2, 0], value=3.0),
    *(case("DepthToSpace", f(1, 8, 2, 3), blocksize=2, mode=m) for m in ("DCR", "CRD")),
    case("SpaceToDepth", f(1, 2, 4, 6), blocksize=2),
    case("Gather", f(5, 4), i64([0, -1], [2, 2]), axis=0),
    case("Gather", f(5, 4), i64(3, 1, -1), fixed=(1,), axis=1),
    case("Gather", f(5, 4), np.int64(2), fixed=(1,), axis=0),
    case("GatherElements", f(3, 4), i64([0, -1], [2, 1]), axis=0),
    case("ScatterElements", f(3, 4), i64([0, -1], [2, 1]), f(2, 2), axis=1),
    case("ScatterElements", f(3, 4), i64([1, 1, 1]), f(1, 3), axis=0, opset=18, reduction="add"),
    case("GatherND", f(3, 4, 5), i64([0, 1], [2, -1])),
    case("GatherND", f(2, 3, 4), i64([1], [-1]), batch_dims=1),
    case("ScatterND", f(3, 4, 5), i64([0, 1], [2, -1]), f(2, 5)),
    case("ScatterND", f(4), i64([1], [1], [3]), f(3), opset=18, reduction="max"),
    case("OneHot", i64(1, -1, 7, 0), np.int64(3), np.array([-1, 2], np.float32), fixed=(1,),
         axis=0),
    case("Trilu", f(2, 4, 5), np.int64(1), fixed=(1,)),
    case("Trilu", f(4, 5), upper=0),
    case("EyeLike", f(3, 4), k=1),
    case("ReverseSequence", f(4, 3, 2), i64(1, 4, 3), fixed=(1,)),

    case("MatMul", f(2, 3, 4), f(4, 5)),
    case("MatMul", f(4), f(2, 4, 3)),
    case("MatMul", f(2, 1, 3, 4), f(5, 4, 2)),
    case("Gemm", f(4, 3), f(4, 5), f(5), transA=1),
    case("Gemm", f(3, 4), f(5, 4), f(3, 1), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", f(3, 4), f(4, 5)),
    case("Conv", f(2, 3, 7, 6), f(4, 3, 3, 2), f(4), strides=[2, 1], pads=[1, 0, 2, 1]),
    case("Conv", f(1, 4, 7, 6), f(8, 1, 3, 3), group=4, dilations=[2, 1]),
    case("Conv", f(1, 4, 6), f(6, 2, 3), f(6), group=2, pads=[1, 1]),
    case("Conv", f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2)),
    *(case("Conv", f(1, 2, 8, 7), f(3, 2, 3, 2), strides=[2, 2], auto_pad=a)
      for a in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    case("ConvTranspose", f(1, 3, 4, 5), f(3, 2, 3, 3), f(2), strides=[2, 1], pads=[1, 0, 0, 1]),
    case("ConvTranspose", f(1, 4, 4, 5), f(4, 2, 2, 2), strides=[2, 2], group=2),
    *(case("ConvTranspose", f(2, 4, 4, 5), f(4, 3, k, k + 1), f(6), group=2, strides=[s, 2],
           dilations=[dilation, 1], pads=[1, 0, 1, 0], output_padding=[int(s > 1), 1])
      for k in (3, 4) for s in (1, 2, 3) for dilation in (1, 2)),
    case("ConvTranspose", f(1, 2, 3, 3), f(2, 1, 1, 1), strides=[2, 3]),  # phases without taps
    case("ConvTranspose", f(1, 1, 4, 4), f(1, 1, 3, 3), strides=[3, 2], output_padding=[1, 1],
         dilations=[2, 1]),
    case("ConvTranspose", f(1, 1, 4, 4), f(1, 1, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", f(1, 1, 4, 4), f(1, 1, 3, 3), strides=[3, 2], output_shape=[11, 9]),
    case("MaxPool", f(1, 2, 7, 8), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("MaxPool", f(1, 2, 7, 8), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", f(1, 2, 9), kernel_shape=[3], dilations=[2]),
    *(case("MaxPool", integers(2, 2, 5, 6).astype(np.float32), kernel_shape=[3, 2], outputs=2,
           pads=[1, 0, 1, 1], storage_order=o) for o in (0, 1)),
    case("MaxPool", integers(1, 2, 6, 6, dtype=np.int8), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    *(case("AveragePool", f(1, 2, 7, 8), kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1],
           count_include_pad=c) for c in (0, 1)),
    case("AveragePool", f(1, 2, 7, 7), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, opset=19),
    case("AveragePool", f(1, 2, 7, 7), kernel_shape=[3, 3], auto_pad="SAME_UPPER"),
    case("LpPool", f(1, 2, 6, 6), kernel_shape=[2, 2], strides=[2, 2]),
    case("GlobalAveragePool", f(2, 3, 4, 5)),
    case("GlobalMaxPool", f(2, 3, 4, 5)),
    case("BatchNormalization", f(2, 3, 4, 5), f(3), f(3), f(3), positive(3), epsilon=1e-3),
    case("BatchNormalization", f(2, 3, 4), f(3), f(3), f(3), positive(3), outputs=3,
         training_mode=1, momentum=0.8),
    case("InstanceNormalization", f(2, 3, 4, 5), f(3), f(3)),
    case("GroupNormalization", f(2, 6, 4), f(6), f(6), num_groups=3, opset=21),
    case("LayerNormalization", f(2, 3, 4), f(4), f(4)),
    case("LayerNormalization", f(2, 3, 4), f(3, 4), axis=1, epsilon=0.1),
    case("LayerNormalization", f(2, 3, 4), f(4), outputs=3),
    case("LpNormalization", f(2, 3, 4), axis=1),
    case("LpNormalization", f(2, 3, 4), p=1),
    case("LRN", f(2, 7, 3, 3), size=3, alpha=0.5, bias=2.0),
    case("Dropout", f(3, 4)),
    case("Dropout", f(3, 4), np.float32(0), np.array(True), fixed=(1, 2), outputs=2),
    *(case("Resize", f(1, 2, 4, 5), None, np.array([1, 1, 2, 1.5], np.float32), fixed=(2,),
           mode=m, coordinate_transformation_mode=t, rtol=1e-4)
      for m in ("nearest", "linear", "cubic")
      for t in ("half_pixel", "pytorch_half_pixel", "asymmetric")),
    *(case("Resize", f(1, 2, 4, 5), None, None, i64(1, 2, 7, 8), fixed=(3,), mode=m,
           coordinate_transformation_mode="align_corners", rtol=1e-4)
      for m in ("nearest", "linear", "cubic")),
    *(case("Resize", f(1, 2, 4, 5), None, None, i64(1, 2, 7, 3), fixed=(3,), nearest_mode=n)
      for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
    *(case("Resize", f(1, 1, 9, 8), None, np.array([1, 1, 0.6, 0.4], np.float32), fixed=(2,),
           mode=m, antialias=1, opset=18, rtol=1e-4) for m in ("linear", "cubic")),
    case("Resize", f(1, 1, 6, 6), None, np.array([1, 1, 0.5, 0.8], np.float32), fixed=(2,),
         mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5, rtol=1e-4),
    case("Resize", f(1, 1, 4, 4), np.array([0, 0, -0.2, 0.1, 1, 1, 0.8, 1.3], np.float32), None,
         i64(1, 1, 5, 6), fixed=(1, 3), mode="linear", extrapolation_value=9.0,
         coordinate_transformation_mode="tf_crop_and_resize", rtol=1e-4),
    case("Resize", f(1, 1, 4, 4), np.array([1, 1, 2, 2], np.float32), fixed=(1,), opset=10),
    case("Upsample", f(1, 2, 3, 4), np.array([1, 1, 2, 3], np.float32), fixed=(1,), opset=9),

    *(case(op, f(5, 2, 3), f(1, g * 4, 3, scale=0.5), f(1, g * 4, 4, scale=0.5),
           f(1, 2 * g * 4, scale=0.5), outputs=2, hidden_size=4)
      for op, g in (("RNN", 1), ("GRU", 3), ("LSTM", 4))),
    *(case(op, f(5, 2, 3), f(2, g * 4, 3, scale=0.5), f(2, g * 4, 4, scale=0.5), None, None,
           f(2, 2, 4), outputs=2, hidden_size=4, direction="bidirectional")
      for op, g in (("RNN", 1), ("GRU", 3), ("LSTM", 4))),
    case("GRU", f(5, 2, 3), f(1, 12, 3), f(1, 12, 4), f(1, 24), outputs=2, hidden_size=4,
         linear_before_reset=1, direction="reverse", rtol=1e-4),
    case("LSTM", f(5, 2, 3), f(1, 16, 3), f(1, 16, 4), f(1, 32), None, f(1, 2, 4), f(1, 2, 4),
         f(1, 12), outputs=3, hidden_size=4, rtol=1e-4),
]


@pytest.mark.parametrize("one", CASES, ids=str)
def test_lowering_agrees_with_onnxruntime(one: Case) -> None:
    inputs = {f"in{i}": None if v is None else np.asarray(v) for i, v in enumerate(one.inputs)}
    proto = tools.one_node(one.op, inputs, one.opset, one.outputs,
                           [f"in{i}" for i in one.fixed], **one.attributes)
    feed = {n: v for n, v in inputs.items() if v is not None}
    wanted, got = tools.reference(proto, feed), tools.compute(proto, feed)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_allclose(got[name], array, rtol=one.rtol, atol=1e-5)


# Lowerings that onnxruntime has no kernel for or that no single node shows.
ELSEWHERE = {
    "Constant", "If",  # below
    "Identity", "Loop", "Scan", "Optional", "OptionalHasElement", "OptionalGetElement",
    "SequenceEmpty", "SequenceConstruct", "SequenceLength", "SequenceAt", "SequenceInsert",
    "SequenceErase", "ConcatFromSequence", "SplitToSequence",  # test_onnx_control.py
    "BitCast", "CumProd", "TensorScatter",  # no kernels: the conformance suite has them
    *(f"ai.onnx.preview.training::{name}" for name in ("Momentum", "Adagrad", "Adam")),
    *(f"ai.onnx.ml::{name}" for name in ("ArrayFeatureExtractor", "Binarizer")),
    "Swish", "RMSNormalization",  # newer than the runtime's kernels: below
    "Scatter",  # the old name of ScatterElements
}


def test_every_lowering_has_a_case() -> None:
    tried = {c.op for c in CASES} | ELSEWHERE
    assert set(LOWER) <= tried
    newest = onnx.defs.onnx_opset_version()
    assert all(has_body(helper.make_node(op, [], []), newest) for op in tried - set(LOWER))


def test_what_has_no_kernel_has_conformance_cases() -> None:
    names = {c.name.removeprefix("test_").split("_")[0] for c in conformance.cases(["node"])}
    assert {"bitcast", "cumprod", "tensorscatter", "momentum", "adagrad", "adam"} <= names


def test_swish_and_rms_normalization() -> None:
    x = f(3, 5)
    got = tools.compute(tools.one_node("Swish", {"x": x}, 24, alpha=1.5), {"x": x})["out0"]
    np.testing.assert_allclose(got, x / (1 + np.exp(-1.5 * x)), rtol=1e-5, atol=1e-6)
    scale = f(5)
    got = tools.compute(tools.one_node("RMSNormalization", {"x": x, "s": scale}, 23),
                        {"x": x, "s": scale})["out0"]
    wanted = x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("attribute", [
    {"value": numpy_helper.from_array(f(2, 3))}, {"value_float": 1.5}, {"value_int": 3},
    {"value_floats": [1.0, 2.5]}, {"value_ints": [4, 5]}])
def test_constant(attribute: dict[str, Any]) -> None:
    proto = tools.one_node("Constant", {}, **attribute)
    wanted, got = tools.reference(proto, {})["out0"], tools.compute(proto, {})["out0"]
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def if_model(fixed: tuple[str, ...]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """If(c): x + y else x * y, where the branches see x and y from outside."""
    branches = [helper.make_graph([helper.make_node(op, ["x", "y"], [out])], out, [],
                                  [helper.make_empty_tensor_value_info(out)])
                for op, out in (("Add", "sum"), ("Mul", "product"))]
    node = helper.make_node("If", ["c"], ["out"], then_branch=branches[0],
                            else_branch=branches[1])
    feed = {"c": np.array(False), "x": f(2, 3), "y": f(3)}
    return tools.model([node], feed, ["out"], fixed=fixed), feed


@pytest.mark.parametrize("fixed", [(), ("c",)])
def test_if(fixed: tuple[str, ...]) -> None:
    proto, feed = if_model(fixed)
    for condition in (False,) if fixed else (False, True):
        feed["c"] = np.array(condition)
        np.testing.assert_allclose(tools.compute(proto, feed)["out"],
                                   tools.reference(proto, feed)["out"], rtol=1e-6)


def test_halves_are_computed_in_f32_and_rounded_once() -> None:
    x = (RNG.standard_normal((4, 50)) * 3).astype(np.float16)
    for op in ("Tanh", "Sigmoid", "Exp", "Softmax", "Elu", "Gelu"):
        proto = tools.one_node(op, {"x": x}, opset=20)
        wanted = tools.reference(proto, {"x": x})["out0"].astype(np.float32)
        got = tools.compute(proto, {"x": x})["out0"]
        assert got.dtype == np.float16
        # One unit in the last place: the reference may round a hair differently.
        np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=2**-10, atol=1e-6)
