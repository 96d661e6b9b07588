"""Graphs as text that can be pasted back: one line per node.

    graph "tiny"
    metadata {}
    %0 = INPUT f32[2,3] "x"
    %1 = CONST f32[] 0.5
    %2 = RESHAPE f32[1,1] %1
    %3 = EXPAND f32[2,3] %2
    %4 = MUL f32[2,3] %0 %3
    input "x" %0
    output "y" %4

Behind the dtype and shape come the sources, then the argument as JSON. Constants of up to 16
elements are written out so that every bit survives; larger ones appear as their sha256, and
`constants` gives the arrays that `parse_graph` needs to read such a text back.
"""
from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynn.ir import Const, DType, Graph, GraphError, Node, Op, node
from tinynn.spec import check, check_node, numbered

Array = np.ndarray[Any, Any]

# Constants with more elements are written as their digest.
MOST_INLINE = 16


class TextError(ValueError):
    """The text is not a graph; the message says the line and the reason."""


def constants(graph: Graph) -> dict[str, Array]:
    """sha256 -> array, of the constants that the graph's text does not write out."""
    return {n.arg.digest: n.arg.array for n in numbered(graph)
            if n.op is Op.CONST and n.size > MOST_INLINE}


def print_graph(graph: Graph) -> str:
    """The graph as text; the head of this file shows one."""
    numbers = numbered(graph)
    lines = [f"graph {json.dumps(graph.name)}",
             f"metadata {json.dumps(graph.metadata)}"]
    lines += [_node_line(n, numbers) for n in numbers]
    lines += [f"input {json.dumps(name)} %{numbers[n]}" for name, n in graph.inputs.items()]
    lines += [f"output {json.dumps(name)} %{numbers[n]}" for name, n in graph.outputs.items()]
    lines += [f"state {json.dumps(a)} {json.dumps(b)}" for a, b in graph.state.items()]
    return "\n".join(lines) + "\n"


def _node_line(n: Node, numbers: Mapping[Node, int]) -> str:
    shape = ",".join(map(str, n.shape))
    words = [f"%{numbers[n]} = {n.op.name} {n.dtype.value}[{shape}]"]
    words += [f"%{numbers[s]}" for s in n.src]
    if n.op is Op.CONST:
        words.append(_print_const(n.arg))
    elif n.arg is not None:
        words.append(json.dumps(n.arg))
    return " ".join(words)


# Constants: `0.5`, `[1, 2]`, or `sha256:...`

def _print_const(value: Const) -> str:
    if value.array.size > MOST_INLINE:
        return f"sha256:{value.digest}"
    words = [_print_number(v) for v in value.array.reshape(-1)]
    return words[0] if value.array.ndim == 0 else f"[{', '.join(words)}]"


def _print_number(value: Any) -> str:
    """The shortest decimal that reads back to the same bits; odd NaNs as their bits."""
    if value.dtype == np.bool_:
        return "true" if value else "false"
    if DType.of(value.dtype).is_integer:
        return str(int(value))
    for word in (str(value), repr(float(value))):
        if _read_number(word, value.dtype).tobytes() == value.tobytes():
            return word
    return "bits:0x" + value.tobytes()[::-1].hex()


def _read_number(word: str, dtype: np.dtype[Any]) -> Any:
    """Raises ValueError for a word that is not a number of this dtype."""
    if word.startswith("bits:0x"):
        data = bytes.fromhex(word.removeprefix("bits:0x"))[::-1]
        if len(data) != dtype.itemsize:
            raise ValueError(f"{word!r} does not have {dtype.itemsize} bytes")
        return np.frombuffer(data, dtype)[0]
    if dtype == np.bool_:
        return np.bool_({"true": True, "false": False}[word])
    if DType.of(dtype).is_integer:
        limits, number = np.iinfo(dtype), int(word)
        if not limits.min <= number <= limits.max:
            raise ValueError(f"{word} does not fit {dtype}")
        return dtype.type(number)
    # A finite word that overflows the dtype gives inf, which would not be what was written.
    with np.errstate(over="ignore"):
        number_read = np.asarray(float(word)).astype(dtype)[()]
    if math.isfinite(float(word)) and not math.isfinite(float(number_read)):
        raise ValueError(f"{word} does not fit {dtype}")
    return number_read


# Reading

_HEAD = re.compile(r"%(\d+) = ([A-Z0-9]+) ([a-z0-9]+)\[([\d,]*)\]((?: %\d+)*)(?: (?!%)(.*))?")
_BORDER = re.compile(r'(input|output) ("(?:[^"\\]|\\.)*") %(\d+)')
_STATE = re.compile(r'state ("(?:[^"\\]|\\.)*") ("(?:[^"\\]|\\.)*")')


def parse_graph(text: str, consts: Mapping[str, Array] | None = None) -> Graph:
    """The graph that was printed; `consts`: arrays of the constants given by sha256.

    Raises TextError for a line that is not understood, naming line and reason, and GraphError if
    the lines are fine but the whole breaks a rule of spec.py.
    """
    graph = Graph("", {}, {})
    nodes: dict[int, Node] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            _read_line(line, graph, nodes, consts or {})
        except (GraphError, KeyError, ValueError) as error:
            reason = f"unknown name {error}" if isinstance(error, KeyError) else str(error)
            raise TextError(f"line {number}: {reason}\n    {line:.100}") from error
    check(graph)
    return graph


def _read_line(line: str, graph: Graph, nodes: dict[int, Node],
               consts: Mapping[str, Array]) -> None:
    keyword, _, rest = line.partition(" ")
    if keyword.startswith("%"):
        number, n = _read_node(line, nodes, consts)
        if number in nodes:
            raise ValueError(f"%{number} is defined twice")
        nodes[number] = n
    elif keyword == "graph":
        graph.name = _read_json(rest, str)
    elif keyword == "metadata":
        graph.metadata = _read_json(rest, dict)
    elif match := _BORDER.fullmatch(line):
        border = graph.inputs if keyword == "input" else graph.outputs
        name = _read_json(match[2], str)
        if name in border:
            raise ValueError(f"{keyword} {name!r} is listed twice")
        border[name] = _known(nodes, match[3])
    elif match := _STATE.fullmatch(line):
        graph.state[_read_json(match[1], str)] = _read_json(match[2], str)
    else:
        raise ValueError("this is not a node, graph, metadata, input, output or state line")


def _read_json(text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"expected JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"expected a {kind.__name__}, got {text:.40}")
    return value


def _known(nodes: Mapping[int, Node], number: str) -> Node:
    if int(number) not in nodes:
        raise ValueError(f"%{number} is not defined above")
    return nodes[int(number)]


def _read_node(line: str, nodes: Mapping[int, Node],
               consts: Mapping[str, Array]) -> tuple[int, Node]:
    match = _HEAD.fullmatch(line)
    if match is None:
        raise ValueError("expected '%number = OP dtype[shape] %sources argument'")
    number, op_name, dtype_name, dims, sources, argument = match.groups()
    if op_name not in Op.__members__:
        raise ValueError(f"there is no operation {op_name}")
    op, dtype = Op[op_name], DType(dtype_name)
    shape = tuple(int(n) for n in dims.split(",") if n)
    src = [_known(nodes, word[1:]) for word in sources.split()]
    arg: Any = None
    if op is Op.CONST:
        arg = Const(_read_const(argument or "", dtype, shape, consts))
    elif argument is not None:
        arg = _argument(_read_json(argument, object))
    made = node(op, dtype, shape, src, arg)
    check_node(made)
    return int(number), made


def _argument(value: Any) -> Any:
    """JSON as nodes keep it: lists as tuples, every NaN as the one `math.nan`."""
    if isinstance(value, list):
        return tuple(map(_argument, value))
    return math.nan if isinstance(value, float) and math.isnan(value) else value


def _read_const(text: str, dtype: DType, shape: tuple[int, ...],
                consts: Mapping[str, Array]) -> Array:
    if text.startswith("sha256:"):
        digest = text.removeprefix("sha256:")
        if digest not in consts:
            raise ValueError(f"the constant {digest} is not among the {len(consts)} given ones")
        array = consts[digest]
        if Const(array).digest != digest:
            raise ValueError(f"the array given for constant {digest} has another sha256")
        return array
    words = text.removeprefix("[").removesuffix("]").replace(",", " ").split()
    if len(words) != math.prod(shape):
        raise ValueError(f"{len(words)} numbers for the shape {shape}")
    values = np.array([_read_number(word, dtype.numpy) for word in words], dtype.numpy)
    return values.reshape(shape)
