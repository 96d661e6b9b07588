"""Operators that the ONNX standard defines by others: their bodies, from the onnx package.

An operator without a lowering of ours is replaced by its body. Some bodies depend on the operands'
types and on which of them are given, so a body is asked for when these are known.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, helper

from tinynn.onnx.registry import Absent, TensorList, Value

Opsets = Mapping[str, int]  # domain ("" is the standard one) -> version


def _schema(node: Any, opset: int) -> Any:
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        return onnx.defs.get_schema(node.op_type, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a name that is no text
        return None


def has_body(node: Any, opset: int) -> bool:
    """Whether the standard defines the operator by others."""
    schema = _schema(node, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def body_of(node: Any, inputs: Sequence[Value | None], opset: int) -> FunctionProto | None:
    """The body for these operands, the node's attributes filled in; None if there is none."""
    schema = _schema(node, opset)
    if schema is None:
        return None
    body = FunctionProto()
    if schema.has_function:
        body.CopyFrom(schema.function_body)
    elif schema.has_context_dependent_function:
        types = [_type(x) for x in inputs]
        body.ParseFromString(schema.get_context_dependent_function(
            node.SerializeToString(), [t.SerializeToString() for t in types]))
    else:
        return None
    given = {a.name: a for a in node.attribute}
    for name, declared in schema.attributes.items():
        if name not in given and declared.default_value.name:
            given[name] = declared.default_value
    for inner in _all_nodes(body):
        _fill_in(inner, given)
    return body


def _type(value: Value | None) -> Any:
    """The ONNX type of an operand, empty for one that is not given."""
    if value is None or isinstance(value, Absent):
        return onnx.TypeProto()
    if isinstance(value, TensorList):
        inner = _type(value.items[0]) if value.items else onnx.TypeProto()
        inner.tensor_type.ClearField("shape")  # each tensor has its own
        return helper.make_sequence_type_proto(inner)
    element = helper.np_dtype_to_tensor_dtype(value.dtype.numpy)
    return helper.make_tensor_type_proto(element, value.shape)


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


def _fill_in(node: Any, given: Mapping[str, AttributeProto]) -> None:
    """Replace references to attributes of the function by their values; absent ones go."""
    kept = []
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            kept.append(attribute)
        elif attribute.ref_attr_name in given:
            value = AttributeProto()
            value.CopyFrom(given[attribute.ref_attr_name])
            value.name = attribute.name
            kept.append(value)
    kept = [AttributeProto.FromString(a.SerializeToString()) for a in kept]
    del node.attribute[:]
    node.attribute.extend(kept)
