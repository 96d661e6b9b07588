"""ONNX file -> graph.

The onnx package parses the file; here its nodes are looked up in the table of lowerings, checked
all at once for support, and turned into our nodes in order of dependence. Nothing is executed but
numpy folding of constants. Every error says which node of the file it is about.
"""
from __future__ import annotations

import graphlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto

from tinynn import ir, simplify, spec
from tinynn.ir import Graph, GraphError, Node
from tinynn.onnx import (
    ops_bits,
    ops_control,
    ops_integer,
    ops_math,
    ops_nn,
    ops_pick,
    ops_recurrent,
    ops_resize,
    ops_sample,
    ops_shape,
    ops_signal,
    ops_training,
)
from tinynn.onnx.errors import ModelError, UnsupportedModel
from tinynn.onnx.functions import Opsets, body_of, has_body
from tinynn.onnx.metadata import read_metadata
from tinynn.onnx.protos import attribute, declared, tensor
from tinynn.onnx.registry import LOWER, Absent, Call, TensorList, Value

# Importing the modules above fills the table.
__all__ = ["import_model", "ops_bits", "ops_control", "ops_integer", "ops_math", "ops_nn",
           "ops_pick", "ops_recurrent", "ops_resize", "ops_sample", "ops_shape", "ops_signal",
           "ops_training"]

OLDEST_OPSET, NEWEST_OPSET = 1, 28
_MOST_FILE_BYTES = 2**31 - 1  # protobuf's own limit
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_NESTED = 32
_MOST_LISTED = 20
_MOST_NODES = 100_000

# The values that a graph can see; None for an input of a function that is not given.
Values = dict[str, Value | None]


def import_model(model: str | os.PathLike[str] | bytes | ModelProto,
                 shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read a model.

    model: path, bytes of a file, or a ModelProto.
    shapes: input name -> shape, or name of a dimension -> (length,), where the file leaves it open.
    Raises ModelError if the model is invalid, UnsupportedModel (with every unsupported node) if
    it uses what is not supported, MetadataError if its metadata is refused.
    """
    proto, name, folder = _load(model)
    if proto.functions:
        _check_functions(proto)
        proto = onnx.inliner.inline_local_functions(proto)
    importer = _Importer(proto, folder)
    graph = importer.graph(name, shapes or {})
    graph.metadata.update(read_metadata(proto, graph))
    graph.metadata["source"] = {
        "format": "onnx",
        "opsets": {domain or "ai.onnx": version for domain, version in importer.opsets.items()},
        "ops": dict(sorted(Counter(_key(n) for n in _all_nodes(proto.graph)).items()))}
    try:
        spec.check(graph)
    except GraphError as error:
        raise ModelError(str(error)) from error
    return graph


def _load(model: str | os.PathLike[str] | bytes | ModelProto
          ) -> tuple[ModelProto, str, Path | None]:
    """The parsed model, its name, and the folder it lies in (None if it is not a file)."""
    if isinstance(model, ModelProto):
        return _with_graph(model, "the model"), model.graph.name or "model", None
    if isinstance(model, bytes):
        proto = _parse(model, "the model")
        return proto, proto.graph.name or "model", None
    path = Path(model)
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise ModelError(f"{path} is larger than 2 GiB, which ONNX does not allow; "
                             "store its weights as external data")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    return _parse(data, str(path)), path.stem, path.parent


def _parse(data: bytes, where: str) -> ModelProto:
    if data.startswith(_LFS_POINTER):
        raise ModelError(f"{where} is a Git LFS pointer, not the model it stands for; get that "
                         "with `git lfs pull`")
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, TypeError) as error:
        raise ModelError(f"{where} is not an ONNX file, or is damaged: {error}") from error
    return _with_graph(proto, where)


def _with_graph(proto: ModelProto, where: str) -> ModelProto:
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"{where} is not an ONNX model: it has no graph with outputs")
    return proto


def _check_functions(proto: ModelProto) -> None:
    """Raise ModelError if the model's own functions call themselves or grow without bounds."""
    functions = {(f.domain, f.name): f for f in proto.functions}
    calls = {key: [(n.domain, n.op_type) for n in _all_nodes(f)] for key, f in functions.items()}
    called = {key: [c for c in inner if c in functions] for key, inner in calls.items()}
    try:
        order = list(graphlib.TopologicalSorter(called).static_order())
    except graphlib.CycleError as error:
        names = ", ".join(name for _, name in error.args[1][:5])
        raise ModelError(f"functions of the model call themselves: {names}") from error
    sizes: dict[tuple[str, str], int] = {}
    for key in order:
        sizes[key] = sum(sizes.get(c, 1) for c in calls[key])
    total = sum(sizes.get((n.domain, n.op_type), 1) for n in _all_nodes(proto.graph))
    if total > _MOST_NODES:
        raise ModelError(f"the model has {total} nodes once its functions are written out; "
                         f"at most {_MOST_NODES} are read")


def _label(node: Any) -> str:
    """How errors call a node of the file."""
    if node.name:
        return f"node {node.name!r} ({node.op_type})"
    return f"the {node.op_type} node that makes {next(iter(node.output), '?')!r}"


def _key(node: Any) -> str:
    """The node's entry in the table of lowerings."""
    standard = node.domain in ("", "ai.onnx")
    return str(node.op_type) if standard else f"{node.domain}::{node.op_type}"


def opset_versions(proto: Any) -> Opsets:
    """Domain -> version that a model or function declares."""
    return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}


def opset_of(node: Any, opsets: Opsets) -> int:
    """The version of the node's domain."""
    return opsets.get("" if node.domain == "ai.onnx" else node.domain, 1)


def _subgraphs(node: Any) -> list[Any]:
    return [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]


def _all_nodes(graph: Any) -> Iterator[Any]:
    """Every node of the graph and of the graphs nested in it."""
    pending = [(graph, 0)]
    while pending:
        inner, depth = pending.pop()
        if depth > _MOST_NESTED:
            raise ModelError(f"subgraphs are nested more than {_MOST_NESTED} deep")
        for node in inner.node:
            yield node
            pending += [(g, depth + 1) for g in _subgraphs(node)]


def _reads(node: Any) -> Iterator[str]:
    """Names a node reads, also from inside its subgraphs."""
    yield from (name for name in node.input if name)
    for graph in _subgraphs(node):
        for inner in _all_nodes(graph):
            yield from (name for name in inner.input if name)
        yield from (output.name for output in graph.output)


class _Importer:
    """State of one import: the opsets, and what has been folded so far."""

    def __init__(self, proto: ModelProto, folder: Path | None) -> None:
        self.proto = proto
        self.folder = folder
        self.opsets = opset_versions(proto)
        self.folded: dict[Node, Node] = {}
        self.nodes = 0  # lowered so far
        self._require_supported()

    def _require_supported(self) -> None:
        """Raise UnsupportedModel with all nodes that cannot be imported."""
        opset = self.opsets.get("", 0)
        standard = any(not n.domain or n.domain == "ai.onnx" for n in self.proto.graph.node)
        if standard and not OLDEST_OPSET <= opset <= NEWEST_OPSET:
            raise UnsupportedModel(
                f"the model is of ONNX opset {opset}; supported are {OLDEST_OPSET} to "
                f"{NEWEST_OPSET}. Convert it with onnx.version_converter.convert_version")
        lines = []
        for node in _all_nodes(self.proto.graph):
            version = opset_of(node, self.opsets)
            lowering = LOWER.get(_key(node))
            if (lowering and version >= lowering.since) or has_body(node, version):
                continue
            reason = (f"supported from opset {lowering.since} on" if lowering
                      else "this operator is not supported")
            lines.append(f"  {node.op_type}, node {node.name!r}, domain "
                         f"{node.domain or 'ai.onnx'!r}, opset {version}: {reason}")
        if lines:
            shown = lines[:_MOST_LISTED]
            if len(lines) > len(shown):
                shown.append(f"  ... and {len(lines) - len(shown)} more")
            raise UnsupportedModel(
                f"{len(lines)} nodes of the model cannot be imported:\n" + "\n".join(shown) +
                "\nReplace these operators where the model is exported, or add a lowering to "
                "tinynn/onnx.")

    def graph(self, name: str, shapes: Mapping[str, Sequence[int]]) -> Graph:
        proto = self.proto.graph
        stored = {t.name for t in proto.initializer}
        inputs: dict[str, Node] = {}
        for info in proto.input:
            if info.name in stored:  # before IR version 4 initialisers are listed as inputs too
                continue
            if info.name in inputs:
                raise ModelError(f"two inputs are called {info.name!r}")
            try:
                dtype, shape = declared(info, shapes)
            except UnsupportedModel as error:
                raise UnsupportedModel(f"{error}{self._read_by(info.name)}") from error
            inputs[info.name] = ir.input_(info.name, dtype, shape)
        dimensions = {d.dim_param for info in proto.input for d in info.type.tensor_type.shape.dim}
        if unknown := sorted(set(shapes) - set(inputs) - dimensions):
            raise ModelError(f"a shape is given for {unknown}; the inputs are {list(inputs)}")
        names = [o.name for o in proto.output]
        if len(set(names)) != len(names):
            raise ModelError(f"an output is listed twice: {names}")
        results = self.lower_graph(proto, dict(inputs), self.opsets)
        return Graph(name, inputs, _flat(dict(zip(names, results, strict=True))))

    def _read_by(self, name: str) -> str:
        """Which node needs a value that cannot be read, for an error message; "" if none does."""
        readers = (n for n in _all_nodes(self.proto.graph) if name in n.input)
        return next((f"; {_label(n)}, opset {opset_of(n, self.opsets)}, reads it"
                     for n in readers), "")

    def lower_graph(self, proto: Any, values: Values, opsets: Opsets) -> list[Value]:
        """Outputs of a graph, given the values it can see; adds its own values to them."""
        if proto.sparse_initializer:
            raise UnsupportedModel("sparse initialisers are not supported")
        for t in proto.initializer:
            try:
                values[t.name] = ir.const(tensor(t, self.folder))
            except UnsupportedModel as error:
                reader = self._read_by(t.name)
                if reader:
                    raise UnsupportedModel(f"initialiser {t.name!r}: {error}{reader}") from error
            except ModelError as error:
                raise ModelError(f"initialiser {t.name!r}: {error}") from error
        return self.lower_nodes(proto, [o.name for o in proto.output], values, opsets)

    def lower_nodes(self, proto: Any, outputs: Sequence[str], values: Values, opsets: Opsets
                    ) -> list[Value]:
        """The values of these names after all nodes of a graph or function."""
        for node in _in_order(proto, values):
            label = f"{_label(node)}, opset {opset_of(node, opsets)}"
            try:
                self._lower_node(node, values, opsets)
            except ModelError as error:
                raise type(error)(f"{label}: {error}") from error
            except GraphError as error:
                raise ModelError(f"{label}: {error}") from error
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                # What numpy and Python say about operands that no rule of ours has refused.
                raise ModelError(f"{label}: the operands do not fit: {error}") from error
        results = [values.get(name) for name in outputs]
        missing = [name for name, r in zip(outputs, results, strict=True) if r is None]
        if missing:
            raise ModelError(f"no node makes the outputs {missing}")
        return [r for r in results if r is not None]

    def _lower_node(self, node: Any, values: Values, opsets: Opsets) -> None:
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            raise UnsupportedModel(f"the model has more than {_MOST_NODES} nodes once its loops "
                                   "and functions are written out")
        inputs = [values[name] if name else None for name in node.input]
        opset = opset_of(node, opsets)
        lowering = LOWER.get(_key(node))
        if lowering is None or opset < lowering.since:
            results = self._lower_function(node, inputs, opsets)
        else:
            call = Call(
                op=node.op_type, opset=opset,
                attributes={a.name: attribute(a, self.folder) for a in node.attribute},
                outputs=len(node.output),
                lower_graph=lambda inner, given: self._lower_subgraph(inner, given, values, opsets))
            results = call.apply(lowering, inputs)
        made = [(name, r) for name, r in zip(node.output, results, strict=True) if name]
        missing = [name for name, result in made if result is None]
        if missing:
            raise UnsupportedModel(f"its outputs {missing} are not supported")
        values.update((name, self._folded(r)) for name, r in made if r is not None)

    def _lower_subgraph(self, proto: Any, given: Sequence[Value | None], outside: Values,
                        opsets: Opsets) -> list[Value]:
        """Outputs of a graph attribute; `given` are its inputs in order."""
        names = [i.name for i in proto.input]
        if len(names) != len(given):
            raise ModelError(f"the graph {proto.name!r} takes {len(names)} inputs, not "
                             f"{len(given)}")
        return self.lower_graph(proto, outside | dict(zip(names, given, strict=True)), opsets)

    def _lower_function(self, node: Any, inputs: Sequence[Value | None], opsets: Opsets
                        ) -> list[Value | None]:
        """The outputs of an operator by the function that the ONNX standard defines for it."""
        body = body_of(node, inputs, opset_of(node, opsets))
        if body is None:
            raise UnsupportedModel("this operator is not supported")
        absent = [None] * (len(body.input) - len(inputs))
        values: Values = dict(zip(body.input, [*inputs, *absent], strict=True))
        wanted = [name for name, asked in zip(body.output, node.output, strict=False) if asked]
        inner = {**opsets, **opset_versions(body)}
        results = iter(self.lower_nodes(body, wanted, values, inner))
        return [next(results) if asked else None for asked in node.output]

    def _folded(self, value: Value) -> Value:
        if isinstance(value, Absent):
            return value
        if isinstance(value, TensorList):
            return TensorList(tuple(simplify.fold(value.items, self.folded)))
        return simplify.fold([value], self.folded)[0]


def _flat(results: Mapping[str, Value]) -> dict[str, Node]:
    """Outputs of a graph: a sequence becomes one output per tensor."""
    flat: dict[str, Node] = {}
    for name, value in results.items():
        if isinstance(value, TensorList):
            flat.update((sequence_item(name, i), item) for i, item in enumerate(value.items))
        elif isinstance(value, Absent):
            raise UnsupportedModel(f"the output {name!r} is an optional without a value")
        else:
            flat[name] = value
    return flat


def sequence_item(name: str, index: int | str) -> str:
    """What the tensors of an output that is a sequence are called."""
    return f"{name}.{index}"


def _in_order(graph: Any, known: Mapping[str, Any]) -> list[Any]:
    """Nodes sorted so that each comes after those whose outputs it reads."""
    maker: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in maker or name in known:
                raise ModelError(f"{_label(node)}: the name {name!r} is already taken")
            maker[name] = i
    order: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for i, node in enumerate(graph.node):
        inside = {name for g in _subgraphs(node) for n in _all_nodes(g) for name in n.output}
        inside |= {t.name for g in _subgraphs(node) for t in g.initializer}
        unknown = [name for name in node.input if name and name not in maker and name not in known]
        if unknown:
            raise ModelError(f"{_label(node)}: nothing makes its input {unknown[0]!r}")
        order.add(i, *(maker[name] for name in _reads(node)
                       if name in maker and name not in inside))
    try:
        return [graph.node[i] for i in order.static_order()]
    except graphlib.CycleError as error:
        cycle = ", ".join(_label(graph.node[i]) for i in error.args[1][:5])
        raise ModelError(f"the graph has a cycle: {cycle}") from error
