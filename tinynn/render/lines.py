"""What C and OpenCL C share: index expressions, and lines with indentation."""
from __future__ import annotations

from typing import ClassVar

from tinynn.index import Axis, Expr, Quotient, Remainder, RunTime
from tinynn.ir import DType


def index_text(expr: Expr) -> str:
    """An index expression; axes and run-time indices are variables of their names."""
    parts = [(_factor(atom, factor), factor < 0) for atom, factor in expr.terms]
    if expr.const or not parts:
        parts.append((str(abs(expr.const)), expr.const < 0))
    text = ("-" if parts[0][1] else "") + parts[0][0]
    return text + "".join(f" {'-' if negative else '+'} {part}" for part, negative in parts[1:])


def _factor(atom: Axis | Quotient | Remainder | RunTime, factor: int) -> str:
    if isinstance(atom, Axis | RunTime):
        text = atom.name
    else:
        sign = "/" if isinstance(atom, Quotient) else "%"
        text = f"(({index_text(atom.dividend)}) {sign} {atom.divisor})"
    return text if abs(factor) == 1 else f"{text} * {abs(factor)}"


def rounded(text: str, dtype: DType) -> str:
    """A float expression rounded to the dtype, still held in a float."""
    return f"round_{dtype.value}({text})" if dtype in (DType.F16, DType.BF16) else text


class Block:
    """Lines with indentation. integer: type of loop variables."""

    integer: ClassVar[str] = "int64_t"

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 1

    def add(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def open(self, line: str) -> None:
        self.add(line + " {")
        self.depth += 1

    def close(self, count: int = 1) -> None:
        for _ in range(count):
            self.depth -= 1
            self.add("}")

    def loop(self, axis: Axis) -> None:
        """Open the loop over an axis."""
        self.open(f"for ({self.integer} {axis.name} = 0; {axis.name} < {axis.size}; ++{axis.name})")
