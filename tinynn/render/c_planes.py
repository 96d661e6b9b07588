"""Planes: what windows read, copied to local memory with its border.

A plane holds the rows that a chunk of output rows needs, for one point of the channels of a sum.
With a stride, columns of equal remainder (a phase) are stored together, so that a vector of
neighbouring outputs always reads neighbouring numbers:

    planes[channel][row][phase][column]
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinynn.index import Axis, Expr, ceil_div, constant, of, ravel
from tinynn.kernel import Tensor, Value, substituted
from tinynn.render.c_values import Block, Scope, condition_text, index_text, literal
from tinynn.render.c_vectors import VectorScope, has_vectors, open_vectors, unrounded
from tinynn.windows import Planes, Window


def channel_start(planes: Planes) -> str:
    """Start of the plane of the channels that the C variables are at."""
    axes = planes.channels
    place = ravel([of(a) for a in axes], [a.size for a in axes])
    return f"({index_text(place)}) * {planes.plane}"


def variable(name: str) -> Axis:
    """A C variable as an axis; nothing is known about its bounds."""
    return Axis(name, 1 << 62)


def stage(block: Block, planes: Planes, names: Mapping[Tensor, str], lanes: int) -> None:
    """Copy what the output rows top .. bottom read into `planes`."""
    window, depth = planes.window, block.depth
    y, x = window.y, window.x
    for axis in planes.channels:
        block.loop(axis)
    block.open(f"for (int64_t row = 0; row < {planes.rows}; ++row)")
    kind = element(planes.group)
    block.add(f"{kind} *line = planes + {channel_start(planes)} + row * {planes.pitch};")
    fill = literal(window.fill, window.value.dtype) if planes.group == 1 else "0"
    at_row = y.at(of(variable("top")), of(variable("row")))
    outside = [w.substitute(at_row) for w in window.when if y.position in w.expr.axes]
    reach = (y.taps - 1) * y.dilation + 1 - y.stride
    needed = f"row < (bottom - top) * {y.stride} + {reach}"
    block.open(f"if (!({' && '.join([needed, *([condition_text(outside)] if outside else [])])}))")
    block.add(f"for (int64_t i = 0; i < {planes.pitch}; ++i) line[i] = {fill};")
    block.add("continue;")
    block.close()
    column = variable("column")
    for phase in range(x.stride):
        at = at_row | x.at(constant(0), of(column) * x.stride + phase)
        first, last = _inside(window, x.at(constant(0), of(column) * x.stride + phase), column)
        last = min(last, ceil_div(x.span(x.position.size) - phase, x.stride))
        first = min(first, last)
        start = phase * planes.phase_pitch
        block.add(f"for (int64_t i = {start}; i < {start + first}; ++i) line[i] = {fill};")
        values = [substituted(window.value, at | place) for place in _places(planes)]
        copy_columns(block, values, names, column, (start, first, last), lanes)
        end = start + planes.phase_pitch
        block.add(f"for (int64_t i = {start + last}; i < {end}; ++i) line[i] = {fill};")
    block.close(block.depth - depth)


def element(group: int) -> str:
    """C type of what holds one value, or a group of several."""
    return "float" if group == 1 else "uint32_t"


def _places(planes: Planes) -> list[dict[Axis, Expr]]:
    """What the last channel axis becomes for each member of a group."""
    if planes.group == 1:
        return [{}]
    last, word = planes.window.channels[-1], of(planes.channels[-1])
    return [{last: word * planes.group + place} for place in range(planes.group)]


def _inside(window: Window, at: dict[Axis, Expr], column: Axis) -> tuple[int, int]:
    """First column that is inside, and the one behind the last."""
    first, last = 0, 1 << 62
    for condition in window.when:
        if window.x.position not in condition.expr.axes:
            continue
        expr = condition.expr.substitute(at)
        step = expr.coefficient(column)
        first = max(first, ceil_div(-expr.const, step))
        last = min(last, ceil_div(condition.size - expr.const, step))
    return first, max(first, last)


def copy_columns(block: Block, values: Sequence[Value], names: Mapping[Tensor, str], column: Axis,
                 place: tuple[int, int, int], lanes: int) -> None:
    """Write columns first .. last to line[start + column]: of a value, or of two as pairs of bf16.
    """
    start, first, last = place
    pair = len(values) == 2
    wide = [unrounded(v) for v in values] if pair else values
    vectors = last - 1 - first  # a vector of every second element reads one more than it uses
    if vectors >= lanes and all(has_vectors(v, column) for v in wide):
        open_vectors(block, column.name, str(first), str(last - 1), lanes)
        vector = VectorScope(block, names, column, lanes)
        texts = ", ".join([vector.write(v) for v in wide])
        how = f"pair_f32x{lanes}" if pair else f"store_f32x{lanes}"
        block.add(f"{how}(line + {start} + {column.name}, {texts});")
        block.close()
        first = last - 1
    block.open(f"for (int64_t {column.name} = {first}; {column.name} < {last}; ++{column.name})")
    scope = Scope(block, names, {})
    text = scope.write(wide[0])
    if pair:
        text = f"narrow_bf16({text}) | (uint32_t)narrow_bf16({scope.write(wide[1])}) << 16"
    block.add(f"line[{start} + {column.name}] = {text};")
    block.close()
