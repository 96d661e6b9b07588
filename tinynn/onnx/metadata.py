"""Metadata of a model as plain data.

openpilot's models say where their outputs lie in a dict of Python slices that is pickled and kept
as base64 text. A pickle is a program, so it is never run: a small reader follows its opcodes and
knows only those that build plain data. Anything else is refused by name.
"""
from __future__ import annotations

import base64
import binascii
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from tinynn.ir import Graph
from tinynn.onnx.errors import MetadataError

_MOST_PICKLE_BYTES = 1 << 20
_MOST_OPCODES = 100_000
_MOST_TEXT = 1 << 16


def read_metadata(proto: Any, graph: Graph) -> dict[str, Any]:
    """Plain metadata of a ModelProto, whose outputs are those of `graph`.

    {"output_slices": name -> [start, stop, step], "model_checkpoint": text, "props": all other
    texts}; the first two only if the file has them. Raises MetadataError.
    """
    props: dict[str, str] = {}
    for entry in proto.metadata_props:
        if entry.key in props:
            raise MetadataError(f"the metadata has two entries called {entry.key!r}")
        props[entry.key] = entry.value
    metadata: dict[str, Any] = {}
    if "output_slices" in props:
        slices = decode_slices(props.pop("output_slices"))
        check_slices(slices, graph)
        metadata["output_slices"] = slices
    for key, value in props.items():
        if len(value) > _MOST_TEXT:
            raise MetadataError(f"the metadata entry {key!r} has {len(value)} characters, "
                                f"more than {_MOST_TEXT}")
    if "model_checkpoint" in props:
        metadata["model_checkpoint"] = props.pop("model_checkpoint")
    metadata["props"] = props
    return metadata


def decode_slices(text: str) -> dict[str, list[int | None]]:
    """base64 text of a pickled dict name -> slice, as name -> [start, stop, step]."""
    if len(text) > _MOST_PICKLE_BYTES:
        raise MetadataError(f"output_slices has {len(text)} characters, which is not sane")
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MetadataError(f"output_slices is not base64 text: {error}") from error
    value = read_pickle(data)
    if not isinstance(value, dict):
        raise MetadataError(f"output_slices holds a {type(value).__name__}, not a dict")
    slices: dict[str, list[int | None]] = {}
    for name, part in value.items():
        if not isinstance(name, str) or not isinstance(part, slice):
            raise MetadataError(f"output_slices maps {name!r:.60} to a {type(part).__name__}; "
                                "it should map names to slices")
        ends = [part.start, part.stop, part.step]
        if not all(e is None or type(e) is int for e in ends) or part.step == 0:
            raise MetadataError(f"the slice {name!r} is not made of integers, or its step is 0")
        slices[name] = ends
    return slices


def check_slices(slices: Mapping[str, list[int | None]], graph: Graph) -> None:
    """Raise MetadataError if a slice leaves the last axis of `outputs` (or of the only output).

    Negative and open ends count from the end, as Python has it.
    """
    output = graph.outputs.get("outputs")
    if output is None and len(graph.outputs) == 1:
        output = next(iter(graph.outputs.values()))
    if output is None or not output.shape:
        raise MetadataError("the metadata has output_slices, but the model has no output called "
                            f"'outputs' with an axis; it has {list(graph.outputs)}")
    width = output.shape[-1]
    for name, (start, stop, step) in slices.items():
        if any(end is not None and not -width <= end <= width for end in (start, stop)):
            raise MetadataError(f"output_slices: {name!r} is [{start}, {stop}, {step}], which is "
                                f"outside the model's output of width {width}")


# The restricted pickle reader

_MARK = object()

# Globals that may be called: what they are for, and how to build it from the arguments.
_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
    ("collections", "OrderedDict"): lambda items=(): dict(items),
}

# Opcodes that push their own argument.
_VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"})
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and memo of a pickle that builds plain data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return _plain(self.stack.pop())

    def pop_to_mark(self) -> list[Any]:
        at = max(i for i, value in enumerate(self.stack) if value is _MARK)
        values = [_plain(value) for value in self.stack[at + 1:]]
        del self.stack[at:]
        return values

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise MetadataError(f"a {type(self.stack[-1]).__name__} stands where a "
                                f"{kind.__name__} should be")
        return self.stack[-1]

    def put_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str):
                raise MetadataError(f"a dict has a {type(key).__name__} as key, not a text")
            target[key] = value

    def push_global(self, module: Any, name: Any) -> None:
        # Nothing but a text is shown: the repr of nested tuples can be endless.
        if not isinstance(module, str) or not isinstance(name, str):
            raise MetadataError("the pickle asks for a global whose name is not a text")
        if (module, name) not in _GLOBALS:
            raise MetadataError(f"the pickle asks for {module:.60}.{name:.60}, which is refused: "
                                "only slice and OrderedDict are allowed")
        self.stack.append(_Global(module, name))

    def call(self) -> None:
        arguments, function = self.pop(), self.stack.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise MetadataError("the pickle calls something that is not slice or OrderedDict")
        self.stack.append(_GLOBALS[function.module, function.name](*arguments))


class _Global:
    """slice or OrderedDict, not yet called; no value of its own."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


def _plain(value: Any) -> Any:
    """The value; raises MetadataError if it is a mark or an uncalled global."""
    if value is _MARK or isinstance(value, _Global):
        raise MetadataError("something stands where a plain value should be")
    return value


def read_pickle(data: bytes) -> Any:
    """The plain data in a pickle of any protocol: dicts with text keys, lists, tuples, texts,
    bytes, numbers, bools, None and slices. Raises MetadataError on everything else; runs nothing.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count > _MOST_OPCODES:
                raise MetadataError(f"the pickle has more than {_MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                value = machine.pop()
                if machine.stack or position != len(data) - 1:
                    raise MetadataError("something is left over behind the pickled value")
                return value
            _step(machine, opcode.name, argument)
    except MetadataError as error:
        raise MetadataError(f"pickled metadata: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise MetadataError(f"pickled metadata is damaged: {error}") from error
    raise MetadataError("pickled metadata is damaged: it does not end")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    """Follow one opcode."""
    stack = machine.stack
    if name in ("PROTO", "FRAME"):
        return
    if name in _VALUES:
        stack.append(argument)
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name == "MARK":
        stack.append(_MARK)
    elif name in _TUPLES:
        stack.append(tuple(reversed([machine.pop() for _ in range(_TUPLES[name])])))
    elif name == "TUPLE":
        stack.append(tuple(machine.pop_to_mark()))
    elif name == "LIST":
        stack.append(machine.pop_to_mark())
    elif name == "DICT":
        items = machine.pop_to_mark()
        stack.append({})
        machine.put_items(items)
    elif name == "SETITEM":
        value, key = machine.pop(), machine.pop()
        machine.put_items([key, value])
    elif name == "SETITEMS":
        machine.put_items(machine.pop_to_mark())
    elif name == "APPEND":
        value = machine.pop()
        machine.top(list).append(value)
    elif name == "APPENDS":
        values = machine.pop_to_mark()
        machine.top(list).extend(values)
    elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
        machine.memo[len(machine.memo) if argument is None else argument] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(machine.memo[argument])
    elif name == "GLOBAL":
        machine.push_global(*argument.split(" ", 1))
    elif name == "STACK_GLOBAL":
        attribute, module = machine.pop(), machine.pop()
        machine.push_global(module, attribute)
    elif name == "REDUCE":
        machine.call()
    else:
        raise MetadataError(f"the opcode {name} is refused")
