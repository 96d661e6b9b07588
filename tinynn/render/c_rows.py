"""Family Rows in C: loops over one row after another, for indices, for loads, and for the rest.

    for every row
        for every step
            indices of the row, as vectors
            loads of the row, one by one
        arithmetic and store, as vectors
"""
from __future__ import annotations

from collections.abc import Mapping

from tinynn.index import RunTime, of
from tinynn.kernel import Load, Tensor, substituted
from tinynn.render.c_function import Function, arguments, finish, open_function, open_items, store
from tinynn.render.c_values import (
    STORAGE,
    Block,
    Scope,
    condition_text,
    index_text,
    literal,
    to_store,
)
from tinynn.render.c_vectors import open_vectors, store_vector, stores_vectors
from tinynn.rows import Rows, Step, repeats


def render_rows(plan: Rows) -> Function:
    """The C function of an elementwise kernel in steps."""
    kernel, last, row = plan.kernel, plan.last, plan.kernel.axes[-1]
    block = Block()
    tensors = arguments(kernel)
    names = open_function(block, kernel, tensors)
    names |= {local: local.name.replace(" ", "") for step in plan.steps for _, local in step.loads}
    open_items(block, kernel.axes[:-1])
    for step in plan.steps:
        if step.indices:
            _find_indices(block, plan, step, names)
        for load, local in step.loads:
            block.add(f"_Alignas(64) {STORAGE[load.dtype]} {names[local]}[{row.size}];")
            _load_row(block, plan, step, load, names, names[local])
    if row.size >= plan.lanes and stores_vectors(last, row):
        open_vectors(block, row.name, "0", str(row.size), plan.lanes)
        store_vector(block, names, last, row, plan.lanes)
    else:
        block.loop(row)
        store(block, Scope(block, names, last.runtime), last)
    return finish(block, kernel, tensors, plan.family)


def _find_indices(block: Block, plan: Rows, step: Step, names: Mapping[Tensor, str]) -> None:
    """The loop that computes the indices of a step."""
    row = plan.kernel.axes[-1]
    for index in step.indices:
        kind = "int32_t" if index.size <= 1 << 31 else "int64_t"
        block.add(f"_Alignas(64) {kind} {_row_of(index)}[{row.size}];")
    block.loop(row)
    Scope(block, names, plan.last.runtime).prepare([of(index) for index in step.indices])
    for index in step.indices:
        block.add(f"{_row_of(index)}[{row.name}] = {index.name};")
    block.close()


def _row_of(index: RunTime) -> str:
    return f"{index.name}_row"


def _load_row(block: Block, plan: Rows, step: Step, load: Load, names: Mapping[Tensor, str],
              target: str) -> None:
    """The loop that loads one row."""
    row, depth = plan.kernel.axes[-1], block.depth
    indices = [index for index in step.indices if any(index in e.atoms for e in load.exprs)]
    split = None if indices else repeats(load, row)
    place = of(row) if split is None else of(split[0]) * split[1].size + of(split[1])
    for axis in split or (row,):
        block.loop(axis)
    for index in indices:
        block.add(f"const int64_t {index.name} = {_row_of(index)}[{row.name}];")
    moved = substituted(load, {row: place})
    assert isinstance(moved, Load)
    Scope(block, names, plan.last.runtime, indices={i.name for i in indices}).prepare(moved.exprs)
    text = f"{names[load.tensor]}[{index_text(moved.offset)}]"
    if moved.when:
        fill = to_store(literal(load.fill, load.dtype), load.dtype)
        text = f"{condition_text(moved.when)} ? {text} : {fill}"
    block.add(f"{target}[{index_text(place)}] = {text};")
    block.close(block.depth - depth)
