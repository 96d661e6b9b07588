"""Plain values from ONNX protobuf messages: tensors, attributes, declared types.

Sizes are checked against the data that is there before anything is allocated. Data outside the
file is read only from inside the model's own folder.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from tinynn.ir import DType
from tinynn.onnx.errors import ModelError, UnsupportedModel

# ONNX element type -> dtype, and the field that holds values when there is no raw data.
_ELEMENTS: dict[int, tuple[DType, str]] = {
    TensorProto.FLOAT: (DType.F32, "float_data"),
    TensorProto.UINT8: (DType.U8, "int32_data"),
    TensorProto.INT8: (DType.I8, "int32_data"),
    TensorProto.UINT16: (DType.U16, "int32_data"),
    TensorProto.INT16: (DType.I16, "int32_data"),
    TensorProto.INT32: (DType.I32, "int32_data"),
    TensorProto.INT64: (DType.I64, "int64_data"),
    TensorProto.BOOL: (DType.BOOL, "int32_data"),
    TensorProto.FLOAT16: (DType.F16, "int32_data"),
    TensorProto.BFLOAT16: (DType.BF16, "int32_data"),
    TensorProto.DOUBLE: (DType.F64, "double_data"),
    TensorProto.UINT32: (DType.U32, "uint64_data"),
    TensorProto.UINT64: (DType.U64, "uint64_data"),
}


def element_type(number: int) -> DType:
    """The dtype of an ONNX element type; raises ModelError for strings, complex and sub-byte."""
    if number not in _ELEMENTS:
        known = TensorProto.DataType.values()
        name = TensorProto.DataType.Name(number) if number in known else str(number)
        raise UnsupportedModel(f"element type {name} is not supported")
    return _ELEMENTS[number][0]


def tensor(proto: Any, folder: Path | None) -> np.ndarray[Any, Any]:
    """The array of a TensorProto. `folder`: where external data may lie (None: nowhere)."""
    dtype = element_type(proto.data_type)
    shape = tuple(proto.dims)
    if any(n < 0 for n in shape):
        raise ModelError(f"tensor {proto.name!r} has a negative dimension: {shape}")
    count = math.prod(shape)
    if proto.data_location == TensorProto.EXTERNAL:
        raw = _external_data(proto, folder)
    elif proto.HasField("raw_data"):
        raw = proto.raw_data
    else:
        values = np.asarray(getattr(proto, _ELEMENTS[proto.data_type][1]))
        _require_length(proto.name, shape, len(values), count, "values")
        if dtype in (DType.F16, DType.BF16):  # stored as the bits in an int32
            return values.astype(np.uint16).view(dtype.numpy).reshape(shape)
        return values.astype(dtype.numpy).reshape(shape)
    _require_length(proto.name, shape, len(raw), count * dtype.itemsize, "bytes")
    stored = np.frombuffer(raw, dtype.numpy.newbyteorder("<"))
    return stored.astype(dtype.numpy, copy=False).reshape(shape)


def _require_length(name: str, shape: tuple[int, ...], got: int, wanted: int, unit: str) -> None:
    if got != wanted:
        raise ModelError(f"tensor {name!r} of shape {shape} needs {wanted} {unit}, the file has "
                         f"{got}: it is damaged or incomplete")


def _external_data(proto: Any, folder: Path | None) -> bytes:
    entries = {e.key: e.value for e in proto.external_data}
    location = entries.get("location", "")
    where = f"tensor {proto.name!r} keeps its data in the file {location!r}"
    if folder is None:
        raise ModelError(f"{where}, which is only found if the model is given as a path")
    path = (folder / location).resolve()
    if not location or not path.is_relative_to(folder.resolve()):
        raise ModelError(f"{where} outside the model's folder, which is refused")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}, which cannot be read: {error}") from error


def attribute(proto: Any, folder: Path | None) -> Any:
    """Attribute as int, float, bytes, array, GraphProto or a list of the first three."""
    if proto.type == AttributeProto.TENSOR:
        return tensor(proto.t, folder)
    if proto.type == AttributeProto.SPARSE_TENSOR:
        raise UnsupportedModel(f"attribute {proto.name!r}: sparse tensors are not supported")
    value = onnx.helper.get_attribute_value(proto)
    is_list = proto.type in (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS)
    return list(value) if is_list else value


def declared(proto: Any, shapes: Mapping[str, Sequence[int]]) -> tuple[DType, tuple[int, ...]]:
    """dtype and shape of a graph input. `shapes` fills in what the file leaves open: by the name of
    the input, or of a dimension (with one length)."""
    if not proto.type.HasField("tensor_type"):
        raise UnsupportedModel(f"input {proto.name!r} is not a tensor; "
                               "sequences, maps and optionals are not supported")
    described, given = proto.type.tensor_type, shapes.get(proto.name)
    if not described.HasField("shape"):
        if given is None:
            raise ModelError(f"input {proto.name!r} has no shape; give one, such as "
                             f"--shape {proto.name}=1x3x224x224")
        return element_type(described.elem_type), tuple(given)
    dims = [_length(d, shapes) for d in described.shape.dim]
    spelt = "(" + ", ".join(map(str, dims)) + ")"
    if given is None:
        if any(isinstance(d, str) for d in dims):
            example = "x".join("1" if isinstance(d, str) else str(d) for d in dims)
            raise ModelError(f"input {proto.name!r} has the open shape {spelt}; give the shape to "
                             f"compile for, such as --shape {proto.name}={example}")
        given = [int(d) for d in dims]
    fits = len(given) == len(dims) and all(
        isinstance(d, str) or d == n for d, n in zip(dims, given, strict=True))
    if not fits or any(n < 0 for n in given):
        raise ModelError(f"input {proto.name!r} has the shape {spelt} in the file; "
                         f"{tuple(given)} does not fit it")
    return element_type(described.elem_type), tuple(given)


def _length(dimension: Any, shapes: Mapping[str, Sequence[int]]) -> int | str:
    """The length of a dimension; its name or "?" where that is open."""
    if dimension.HasField("dim_value") and dimension.dim_value >= 0:
        return int(dimension.dim_value)
    bound = shapes.get(dimension.dim_param, ()) if dimension.dim_param else ()
    return bound[0] if len(bound) == 1 else dimension.dim_param or "?"
