"""Values as C: literals, loads, index expressions and the elementwise operations.

A value of dtype f16 or bf16 is a C `float` that holds a number of that type; bool is `uint8_t`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tinynn.index import Expr, RunTime, Within
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Guard, Literal, Load, Reduction, Tensor, Value
from tinynn.render.lines import Block, index_text, rounded

# Type in memory, and type of a variable.
STORAGE = {
    DType.BOOL: "uint8_t", DType.U8: "uint8_t", DType.I8: "int8_t", DType.U16: "uint16_t",
    DType.I16: "int16_t", DType.U32: "uint32_t", DType.I32: "int32_t", DType.U64: "uint64_t",
    DType.I64: "int64_t", DType.F16: "uint16_t", DType.BF16: "uint16_t", DType.F32: "float",
    DType.F64: "double",
}
VARIABLE = STORAGE | {DType.F16: "float", DType.BF16: "float"}
_HALVES = frozenset({DType.F16, DType.BF16})


def literal(value: float | int | bool, dtype: DType) -> str:
    """A number as a C constant of exactly that value."""
    with np.errstate(all="ignore"):
        held = np.asarray(value).astype(dtype.numpy).item()
    if dtype.is_float:
        suffix = "" if dtype is DType.F64 else "f"
        if math.isnan(held):
            return f'__builtin_nan{suffix}("")'
        if math.isinf(held):
            return f"{'-' if held < 0 else ''}__builtin_inf{suffix}()"
        text = f"{float(held).hex()}{suffix}"
    elif dtype is DType.U64:
        text = f"{held}ull"
    elif dtype is DType.I64:
        text = f"{held}ll" if held > -(2 ** 63) else "-9223372036854775807ll - 1"
    else:
        text = f"{int(held)}" + ("u" if dtype is DType.U32 else "")
    return f"({text})" if text.startswith("-") else text


def loaded(text: str, dtype: DType) -> str:
    """An element in memory as a variable."""
    return f"load_{dtype.value}({text})" if dtype in _HALVES else text


def to_store(text: str, dtype: DType) -> str:
    """A variable as an element in memory."""
    return f"store_{dtype.value}({text})" if dtype in _HALVES else text


def cast(text: str, source: DType, target: DType) -> str:
    """Conversion as CAST defines it."""
    if target is DType.BOOL:
        return f"({text} != 0)"
    if source.is_float and target.is_integer:
        short = source is not DType.F64 and target.itemsize <= 2
        return f"to_{'f32_' if short else ''}{VARIABLE[target]}({text})"
    if target is DType.F16 and source is DType.F64:
        return f"round_f16(narrow_to_odd({text}))"
    return rounded(f"(({VARIABLE[target]}){text})", target)


def combine(kind: str, a: str, b: str, dtype: DType) -> str:
    """sum, mul, max or min of two variables, as REDUCE and SCATTER define them."""
    if kind == "set":
        return b
    if kind in ("max", "min"):
        sign = ">" if kind == "max" else "<"
        return f"({a} {sign} {b} || {a} != {a} ? {a} : {b})"
    if dtype is DType.BOOL:
        return f"({a} {'|' if kind in ('sum', 'add') else '&'} {b})"
    text = f"({a} {'+' if kind in ('sum', 'add') else '*'} {b})"
    return rounded(text, dtype) if dtype.is_float else f"({VARIABLE[dtype]}){text}"


def _divide(dtype: DType, a: str, b: str) -> str:
    if dtype.is_float:
        return rounded(f"({a} / {b})", dtype)
    kind = VARIABLE[dtype]
    exact = f"{a} / {b}"
    if dtype.value.startswith("i"):
        # The smallest value divided by -1 wraps around instead of trapping.
        exact = f"{b} == -1 ? ({kind})(0 - {a}) : {exact}"
    return f"({kind})({b} == 0 ? 0 : {exact})"


def _function(name: str) -> Callable[[DType, str], str]:
    def call(dtype: DType, x: str) -> str:
        return rounded(f"{name}_{'f64' if dtype is DType.F64 else 'f32'}({x})", dtype)
    return call


def _builtin(name: str) -> Callable[[DType, str], str]:
    def call(dtype: DType, x: str) -> str:
        return rounded(f"__builtin_{name}{'' if dtype is DType.F64 else 'f'}({x})", dtype)
    return call


# Op -> C expression; arguments are the dtype of the (first data) operand and the operands' texts.
OPERATIONS: dict[Op, Callable[..., str]] = {
    Op.EXP2: _function("exp2"),
    Op.LOG2: _function("log2"),
    Op.SIN: _function("sin"),
    Op.SQRT: _builtin("sqrt"),
    Op.FLOOR: _builtin("floor"),
    Op.ADD: lambda dtype, a, b: combine("sum", a, b, dtype),
    Op.MUL: lambda dtype, a, b: combine("mul", a, b, dtype),
    Op.DIV: _divide,
    Op.MAX: lambda dtype, a, b: combine("max", a, b, dtype),
    Op.LT: lambda dtype, a, b: f"({a} < {b})",
    Op.EQ: lambda dtype, a, b: f"({a} == {b})",
    Op.WHERE: lambda dtype, condition, a, b: f"({condition} ? {a} : {b})",
}


def condition_text(when: Sequence[Within]) -> str:
    """All conditions; one unsigned comparison each."""
    return " && ".join(f"(uint64_t)({index_text(w.expr)}) < {w.size}" for w in when)


class Scope:
    """Writes values as variables into a block; a value that is used twice is written once.

    pointers: C name of each tensor. runtime: values of the run-time indices. known: variables that
    already hold a value, by id of the value (for instance the finished reduction).
    prefix: of the names of new variables. indices: run-time indices that have their variables.
    """

    def __init__(self, block: Block, pointers: Mapping[Tensor, str],
                 runtime: Mapping[str, Value], known: Mapping[int, str] | None = None,
                 prefix: str = "v", indices: set[str] | None = None) -> None:
        self.block = block
        self.pointers = pointers
        self.runtime = runtime
        self.prefix = prefix
        self.known = dict(known or {})
        self.indices = set(indices or ())
        self.count = 0

    def write(self, value: Value) -> str:
        """Name (or literal) of the value; what computes it is added to the block."""
        if id(value) not in self.known:
            self.known[id(value)] = self._write(value)
        return self.known[id(value)]

    def _write(self, value: Value) -> str:
        if isinstance(value, Literal):
            return literal(value.value, value.dtype)
        if isinstance(value, Load):
            self.prepare(value.exprs)
            text = loaded(f"{self.pointers[value.tensor]}[{index_text(value.offset)}]", value.dtype)
            if value.when:
                fill = literal(value.fill, value.dtype)
                text = f"{condition_text(value.when)} ? {text} : {fill}"
        elif isinstance(value, Guard):
            self.prepare([w.expr for w in value.when])
            inner = self.write(value.value)
            text = f"{condition_text(value.when)} ? {inner} : {literal(value.fill, value.dtype)}"
        elif isinstance(value, Compute):
            text = self._compute(value)
        else:
            assert isinstance(value, Reduction)
            raise AssertionError("a reduction is written by the loops of its family")
        name = f"{self.prefix}{self.count}"
        self.count += 1
        self.block.add(f"const {VARIABLE[value.dtype]} {name} = {text};")
        return name

    def _compute(self, value: Compute) -> str:
        texts = [self.write(s) for s in value.src]
        if value.op is Op.CAST:
            return cast(texts[0], value.src[0].dtype, value.dtype)
        return OPERATIONS[value.op](value.src[-1].dtype, *texts)

    def prepare(self, exprs: Sequence[Expr]) -> None:
        """Write the run-time indices that the expressions mention."""
        for expr in exprs:
            for atom in sorted((a for a in expr.atoms if isinstance(a, RunTime)),
                               key=lambda a: a.name):
                if atom.name in self.indices:
                    continue
                value = self.runtime[atom.name]
                text = self.write(value)
                if atom.clip:
                    unsigned = value.dtype.value.startswith("u")
                    text = f"clip_{'unsigned' if unsigned else 'signed'}({text}, {atom.size})"
                else:
                    text = f"(int64_t){text}"
                self.block.add(f"const int64_t {atom.name} = {text};")
                self.indices.add(atom.name)
