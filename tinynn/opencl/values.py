"""Values as OpenCL C, one element at a time or as a vector of neighbours along one loop axis.

A variable of dtype f16 or bf16 is a `float` that holds a number of that type. A truth value is an
`int`: 0 or 1 as a scalar, 0 or -1 in a vector, as the language has it. Indices are 32-bit.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from tinynn.index import Axis, Expr, Quotient, Remainder, RunTime, Within, of
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Guard, Kernel, Literal, Load, Tensor, Value, value_axes
from tinynn.render import lines
from tinynn.render.lines import index_text, rounded

# Type in memory, and type of a variable. Halves are read and written by vload_half, vstore_half.
STORAGE = {
    DType.BOOL: "uchar", DType.U8: "uchar", DType.I8: "char", DType.U16: "ushort",
    DType.I16: "short", DType.U32: "uint", DType.I32: "int", DType.U64: "ulong",
    DType.I64: "long", DType.F16: "half", DType.BF16: "ushort", DType.F32: "float",
    DType.F64: "double",
}
VARIABLE = STORAGE | {DType.F16: "float", DType.BF16: "float", DType.BOOL: "int"}

# What vectors are made of; everything else is computed one element at a time.
WIDE_LOADS = frozenset({DType.F32, DType.F16, DType.U8, DType.I32, DType.BOOL})
_WIDE_TYPES = frozenset({DType.F32, DType.BOOL, DType.I32})
_WIDE_INTEGER_OPS = frozenset({Op.ADD, Op.MUL, Op.LT, Op.EQ, Op.WHERE, Op.CAST})


class Block(lines.Block):
    """Lines of OpenCL C."""

    integer = "int"


class Access(Protocol):
    """How elements of tensors are read: plain pointers here, images elsewhere."""

    def element(self, load: Load, index: Sequence[Expr]) -> str:
        """The element at an index, as a variable."""

    def vector(self, load: Load, index: Sequence[Expr], width: int) -> str | None:
        """`width` neighbours in memory from an index on, or None if they must be read singly."""


class Pointers:
    """Tensors as row-major arrays behind pointers of these names."""

    def __init__(self, names: Mapping[Tensor, str]) -> None:
        self.names = names

    def element(self, load: Load, index: Sequence[Expr]) -> str:
        return element(self.names[load.tensor], _offset(load, index), load.tensor.memory)

    def vector(self, load: Load, index: Sequence[Expr], width: int) -> str | None:
        return vector(self.names[load.tensor], _offset(load, index), load.tensor.memory, width)


def _offset(load: Load, index: Sequence[Expr]) -> str:
    flat = Load(load.tensor, tuple(index)).offset
    return index_text(flat)


def element(pointer: str, offset: str, dtype: DType) -> str:
    """An element in memory as a variable."""
    if dtype is DType.F16:
        return f"vload_half({offset}, {pointer})"
    text = f"{pointer}[{offset}]"
    if dtype is DType.BF16:
        return f"as_float((uint){text} << 16)"
    return f"({text} != 0)" if dtype is DType.BOOL else text


def vector(pointer: str, offset: str, dtype: DType, width: int) -> str:
    """Neighbours in memory as a vector of variables."""
    if dtype is DType.F16:
        return f"vload_half{width}(0, {pointer} + {_operand(offset)})"
    text = f"vload{width}(0, {pointer} + {_operand(offset)})"
    return f"(convert_int{width}({text}) != 0)" if dtype is DType.BOOL else text


def store_element(pointer: str, offset: str, text: str, dtype: DType) -> str:
    """The statement that writes a variable to memory."""
    if dtype is DType.F16:
        return f"vstore_half({text}, {offset}, {pointer});"
    if dtype is DType.BF16:
        text = f"bf16_bits({text})"
    return f"{pointer}[{offset}] = {text};"


def store_vector(pointer: str, offset: str, text: str, dtype: DType, width: int) -> str:
    """The statement that writes a vector of variables to neighbours in memory."""
    if dtype is DType.F16:
        return f"vstore_half{width}({text}, 0, {pointer} + {_operand(offset)});"
    if dtype is DType.BOOL:
        text = f"convert_uchar{width}(-({text}))"
    return f"vstore{width}({text}, 0, {pointer} + {_operand(offset)});"


def _operand(text: str) -> str:
    return text if text.isidentifier() or text.isdecimal() else f"({text})"


def literal(value: float | int | bool, dtype: DType) -> str:
    """A number as a constant of exactly that value."""
    with np.errstate(all="ignore"):
        held = np.asarray(value).astype(dtype.numpy).item()
    if dtype.is_float:
        if not math.isfinite(held):
            name = "NAN" if math.isnan(held) else "INFINITY"
            text = f"{'-' if held < 0 else ''}{name}"
        else:
            text = float(held).hex() + ("" if dtype is DType.F64 else "f")
    else:
        suffix = {DType.U32: "u", DType.U64: "ul", DType.I64: "l"}.get(dtype, "")
        # The smallest number of a type is not a constant of that type with a sign before it.
        smallest = dtype in (DType.I32, DType.I64) and held == np.iinfo(dtype.numpy).min
        text = f"{int(held) + 1}{suffix} - 1" if smallest else f"{int(held)}{suffix}"
    return f"({text})" if text.startswith("-") else text


def condition_text(when: Sequence[Within]) -> str:
    """All conditions; one unsigned comparison each."""
    return " && ".join(f"(uint)({index_text(w.expr)}) < {w.size}u" for w in when)


def combine(kind: str, a: str, b: str, dtype: DType, wide: bool = False) -> str:
    """sum, mul, max or min of two variables, as REDUCE and SCATTER define them."""
    if kind == "set":
        return b
    if dtype is DType.BOOL:
        return f"({a} {'|' if kind in ('sum', 'add', 'max') else '&'} {b})"
    if kind in ("max", "min"):
        sign = ">" if kind == "max" else "<"
        if wide:
            return f"select({b}, {a}, ({a} {sign} {b}) | ({a} != {a}))"
        return f"({a} {sign} {b} || {a} != {a} ? {a} : {b})"
    text = f"({a} {'+' if kind in ('sum', 'add') else '*'} {b})"
    return rounded(text, dtype) if dtype.is_float or wide else f"({VARIABLE[dtype]}){text}"


def _divide(dtype: DType, a: str, b: str, wide: bool) -> str:
    if dtype.is_float:
        return rounded(f"({a} / {b})", dtype)
    kind = VARIABLE[dtype]
    exact = f"{a} / {b}"
    if dtype.value.startswith("i"):
        # The smallest value divided by -1 wraps around instead of trapping.
        exact = f"{b} == -1 ? ({kind})(0 - {a}) : {exact}"
    return f"({kind})({b} == 0 ? 0 : {exact})"


def _where(dtype: DType, condition: str, a: str, b: str, wide: bool) -> str:
    return f"select({b}, {a}, {condition})" if wide else f"({condition} ? {a} : {b})"


def _function(name: str) -> Callable[..., str]:
    def call(dtype: DType, x: str, wide: bool) -> str:
        return rounded(f"{name}({x})", dtype)
    return call


# Op -> expression; arguments are the dtype of the (first data) operand and the operands' texts.
OPERATIONS: dict[Op, Callable[..., str]] = {
    Op.EXP2: _function("exp2"),
    Op.LOG2: _function("log2"),
    Op.SIN: _function("sin"),
    Op.SQRT: _function("sqrt"),
    Op.FLOOR: _function("floor"),
    Op.ADD: lambda dtype, a, b, wide: combine("sum", a, b, dtype, wide),
    Op.MUL: lambda dtype, a, b, wide: combine("mul", a, b, dtype, wide),
    Op.DIV: _divide,
    Op.MAX: lambda dtype, a, b, wide: combine("max", a, b, dtype, wide),
    Op.LT: lambda dtype, a, b, wide: (
        f"({b} < {a})" if wide and dtype is DType.BOOL else f"({a} < {b})"),  # true is -1 there
    Op.EQ: lambda dtype, a, b, wide: f"({a} == {b})",
    Op.WHERE: _where,
}


def cast(text: str, source: DType, target: DType, width: int = 1) -> str:
    """Conversion as CAST defines it."""
    size = str(width) if width > 1 else ""
    if target is DType.BOOL:
        return f"({text} != 0)"
    if source is DType.BOOL and width > 1:
        text = f"(-({text}))"
    limit = "_sat" if source.is_float and target.is_integer else ""
    return rounded(f"convert_{VARIABLE[target]}{size}{limit}({text})", target)


def can_be_wide(kernel: Kernel, axis: Axis) -> bool:
    """Whether the values of a kernel may be vectors along the axis."""
    if kernel.scatter or axis in _runtime_axes(kernel) or kernel.tensor.dtype not in WIDE_LOADS:
        return False
    return all(_may_be_wide(v) for v in kernel.values() if axis in value_axes(v, kernel.runtime))


def _runtime_axes(kernel: Kernel) -> set[Axis]:
    """Axes on which indices that are read at run time depend."""
    return {a for v in kernel.runtime.values() for a in value_axes(v, kernel.runtime)}


def _may_be_wide(value: Value) -> bool:
    if isinstance(value, Load):
        return value.dtype in WIDE_LOADS
    if not isinstance(value, Compute):
        return value.dtype in _WIDE_TYPES
    if value.op is Op.CAST:
        return value.dtype in _WIDE_TYPES and value.src[0].dtype in WIDE_LOADS
    kinds = {value.dtype, *(s.dtype for s in value.src)}
    integers = DType.I32 in kinds
    return (value.dtype in _WIDE_TYPES and kinds <= _WIDE_TYPES | {DType.F16}
            and (not integers or value.op in _WIDE_INTEGER_OPS))


class Writer:
    """Writes values as variables into a block; a value that is used twice is written once.

    access: how tensors are read. runtime: values of the run-time indices. known: variables that
    already hold a value, by id of the value. prefix: of the names of new variables.
    lane: the axis whose `width` neighbours one vector holds, from the variable of its name on.
    tail: the condition under which a lane exists, if the last vector of the axis is not full.
    """

    def __init__(self, block: Block, access: Access, runtime: Mapping[str, Value],
                 known: Mapping[int, str] | None = None, prefix: str = "v",
                 lane: Axis | None = None, width: int = 1, tail: Within | None = None) -> None:
        self.block = block
        self.access = access
        self.runtime = runtime
        self.prefix = prefix
        self.lane = lane
        self.width = width
        self.tail = tail
        self.known = dict(known or {})
        self.wide = dict.fromkeys(self.known, width > 1)
        self.indices: set[str] = set()
        self.count = 0

    def write(self, value: Value) -> str:
        """Name (or literal) of the value; what computes it is added to the block."""
        if id(value) not in self.known:
            self.wide[id(value)] = self.is_wide(value)
            self.known[id(value)] = self._write(value)
        return self.known[id(value)]

    def vector(self, value: Value) -> str:
        """The same as a vector, also if all its lanes are equal. Scalars only: as `write`."""
        text = self.write(value)
        if self.width == 1 or self.wide[id(value)]:
            return text
        if value.dtype is DType.BOOL:
            text = f"-({text})"
        return f"({VARIABLE[value.dtype]}{self.width})({text})"

    def is_wide(self, value: Value) -> bool:
        if self.lane is None or self.width == 1 or isinstance(value, Literal):
            return False
        if isinstance(value, Compute | Guard) and any(
                self.wide.get(id(s), False) for s in self._sources(value)):
            return True
        return self.lane in value_axes(value, self.runtime)

    @staticmethod
    def _sources(value: Compute | Guard) -> tuple[Value, ...]:
        return value.src if isinstance(value, Compute) else (value.value,)

    def _write(self, value: Value) -> str:
        if isinstance(value, Literal):
            return literal(value.value, value.dtype)
        if isinstance(value, Compute | Guard):
            for source in self._sources(value):
                self.write(source)
            self.wide[id(value)] = self.is_wide(value)
        wide = self.wide[id(value)]
        if isinstance(value, Load):
            text = self._wide_load(value) if wide else self._load(value)
        elif isinstance(value, Guard):
            text = self._guard(value, wide)
        else:
            assert isinstance(value, Compute), "a reduction is written by the loops of its family"
            text = self._compute(value, wide)
        kind = VARIABLE[value.dtype]
        if isinstance(value, Load) and wide:
            kind = "float" if value.dtype is DType.F16 else kind
        return self.variable(f"{kind}{self.width if wide else ''}", text)

    def variable(self, kind: str, text: str) -> str:
        """Declare a new variable; its name."""
        name = f"{self.prefix}{self.count}"
        self.count += 1
        self.block.add(f"const {kind} {name} = {text};")
        return name

    def _load(self, load: Load) -> str:
        self.prepare([*load.index, *(w.expr for w in load.when)])
        text = self.access.element(load, load.index)
        if not load.when:
            return text
        return f"{condition_text(load.when)} ? {text} : {literal(load.fill, load.dtype)}"

    def _wide_load(self, load: Load) -> str:
        """Neighbours at once where they lie side by side and all are inside, else one by one."""
        self.prepare([*load.index, *(w.expr for w in load.when)])
        lane, width = self.lane, self.width
        assert lane is not None
        when = [*load.when, *([self.tail] if self.tail and self._leaves(load) else [])]
        moving = [w for w in when if lane in w.expr.axes]
        fixed = [w for w in when if lane not in w.expr.axes]
        singly = self._gather(load, moving)
        together = self._together(load)
        if together is None or any(not _monotone(w.expr, lane) for w in moving):
            text = singly
        elif moving:
            last = {lane: of(lane) + (width - 1)}
            ends = [*moving, *(w.substitute(last) for w in moving)]
            text = f"({condition_text(ends)} ? {together} : {singly})"
        else:
            text = together
        if not fixed:
            return text
        kind = VARIABLE[load.dtype]
        return (f"{condition_text(fixed)} ? {text} : "
                f"({kind}{width})({literal(load.fill, load.dtype)})")

    def _leaves(self, load: Load) -> bool:
        """Whether a lane beyond the end of the axis could read outside the tensor."""
        return any(self.lane in e.axes and not Within(e, size).always
                   and Within(e, size) not in load.when
                   for e, size in zip(load.index, load.tensor.shape, strict=True))

    def _together(self, load: Load) -> str | None:
        """One read of neighbours, or two for every second one."""
        lane, width = self.lane, self.width
        assert lane is not None
        offset = load.offset
        step = offset.coefficient(lane)
        if not _monotone(offset, lane) or step not in (1, 2):
            return None
        if step == 1:
            return self.access.vector(load, load.index, width)
        # Two reads that end at the last element needed: beyond it the tensor may end.
        upper = list(load.index)
        upper[-1] = upper[-1] + (width - 1)
        halves = (self.access.vector(load, load.index, width),
                  self.access.vector(load, upper, width))
        if None in halves:
            return None
        return f"({VARIABLE[load.dtype]}{width})({halves[0]}.even, {halves[1]}.odd)"

    def _gather(self, load: Load, moving: Sequence[Within]) -> str:
        lane = self.lane
        assert lane is not None
        parts = []
        for i in range(self.width):
            shift = {lane: of(lane) + i}
            text = self.access.element(load, [e.substitute(shift) for e in load.index])
            if moving:
                inside = condition_text([w.substitute(shift) for w in moving])
                text = f"{inside} ? {text} : {literal(load.fill, load.dtype)}"
            parts.append(f"-({text})" if load.dtype is DType.BOOL else text)
        return f"({VARIABLE[load.dtype]}{self.width})({', '.join(parts)})"

    def _guard(self, guard: Guard, wide: bool) -> str:
        self.prepare([w.expr for w in guard.when])
        fill = literal(guard.fill, guard.dtype)
        if not wide:
            return f"{condition_text(guard.when)} ? {self.write(guard.value)} : {fill}"
        inner = self.vector(guard.value)
        if guard.dtype is DType.BOOL:
            fill = f"-{fill}"
        assert self.lane is not None
        fills = f"({VARIABLE[guard.dtype]}{self.width})({fill})"
        masks = []
        for i in range(self.width):
            shift = {self.lane: of(self.lane) + i}
            masks.append(f"-({condition_text([w.substitute(shift) for w in guard.when])})")
        return f"select({fills}, {inner}, (int{self.width})({', '.join(masks)}))"

    def _compute(self, value: Compute, wide: bool) -> str:
        texts = [self.vector(s) if wide else self.write(s) for s in value.src]
        if value.op is Op.CAST:
            return cast(texts[0], value.src[0].dtype, value.dtype, self.width if wide else 1)
        if value.op is Op.DIV and value.dtype is DType.F32 and isinstance(value.src[1], Literal):
            inverse = _inverse(value.src[1])
            if inverse is not None:
                return f"({texts[0]} * {inverse})"
        return OPERATIONS[value.op](value.src[-1].dtype, *texts, wide)

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
                    kind = "int" if value.dtype.itemsize <= 4 else "long"
                    kind = f"u{kind}" if value.dtype.value.startswith("u") else kind
                    text = f"clamp(({kind}){text}, ({kind})0, ({kind}){atom.size - 1})"
                else:
                    # Out of range stays out of range.
                    text = f"clamp((long){text}, -1l, {2 ** 31 - 1}l)"
                self.block.add(f"const int {atom.name} = (int){text};")
                self.indices.add(atom.name)


def _inverse(divisor: Literal) -> str | None:
    """1 / divisor, to multiply with instead: at most one more rounding, and much faster. None if
    it would leave the range of f32."""
    number = abs(float(divisor.value))
    return literal(1 / float(divisor.value), DType.F32) if 2.0**-100 < number < 2.0**100 else None


def _monotone(expr: Expr, axis: Axis) -> bool:
    """Whether the axis occurs as a multiple only, not inside a quotient or remainder."""
    return all(axis not in atom.dividend.axes for atom, _ in expr.terms
               if isinstance(atom, Quotient | Remainder))


# Functions that the language lacks; f64 is an extension in OpenCL C 1.2.
PREAMBLE = """\
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
inline ushort bf16_bits(float x) {
    const uint bits = as_uint(x);
    return isnan(x) ? 0x7fc0 : (ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float round_bf16(float x) { return as_float((uint)bf16_bits(x) << 16); }
inline float round_f16(float x) {
    ushort place;
    vstore_half(x, 0, (half *)&place);
    return vload_half(0, (const half *)&place);
}
"""
