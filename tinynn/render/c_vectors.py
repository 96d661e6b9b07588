"""Values as vectors: neighbouring points along one axis are computed side by side.

A compiler vectorises loops over scalars too, but it does not know the short forms of exp2 and of
strided reads, and it finishes the end of a row one by one. Here a row ends with a whole vector that
overlaps the one before it: the same results are stored twice.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

from tinynn.index import Axis, RunTime
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Kernel, Literal, Load, Reduction, Tensor, Value, values_of
from tinynn.render.c_values import Block, Scope, index_text, literal

# Op -> C expression of vectors; the first argument is the C type of a vector.
OPERATIONS: dict[Op, Callable[..., str]] = {
    Op.ADD: lambda kind, a, b: f"({a} + {b})",
    Op.MUL: lambda kind, a, b: f"({a} * {b})",
    Op.DIV: lambda kind, a, b: f"({a} / {b})",
    Op.MAX: lambda kind, a, b: f"select_{kind}(({a} > {b}) | ({a} != {a}), {a}, {b})",
    Op.EXP2: lambda kind, a: f"exp2_{kind}({a})",
    Op.LT: lambda kind, a, b: f"({a} < {b})",
    Op.EQ: lambda kind, a, b: f"({a} == {b})",
    Op.WHERE: lambda kind, condition, a, b: f"select_{kind}({condition}, {a}, {b})",
    Op.CAST: lambda kind, a: a,  # vectors of u8 or bf16 are vectors of f32 that hold such numbers
}
_CASTS = ((DType.F32, DType.U8), (DType.U8, DType.F32), (DType.F32, DType.BF16))
# Elements from one lane to the next in memory.
STEPS = {DType.F32: (0, 1, 2), DType.U8: (0, 1, 2, 4, 8), DType.BF16: (0, 1, 2)}
NARROW = (DType.BF16, DType.U8, DType.I8)  # to what vectors of f32 are converted when stored


def has_vectors(value: Value, axis: Axis, hidden: Reduction | None = None) -> bool:
    """Whether the value can be written by a VectorScope along the axis; `hidden` is known."""
    return all(_has_vector(v, axis) for v in values_of([value], hidden))


def _has_vector(value: Value, axis: Axis) -> bool:
    if isinstance(value, Literal):
        return value.dtype is DType.F32
    if isinstance(value, Load):
        offset = value.offset
        reachable = offset.coefficient(axis) in STEPS.get(value.dtype, ())
        hides = any(not isinstance(a, Axis) and (isinstance(a, RunTime) or axis in a.dividend.axes)
                    for a, _ in offset.terms)
        return reachable and not value.when and not hides
    if not isinstance(value, Compute) or value.op not in OPERATIONS:
        return False
    if value.op is Op.CAST:
        return (value.dtype, value.src[0].dtype) in _CASTS
    return value.src[-1].dtype is DType.F32


def stores_vectors(kernel: Kernel, axis: Axis) -> bool:
    """Whether the results of a kernel can be finished and stored as vectors along the axis."""
    value = unrounded(kernel.value)
    return (kernel.scatter is None and value.dtype is DType.F32 and not kernel.runtime
            and kernel.offset.coefficient(axis) == 1
            and not any(not isinstance(a, Axis) and axis in a.dividend.axes
                        for a, _ in kernel.offset.terms if not isinstance(a, RunTime))
            and has_vectors(value, axis, kernel.reduction))


def unrounded(value: Value) -> Value:
    """The value without a last conversion that storing it does."""
    narrows = isinstance(value, Compute) and value.op is Op.CAST and value.dtype in NARROW
    return value.src[0] if isinstance(value, Compute) and narrows else value


class VectorScope(Scope):
    """Writes values at `lanes` points: the one that the axis is at, and those that follow it."""

    def __init__(self, block: Block, pointers: Mapping[Tensor, str], axis: Axis, lanes: int,
                 known: Mapping[int, str] | None = None) -> None:
        super().__init__(block, pointers, {}, known)
        self.axis = axis
        self.kind = f"f32x{lanes}"

    def _write(self, value: Value) -> str:
        if isinstance(value, Literal):
            text = f"splat_{self.kind}({literal(value.value, value.dtype)})"
        elif isinstance(value, Load):
            place = f"{self.pointers[value.tensor]} + {index_text(value.offset)}"
            step = value.offset.coefficient(self.axis)
            kind = f"{value.dtype.value}_{self.kind}"
            if value.dtype is DType.F32:
                kind = self.kind
            text = f"load{step}_{kind}({place})" if step != 1 else f"load_{kind}({place})"
        else:
            assert isinstance(value, Compute)
            text = OPERATIONS[value.op](self.kind, *(self.write(s) for s in value.src))
            if value.dtype is DType.U8:
                text = f"whole_byte_{self.kind}({text})"
        name = f"{self.prefix}{self.count}"
        self.count += 1
        mask = "i" if value.dtype is DType.BOOL else "f"
        self.block.add(f"const {mask}{self.kind[1:]} {name} = {text};")
        return name


def open_vectors(block: Block, name: str, start: str, end: str, lanes: int) -> None:
    """Open a loop over the vectors of start .. end, of which there are at least `lanes` points."""
    block.open(f"for (int64_t next_{name} = {start}; next_{name} < {end}; next_{name} += {lanes})")
    block.add(f"const int64_t {name} = smaller(next_{name}, {end} - {lanes});")


def finish_vectors(block: Block, pointers: Mapping[Tensor, str], kernel: Kernel, axis: Axis,
                   lanes: int, total: str) -> None:
    """Epilogue and store of a vector of results; `total` is where their sums are."""
    kind = f"f32x{lanes}"
    block.add(f"const {kind} reduced = load_{kind}({total});")
    store_vector(block, pointers, kernel, axis, lanes, {id(kernel.reduction): "reduced"})


def store_vector(block: Block, pointers: Mapping[Tensor, str], kernel: Kernel, axis: Axis,
                 lanes: int, known: Mapping[int, str] | None = None) -> None:
    """Write a vector of results and store it."""
    scope = VectorScope(block, pointers, axis, lanes, known)
    text = scope.write(unrounded(kernel.value))
    dtype = kernel.tensor.dtype
    kind = f"{dtype.value}_{scope.kind}" if dtype in NARROW else scope.kind
    block.add(f"store_{kind}(out + {index_text(kernel.offset)}, {text});")
