"""Scheduled kernels -> C: one function per kernel, and the program of all of them.

Every function has the signature `void name(void *const *args, int64_t part, int64_t parts)`: `args`
are its tensors, the written one first, and it computes share `part` of `parts`. All shapes are
constants. The arithmetic of an element never depends on how the work is shared.
"""
from __future__ import annotations

from collections.abc import Sequence

from tinynn.contract import Contract
from tinynn.conv import Conv
from tinynn.depthwise import Depthwise
from tinynn.index import Axis, ceil_div
from tinynn.kernel import Reduction
from tinynn.render.c_contract import render_contract
from tinynn.render.c_conv import render_conv
from tinynn.render.c_depthwise import render_depthwise
from tinynn.render.c_driver import driver
from tinynn.render.c_function import (
    EXPORT,
    NAME,
    Function,
    accumulator_type,
    arguments,
    finish,
    identity,
    open_function,
    open_items,
    open_shares,
    store,
)
from tinynn.render.c_helpers import preamble
from tinynn.render.c_rows import render_rows
from tinynn.render.c_values import VARIABLE, Block, Scope, combine
from tinynn.render.lines import rounded
from tinynn.rows import Rows
from tinynn.schedule import Lanes, Loops, Schedule

UNIT = 8  # functions that are compiled together: each call of the compiler takes 60 ms by itself


def render_kernel(plan: Schedule) -> Function:
    """The C function of a scheduled kernel."""
    if isinstance(plan, Conv):
        return render_conv(plan)
    if isinstance(plan, Contract):
        return render_contract(plan)
    if isinstance(plan, Depthwise):
        return render_depthwise(plan)
    if isinstance(plan, Rows):
        return render_rows(plan)
    return _lanes(plan) if isinstance(plan, Lanes) else _loops(plan)


def render_program(functions: Sequence[Function]) -> tuple[list[str], list[str]]:
    """The C text in pieces (helpers, functions, driver), and the symbol of each function. Equal
    functions are written once."""
    symbols: dict[str, str] = {}
    texts: list[str] = []
    for function in functions:
        if function.text not in symbols:
            name = f"k{len(symbols):03d}_{function.label}"
            symbols[function.text] = name
            texts.append(f"{function.comment}\n{function.text.replace(NAME, name)}\n")
    return [preamble(), *texts, driver(EXPORT)], [symbols[f.text] for f in functions]


def compile_units(pieces: Sequence[str]) -> list[str]:
    """The pieces of a program as sources that compile alone: a change of one function changes one.
    """
    helpers, *texts = pieces
    return ["\n".join([helpers, *texts[start:start + UNIT]])
            for start in range(0, len(texts), UNIT)]


def _loops(plan: Loops) -> Function:
    """Family Loops: every element by itself."""
    kernel = plan.kernel
    block = Block()
    tensors = arguments(kernel)
    names = open_function(block, kernel, tensors)
    open_shares(block, kernel.axes, plan.parts)
    scope = Scope(block, names, kernel.runtime)
    reduction = kernel.reduction
    if reduction is not None:
        scope.known[id(reduction)] = _reduce(block, reduction, scope)
    store(block, scope, kernel)
    return finish(block, kernel, tensors, plan.family)


def _reduce(block: Block, reduction: Reduction, outer: Scope) -> str:
    """Write the loops of a reduction; name of the variable that holds its result."""
    dtype = accumulator_type(reduction)
    block.add(f"{VARIABLE[dtype]} total = {identity(reduction, dtype)};")
    depth = block.depth
    for axis in reduction.axes:
        block.loop(axis)
    scope = Scope(block, outer.pointers, outer.runtime, prefix="e")
    body = scope.write(reduction.body)
    wide = body if dtype is reduction.dtype else f"({VARIABLE[dtype]}){body}"
    block.add(f"total = {combine(reduction.kind, 'total', wide, dtype)};")
    block.close(block.depth - depth)
    narrow = f"({VARIABLE[reduction.dtype]})total"
    block.add(f"const {VARIABLE[reduction.dtype]} reduced = {rounded(narrow, reduction.dtype)};")
    return "reduced"


def _lanes(plan: Lanes) -> Function:
    """Family Lanes: partial results of a reduction side by side."""
    if plan.axis in plan.kernel.axes:
        return _lanes_of_outputs(plan)
    return _lanes_of_terms(plan)


def _lanes_of_outputs(plan: Lanes) -> Function:
    """Each lane is another output: neighbours along the innermost axis."""
    kernel, axis, lanes = plan.kernel, plan.axis, plan.lanes
    block = Block()
    tensors = arguments(kernel)
    names = open_function(block, kernel, tensors)
    tiles = ceil_div(axis.size, lanes)
    open_items(block, [*kernel.axes[:-1], Axis("tile", tiles)])
    block.add(f"const int64_t start = tile * {lanes};")
    rest = axis.size % lanes
    if axis.size >= lanes:
        if rest:
            block.open(f"if (tile < {tiles - 1})")
        _tile_of_outputs(block, plan, names, lanes)
        if rest:
            block.close()
            block.add("else {")
            block.depth += 1
    if rest:
        _tile_of_outputs(block, plan, names, rest)
    return finish(block, kernel, tensors, plan.family)


def _tile_of_outputs(block: Block, plan: Lanes, names: dict, count: int) -> None:
    """One tile of `count` outputs, a constant so that the compiler can keep it in registers."""
    kernel, reduction = plan.kernel, plan.kernel.reduction
    assert reduction is not None
    block.add(f"float total[{count}];")
    _lane_loop(block, plan.axis, count, "start")
    block.add(f"total[lane] = {identity(reduction, reduction.dtype)};")
    block.close()
    depth = block.depth
    for axis in reduction.axes:
        block.loop(axis)
    _lane_loop(block, plan.axis, count, "start")
    _accumulate(block, reduction, names, kernel.runtime)
    block.close(block.depth - depth)
    _lane_loop(block, plan.axis, count, "start")
    store(block, Scope(block, names, kernel.runtime, {id(reduction): "total[lane]"}), kernel)
    block.close()


def _lanes_of_terms(plan: Lanes) -> Function:
    """Each lane sums up another part of the same output; the lanes are combined in halves."""
    kernel, axis, lanes = plan.kernel, plan.axis, plan.lanes
    reduction = kernel.reduction
    assert reduction is not None
    block = Block()
    tensors = arguments(kernel)
    names = open_function(block, kernel, tensors)
    open_items(block, kernel.axes)
    block.add(f"float total[{lanes}];")
    block.open(f"for (int64_t lane = 0; lane < {lanes}; ++lane)")
    block.add(f"total[lane] = {identity(reduction, reduction.dtype)};")
    block.close()
    depth = block.depth
    for outer in reduction.axes[:-1]:
        block.loop(outer)
    whole = axis.size - axis.size % lanes
    if whole:
        block.open(f"for (int64_t start = 0; start < {whole}; start += {lanes})")
        _lane_loop(block, axis, lanes, "start")
        _accumulate(block, reduction, names, kernel.runtime)
        block.close(2)
    if axis.size % lanes:
        _lane_loop(block, axis, axis.size % lanes, str(whole))
        _accumulate(block, reduction, names, kernel.runtime)
        block.close()
    block.close(block.depth - depth)
    block.open(f"for (int64_t half = {lanes // 2}; half > 0; half /= 2)")
    block.open("for (int64_t lane = 0; lane < half; ++lane)")
    text = combine(reduction.kind, "total[lane]", "total[lane + half]", reduction.dtype)
    block.add(f"total[lane] = {text};")
    block.close(2)
    store(block, Scope(block, names, kernel.runtime, {id(reduction): "total[0]"}), kernel)
    return finish(block, kernel, tensors, plan.family)


def _lane_loop(block: Block, axis: Axis, count: int, start: str) -> None:
    """Open the loop over lanes and declare the axis they run along."""
    block.open(f"for (int64_t lane = 0; lane < {count}; ++lane)")
    block.add(f"const int64_t {axis.name} = {start} + lane;")


def _accumulate(block: Block, reduction: Reduction, names: dict, runtime: dict) -> None:
    body = Scope(block, names, runtime, prefix="e").write(reduction.body)
    text = combine(reduction.kind, "total[lane]", body, reduction.dtype)
    block.add(f"total[lane] = {text};")
