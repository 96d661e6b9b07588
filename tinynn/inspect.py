"""What is in a graph, for people: `tinynn inspect MODEL`."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinynn.ir import Graph, Node, Op


@dataclass(frozen=True)
class Costs:
    """Size and work of a graph.

    parameters: elements of its constants; parameter_nbytes: their bytes. macs: multiply-adds of
    its contractions (sums of products). io_nbytes: bytes of all inputs and outputs.
    """

    parameters: int
    parameter_nbytes: int
    macs: int
    io_nbytes: int


def costs(graph: Graph) -> Costs:
    nodes = graph.nodes()
    constants = [n for n in nodes if n.op is Op.CONST]
    borders = [*graph.inputs.values(), *graph.outputs.values()]
    return Costs(
        parameters=sum(n.size for n in constants),
        parameter_nbytes=sum(n.nbytes for n in constants),
        macs=sum(n.src[0].size for n in nodes if _is_contraction(n)),
        io_nbytes=sum(n.nbytes for n in borders))


def _is_contraction(n: Node) -> bool:
    return n.op is Op.REDUCE and n.arg[0] == "sum" and n.src[0].op is Op.MUL


def describe(graph: Graph) -> str:
    """A page about the graph: borders, sizes, operations, output slices, other metadata."""
    total = costs(graph)
    source = graph.metadata.get("source", {})
    lines = [f"model       {graph.name}"]
    if source:
        opsets = ", ".join(f"{domain} {version}" for domain, version in source["opsets"].items())
        lines.append(f"source      ONNX, opset {opsets}")
    lines += [_border("input", name, n) for name, n in graph.inputs.items()]
    lines += [_border("output", name, n) for name, n in graph.outputs.items()]
    lines += [f"state       {name} <- {after}" for name, after in graph.state.items()]
    lines += [f"parameters  {total.parameters / 1e6:.3f} M, {total.parameter_nbytes / 1e6:.2f} MB",
              f"work        {total.macs / 1e9:.4f} GMAC in contractions",
              f"in and out  {total.io_nbytes / 1e6:.3f} MB per run"]
    if source:
        lines += _histogram("ONNX ops", source["ops"])
    lines += _histogram("graph ops", Counter(n.op.value for n in graph.nodes()))
    lines += _slices(graph)
    if "model_checkpoint" in graph.metadata:
        lines.append(f"checkpoint  {graph.metadata['model_checkpoint']}")
    lines += [f"metadata    {key} = {value:.60}"
              for key, value in graph.metadata.get("props", {}).items()]
    return "\n".join(lines)


def _border(kind: str, name: str, n: Node) -> str:
    return f"{kind:<12}{name} {n.dtype.value}[{','.join(map(str, n.shape))}]"


def _histogram(title: str, counts: Mapping[str, int]) -> list[str]:
    """`title  a 12  b 3 ...`, most frequent first, a few per line."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{name} {count}" for name, count in ranked]
    rows = [words[i:i + 8] for i in range(0, len(words), 8)]
    return [f"{title if i == 0 else '':<12}{'  '.join(row)}" for i, row in enumerate(rows)]


def _slices(graph: Graph) -> list[str]:
    """Table of the output slices: name, range as written, number of values."""
    slices: dict[str, Any] = graph.metadata.get("output_slices", {})
    if not slices:
        return []
    outputs = graph.outputs
    width = outputs.get("outputs", next(iter(outputs.values()))).shape[-1]
    lines = ["slices      name                        start   stop  values"]
    for name, ends in slices.items():
        start, stop = ("-" if end is None else str(end) for end in ends[:2])
        values = len(range(*slice(*ends).indices(width)))
        lines.append(f"            {name:<26} {start:>6} {stop:>6} {values:>7}")
    return lines
