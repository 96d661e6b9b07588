"""Algebra on graphs: a table of small rules, applied until none fits.

Every rule keeps the value of the graph bit for bit (of NaNs, that they are NaN). That is why
x + 0.0 stays: it turns -0.0 into 0.0. What merely rounds differently, like folding two factors
into one, is left to passes that state their error.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinynn import interp
from tinynn.ir import (
    ELEMENTWISE,
    UNARY,
    DType,
    Graph,
    Node,
    Op,
    cast,
    concat,
    const,
    expand,
    full,
    gather,
    mul,
    node,
    pad,
    permute,
    rebuild,
    reshape,
    slice_,
    toposort,
    where,
    with_sources,
)

Rule = Callable[[Node], Node | None]

# Results with more elements are folded only if they take no more than what they come from.
_SMALL = 4096
_MOST_ROUNDS = 100


def simplify(graph: Graph) -> Graph:
    """The same program in fewer or simpler nodes; inputs, outputs, state and metadata stay."""
    outputs = dict(graph.outputs)
    for _ in range(_MOST_ROUNDS):
        new = rewrite(list(outputs.values()), {}, lambda op: RULES.get(op, ()))
        if new == list(outputs.values()):
            break
        outputs = dict(zip(outputs, new, strict=True))
    return replace(graph, outputs=outputs)


def fold(roots: Sequence[Node], done: dict[Node, Node]) -> list[Node]:
    """Only evaluate what is constant; `done` remembers old -> new from one call to the next."""
    return rewrite(roots, done, lambda op: (constant,))


def rewrite(roots: Sequence[Node], done: dict[Node, Node],
             rules: Callable[[Op], Sequence[Rule]]) -> list[Node]:
    """One pass over the nodes that are not done, sources first: the first rule that fits wins."""
    for old in toposort(roots, done):
        new = with_sources(old, tuple(done[s] for s in old.src))
        replacements = (rule(new) for rule in rules(new.op))
        new = next((r for r in replacements if r is not None), new)
        done[old] = done[new] = new
    return [done[root] for root in roots]


# Rules. Each returns the replacement, or None where it does not fit.

def constant(n: Node) -> Node | None:
    """The CONST that equals a node of constants, if it is no larger than they are, or small.

    An EXPAND of a constant stays, and counts as the constant it repeats.
    """
    if n.op is Op.EXPAND or not n.src:
        return None
    leaves = [_below_expand(s) for s in n.src]
    if any(leaf.op is not Op.CONST for leaf in leaves):
        return None
    limit = max(_SMALL, sum(leaf.size for leaf in leaves))
    if max(n.size, *(s.size for s in n.src)) > limit:
        return None
    return const(interp.run(Graph("constant", {}, {"value": n}), {})["value"])


def _below_expand(n: Node) -> Node:
    while n.op is Op.EXPAND:
        n = n.src[0]
    return n


def _uniform(n: Node) -> Any:
    """The value that all elements of a constant (or expanded constant) have, or None."""
    below = _below_expand(n)
    if below.op is not Op.CONST or below.size == 0:
        return None
    flat = below.arg.array.reshape(-1)
    # The ends differ in nearly every weight: that spares the look at all the rest.
    first, last = flat[:1].tobytes(), flat[-1:].tobytes()
    same = first == last and flat.tobytes() == first * below.size
    return flat[0] if same else None


def _is_value(n: Node, value: float) -> bool:
    """Whether all elements are this value, with this sign of zero."""
    found = _uniform(n)
    return found is not None and found.tobytes() == np.asarray(value, found.dtype).tobytes()


def uniform_constant(n: Node) -> Node | None:
    """A constant of equal elements is an expanded scalar."""
    if n.size > 1 and _uniform(n) is not None:
        return full(n.shape, n.arg.array.reshape(-1)[0], n.dtype)
    return None


def same_shape(n: Node) -> Node | None:
    """RESHAPE, EXPAND, PERMUTE, SLICE, PAD, CAST that change nothing."""
    x = n.src[0]
    if n.shape != x.shape or n.dtype is not x.dtype:
        return None
    if n.op is Op.PERMUTE:
        return x if n.arg == tuple(range(len(n.shape))) else None
    if n.op is Op.SLICE:
        return x if all(start == 0 and step == 1 for start, _, step in n.arg) else None
    return x


def merge_views(n: Node) -> Node | None:
    """Two views of the same kind in a row are one."""
    x = n.src[0]
    if x.op is not n.op:
        return None
    base = x.src[0]
    if n.op is Op.RESHAPE:
        return reshape(base, n.shape)
    if n.op is Op.EXPAND:
        return expand(base, n.shape)
    if n.op is Op.PERMUTE:
        return permute(base, [x.arg[a] for a in n.arg])
    if n.op is Op.SLICE:
        return slice_(base, [(a + inner * b, count, inner * outer) for (a, _, inner),
                             (b, count, outer) in zip(x.arg, n.arg, strict=True)])
    return None


def merge_pads(n: Node) -> Node | None:
    """PAD of PAD with the same value."""
    x = n.src[0]
    if x.op is not Op.PAD or repr(x.arg[1]) != repr(n.arg[1]):
        return None
    pairs = [(a + c, b + d) for (a, b), (c, d) in zip(x.arg[0], n.arg[0], strict=True)]
    return pad(x.src[0], pairs, n.arg[1])


def move_unit_axes(n: Node) -> Node | None:
    """A PERMUTE that only moves axes of length 1 is a RESHAPE."""
    moved = [a for a in n.arg if n.src[0].shape[a] != 1]
    return reshape(n.src[0], n.shape) if moved == sorted(moved) else None


def merge_casts(n: Node) -> Node | None:
    """CAST of CAST, where the first one loses nothing and the second cannot tell."""
    inner = n.src[0]
    if inner.op is not Op.CAST:
        return None
    x = inner.src[0]
    if not _exact(x.dtype, inner.dtype):
        return None
    # Floats saturate where integers wrap: an integer through a float only if it fits or returns.
    if x.dtype.is_integer and inner.dtype.is_float and n.dtype.is_integer:
        return cast(x, n.dtype) if _exact(x.dtype, n.dtype) else None
    return cast(x, n.dtype)


# Bits of the significand and largest exponent, per float type.
_FLOAT_RANGE = {DType.F16: (11, 15), DType.BF16: (8, 127), DType.F32: (24, 127),
                DType.F64: (53, 1023)}


def _exact(a: DType, b: DType) -> bool:
    """Whether every value of a is a value of b."""
    if a is b or a is DType.BOOL:
        return True
    if b is DType.BOOL:
        return False
    if a.is_float:
        if not b.is_float:
            return False
        return all(x <= y for x, y in zip(_FLOAT_RANGE[a], _FLOAT_RANGE[b], strict=True))
    limits = np.iinfo(a.numpy)
    if b.is_float:
        return int(limits.max).bit_length() <= _FLOAT_RANGE[b][0]
    target = np.iinfo(b.numpy)
    return bool(target.min <= limits.min and limits.max <= target.max)


def neutral_operand(n: Node) -> Node | None:
    """x * 1, x / 1, x + -0.0, integer x + 0, bool or False, max(x, lowest)."""
    a, b = n.src
    neutral = {Op.MUL: 1, Op.DIV: 1, Op.ADD: -0.0 if n.dtype.is_float else 0,
               Op.MAX: interp.lowest(n.dtype)}[n.op]
    if _is_value(b, neutral):
        return a
    if n.op is not Op.DIV and _is_value(a, neutral):
        return b
    return None


def absorbing_operand(n: Node) -> Node | None:
    """Integer x * 0 (a float could be NaN), bool x and False."""
    if n.dtype.is_float:
        return None
    return next((s for s in n.src if _is_value(s, 0)), None)


def divide_by_power_of_two(n: Node) -> Node | None:
    """x / 2**k as x * 2**-k, if 2**-k is a normal number."""
    divisor = _uniform(n.src[1])
    if divisor is None or not n.dtype.is_float or not np.isfinite(divisor) or divisor == 0:
        return None
    fraction, exponent = math.frexp(float(divisor))
    if abs(fraction) != 0.5 or abs(exponent) >= _FLOAT_RANGE[n.dtype][1]:
        return None
    return mul(n.src[0], full(n.shape, 1 / float(divisor), n.dtype))


def same_operands(n: Node) -> Node | None:
    """max(x, x)."""
    return n.src[0] if n.src[0] is n.src[1] else None


def decided_where(n: Node) -> Node | None:
    """WHERE with equal branches or a constant condition; a negated condition swaps branches."""
    cond, a, b = n.src
    if a is b:
        return a
    value = _uniform(cond)
    if value is not None:
        return a if value else b
    negated = _negated(cond)
    return where(negated, b, a) if negated is not None else None


def _negated(n: Node) -> Node | None:
    """x if n is `not x`, written EQ(x, False)."""
    if n.op is Op.EQ and n.src[0].dtype is DType.BOOL and _is_value(n.src[1], False):
        return n.src[0]
    return None


def double_negation(n: Node) -> Node | None:
    inner = _negated(n)
    return _negated(inner) if inner is not None else None


def elementwise_before_expand(n: Node) -> Node | None:
    """Compute on the elements there are, then repeat them."""
    if n.op is Op.CAST or n.op in UNARY:
        expanded = n.src[0].op is Op.EXPAND
    else:
        expanded = all(s.op is Op.EXPAND for s in n.src)
    if not expanded or len({s.src[0].shape for s in n.src}) != 1:
        return None
    inner = [s.src[0] for s in n.src]
    return expand(node(n.op, n.dtype, inner[0].shape, inner, n.arg), n.shape)


def reshape_before_expand(n: Node) -> Node | None:
    """RESHAPE of an expanded scalar."""
    x = n.src[0]
    if x.op is Op.EXPAND and x.src[0].size == 1:
        return expand(reshape(x.src[0], (1,) * len(n.shape)), n.shape)
    return None


def merge_concats(n: Node) -> Node | None:
    """CONCAT of CONCATs along the same axis; sources of length 0 go."""
    kept = [s for s in n.src if s.shape[n.arg] > 0] or [n.src[0]]
    flat: list[Node] = []
    for s in kept:
        flat += s.src if s.op is Op.CONCAT and s.arg == n.arg else (s,)
    return concat(flat, n.arg) if tuple(flat) != n.src else None


def gather_as_view(n: Node) -> Node | None:
    """GATHER with constant indices that are evenly spaced (SLICE) or each repeated (EXPAND)."""
    x, indices = n.src
    if indices.op is not Op.CONST or indices.size == 0:
        return None
    at = np.clip(indices.arg.array.reshape(-1).astype(np.int64), 0, x.shape[n.arg] - 1)
    step = int(at[1] - at[0]) if at.size > 1 else 1
    if step != 0 and (np.diff(at) == step).all():
        ranges = [(0, m, 1) for m in x.shape]
        ranges[n.arg] = (int(at[0]), at.size, step)
        return reshape(slice_(x, ranges), n.shape)
    repeats = int((at == at[0]).sum())
    if repeats == 1 or at.size % repeats or not (at[::repeats] == at.reshape(-1, repeats).T).all():
        return None
    once = gather(x, const(at[::repeats]), n.arg)
    lead, rest = once.shape[:n.arg + 1], once.shape[n.arg + 1:]
    spread = expand(reshape(once, (*lead, 1, *rest)), (*lead, repeats, *rest))
    return reshape(spread, n.shape)


def reduce_unit_axes(n: Node) -> Node | None:
    """A REDUCE over nothing but axes of length 1 is a RESHAPE."""
    x = n.src[0]
    return reshape(x, n.shape) if all(x.shape[a] == 1 for a in n.arg[1]) else None


_VIEW: list[Rule] = [same_shape, constant, merge_views]

RULES: dict[Op, list[Rule]] = {
    Op.CONST: [uniform_constant],
    Op.RESHAPE: [*_VIEW, reshape_before_expand],
    Op.PERMUTE: [*_VIEW, move_unit_axes],
    Op.EXPAND: _VIEW,
    Op.PAD: [*_VIEW, merge_pads],
    Op.SLICE: _VIEW,
    Op.CONCAT: [constant, merge_concats],
    Op.GATHER: [constant, gather_as_view],
    Op.SCATTER: [constant],
    Op.WINDOW: [constant],
    Op.ADD: [neutral_operand],
    Op.MUL: [neutral_operand, absorbing_operand],
    Op.DIV: [neutral_operand, divide_by_power_of_two],
    Op.MAX: [same_operands, neutral_operand],
    Op.EQ: [double_negation],
    Op.WHERE: [decided_where],
    Op.CAST: [same_shape, merge_casts],
    Op.REDUCE: [constant, reduce_unit_axes],
}
for _op in ELEMENTWISE:
    RULES[_op] = [constant, *RULES.get(_op, []), elementwise_before_expand]


# Precision

def widen_f16(graph: Graph) -> Graph:
    """All f16 and bf16 arithmetic in f32: inputs are cast on entry, outputs on exit.

    Roundings to f16 inside the graph disappear, as in CPU runtimes that compute in f32.
    """
    def widened(old: Node, src: tuple[Node, ...]) -> Node:
        dtype = DType.F32 if old.dtype in (DType.F16, DType.BF16) else old.dtype
        if old.op is Op.CONST:
            return const(old.arg.array, dtype)
        if old.op in (Op.INPUT, Op.CAST):
            return cast(src[0] if src else old, dtype)
        return node(old.op, dtype, old.shape, src, old.arg)

    wide = rebuild(graph, widened)
    outputs = {name: cast(n, graph.outputs[name].dtype) for name, n in wide.outputs.items()}
    return replace(graph, outputs=outputs)
