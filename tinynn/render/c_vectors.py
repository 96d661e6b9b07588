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
    Op.CAST: lambda kind, a: a,  # u8 -> f32: vectors of u8 are converted when they are loaded
}
MOST_STEP = 2  # elements from one lane to the next


def step_along(value: Value, axis: Axis) -> int:
    """Elements by which the loads below a value move along the axis, at most."""
    loads = [v for v in values_of([value]) if isinstance(v, Load)]
    return max((v.offset.coefficient(axis) for v in loads), default=0)


def has_vectors(value: Value, axis: Axis, hidden: Reduction | None = None) -> bool:
    """Whether the value can be written by a VectorScope along the axis; `hidden` is known."""
    return all(_has_vector(v, axis) for v in values_of([value], hidden))


def _has_vector(value: Value, axis: Axis) -> bool:
    if isinstance(value, Literal):
        return value.dtype is DType.F32
    if isinstance(value, Load):
        plain = value.dtype in (DType.F32, DType.U8) and not value.when
        offset = value.offset
        hides = any(not isinstance(a, Axis) and (isinstance(a, RunTime) or axis in a.dividend.axes)
                    for a, _ in offset.terms)
        return plain and not hides and 0 <= offset.coefficient(axis) <= MOST_STEP
    if not isinstance(value, Compute) or value.op not in OPERATIONS:
        return False
    if value.op is Op.CAST:
        return value.dtype is DType.F32 and value.src[0].dtype is DType.U8
    return value.src[-1].dtype is DType.F32


def stores_vectors(kernel: Kernel, axis: Axis) -> bool:
    """Whether the results of a kernel can be finished and stored as vectors along the axis."""
    return (kernel.scatter is None and kernel.tensor.dtype is DType.F32 and not kernel.runtime
            and kernel.offset.coefficient(axis) == 1
            and not any(not isinstance(a, Axis) and axis in a.dividend.axes
                        for a, _ in kernel.offset.terms if not isinstance(a, RunTime))
            and has_vectors(kernel.value, axis, kernel.reduction))


class VectorScope(Scope):
    """Writes values at `lanes` points: the one that the axis is at, and those that follow it."""

    def __init__(self, block: Block, pointers: Mapping[Tensor, str], axis: Axis, lanes: int,
                 known: dict[int, str] | None = None) -> None:
        super().__init__(block, pointers, {}, known)
        self.axis = axis
        self.kind = f"f32x{lanes}"

    def _write(self, value: Value) -> str:
        if isinstance(value, Literal):
            text = f"splat_{self.kind}({literal(value.value, value.dtype)})"
        elif isinstance(value, Load):
            place = f"{self.pointers[value.tensor]} + {index_text(value.offset)}"
            step = value.offset.coefficient(self.axis)
            how = ("splat", "load", "load_second")[step]
            kind = self.kind if value.dtype is DType.F32 else f"u8_{self.kind}"
            text = f"{how}_{kind}({f'*({place})' if step == 0 else place})"
        else:
            assert isinstance(value, Compute)
            text = OPERATIONS[value.op](self.kind, *(self.write(s) for s in value.src))
        name = f"{self.prefix}{self.count}"
        self.count += 1
        mask = "i" if value.dtype is DType.BOOL else "f"
        self.block.add(f"const {mask}{self.kind[1:]} {name} = {text};")
        return name


def open_vectors(block: Block, name: str, start: str, end: str, lanes: int) -> None:
    """Open a loop over the vectors of start .. end, of which there are at least `lanes` points."""
    block.open(f"for (int64_t next_{name} = {start}; next_{name} < {end}; next_{name} += {lanes})")
    block.add(f"const int64_t {name} = smaller(next_{name}, {end} - {lanes});")


def finish_vectors(block: Block, pointers: Mapping[Tensor, str], kernel: Kernel, axis: Axis, lanes: int,
                   total: str) -> None:
    """Epilogue and store of a vector of results; `total` is where their sums are."""
    kind = f"f32x{lanes}"
    block.add(f"const {kind} reduced = load_{kind}({total});")
    scope = VectorScope(block, pointers, axis, lanes, {id(kernel.reduction): "reduced"})
    text = scope.write(kernel.value)
    block.add(f"store_{kind}(out + {index_text(kernel.offset)}, {text});")
