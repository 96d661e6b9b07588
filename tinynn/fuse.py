"""Graph -> kernels: which nodes are stored, and which are computed where they are read.

Every node is either stored (a tensor in memory, written by kernels of its own) or fused (part of
the expression of the kernels that need it). Consumers are decided before their sources, so that
each node knows which kernels read it and how often they read each of its elements:

- graph outputs, CONCAT and SCATTER are stored; inputs and constants already are;
- views are never stored: they only change the index of the read below them;
- a REDUCE is fused if one kernel needs each element of it exactly once, in the shape it has or a
  reshaped or permuted one that still has runs of neighbours: what follows becomes its epilogue;
- an elementwise node is fused if computing it again wherever it is needed costs less than writing
  it and reading it back.

A CONCAT costs nothing by itself: each operand has its own kernel that writes its range.
Every decision is recorded with its reason (`Fusion.notes`).
"""
from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinynn.index import (
    Axis,
    Expr,
    Index,
    RunTime,
    Within,
    constant,
    of,
    ravel,
    reshape_index,
    source_index,
)
from tinynn.ir import ELEMENTWISE, VIEWS, Graph, Node, Op
from tinynn.kernel import Compute, Guard, Kernel, Literal, Load, Reduction, Tensor, Value

# Costs in cheap operations per element, for choosing between computing again and storing.
OP_COST = {Op.EXP2: 8.0, Op.LOG2: 10.0, Op.SIN: 12.0, Op.DIV: 3.0, Op.SQRT: 3.0, Op.CAST: 0.5}
STORE_COST = 4.0  # write an element and read it back
LAUNCH_COST = 2000.0  # one more kernel
# A GPU has arithmetic for these: 360 G operations, 30 GB and 130,000 launches a second (Adreno 630)
GPU_STORE_COST = 96.0
GPU_LAUNCH_COST = 2_000_000.0
UNCLIPPED = -1  # size of an index that is taken as it is
MOST_WIDENING = 3  # operations that make a stored tensor wider where it is read
LEAST_RUN = 8  # neighbouring elements that a reduction should write at a time
MAX_FUSED = 100  # operations in one kernel: keeps functions readable and recursion shallow
MAX_FUSED_GPU = 200  # where one more launch costs more

PLAIN_VIEWS = frozenset({Op.RESHAPE, Op.PERMUTE})  # each element read once, none left out

Root = tuple[Node, int]
"""A kernel: the stored node it writes, and which of its operands (CONCAT, SCATTER), else 0."""


@dataclass
class Demand:
    """How one kernel reads a node: per element, `shared` times by elementwise users together, plus
    `views` times through views. plain: by no other view than RESHAPE and PERMUTE."""

    shared: float = 0.0
    views: float = 0.0
    plain: bool = True

    @property
    def reads(self) -> float:
        return self.shared + self.views


@dataclass
class Fusion:
    """The kernels in order, the tensors of the graph's border by name, and for every node one line
    that says whether it is stored or fused and why."""

    kernels: list[Kernel]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    notes: list[str]


def fuse(graph: Graph, gpu: bool = False) -> Fusion:
    """Kernels that compute the outputs of the graph, in an order in which they may run.

    gpu: for targets that fetch the factors of sums of products from memory as they are, so that
    what computes them is stored, however cheap it is; elsewhere launches and memory cost more.
    """
    plan = _plan(graph, gpu)
    return _Builder(graph, plan).build()


def stored_nodes(graph: Graph, gpu: bool = False) -> set[Node]:
    """The nodes that are tensors in memory: inputs, constants, and what kernels write."""
    return _plan(graph, gpu).stored


@dataclass
class _Plan:
    stored: set[Node] = field(default_factory=set)
    demand: dict[Node, dict[Root, Demand]] = field(default_factory=dict)
    reductions: dict[Root, Node] = field(default_factory=dict)
    users: dict[Node, list[Node]] = field(default_factory=dict)
    reasons: dict[Node, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    gpu: bool = False


def _plan(graph: Graph, gpu: bool) -> _Plan:
    """Decide for every node, users before sources."""
    nodes = graph.nodes()
    cost = _recompute_costs(nodes)
    plan = _Plan(demand={n: {} for n in nodes}, users={n: [] for n in nodes},
                 gpu=gpu)
    fused_count: dict[Root, int] = {}
    outputs = set(graph.outputs.values())
    for node in nodes:
        for source in node.src:
            plan.users[source].append(node)
    for node in reversed(nodes):
        store, reason = _decide(node, node in outputs, plan, cost[node], fused_count)
        plan.reasons[node] = reason
        if store:
            plan.stored.add(node)
        else:
            for root in plan.demand[node]:
                fused_count[root] = fused_count.get(root, 0) + (node.op not in VIEWS)
            if node.op is Op.REDUCE:
                (root,) = plan.demand[node]
                plan.reductions[root] = node
        if node.op not in VIEWS and node.op not in (Op.INPUT, Op.CONST):
            plan.notes.append(f"{'store' if store else 'fuse '} {node!r}: {reason}")
        _spread(node, store, plan, cost)
    plan.notes.reverse()
    return plan


def _recompute_costs(nodes: list[Node]) -> dict[Node, float]:
    """Cost of one element if nothing above it were stored; infinite below a REDUCE."""
    cost: dict[Node, float] = {}
    for node in nodes:
        if node.op in (Op.INPUT, Op.CONST, Op.CONCAT, Op.SCATTER):
            cost[node] = 0.0
        elif node.op is Op.REDUCE:
            cost[node] = math.inf
        else:
            cost[node] = _own_cost(node) + sum(cost[s] for s in node.src)
    return cost


def _own_cost(node: Node) -> float:
    """Of one element, its sources given. Division by a constant becomes a product (algebra.py)."""
    if node.op in VIEWS:
        return 0.0
    if node.op is Op.DIV:
        divisor = _below(VIEWS - {Op.PAD}, node.src[1])  # what is padded with is another number
        if divisor.op is Op.CONST and divisor.size == 1:
            return 1.0
    return OP_COST.get(node.op, 1.0)


def _below(views: Collection[Op], node: Node) -> Node:
    """What views of these kinds read in the end."""
    while node.op in views:
        node = node.src[0]
    return node


def _decide(node: Node, is_output: bool, plan: _Plan, cost: float,
            fused_count: dict[Root, int]) -> tuple[bool, str]:
    """Whether the node must be in memory, and why or why not. cost: of computing one element."""
    demand = plan.demand[node]
    if node.op in (Op.INPUT, Op.CONST):
        return True, "given"
    if is_output:
        return True, "output of the graph"
    if node.op in (Op.CONCAT, Op.SCATTER):
        return True, f"{node.op.name} is assembled in memory"
    most = MAX_FUSED_GPU if plan.gpu else MAX_FUSED
    if any(fused_count.get(root, 0) >= most for root in demand):
        return True, f"its kernel already holds {most} operations"
    reads = sum(d.reads for d in demand.values())
    if node.op is Op.REDUCE:
        if len(demand) > 1:
            return True, f"{len(demand)} kernels read it"
        ((root, only),) = demand.items()
        if not only.plain or reads != 1:
            return True, "it is read through a view that repeats, moves or drops elements"
        if root in plan.reductions:
            return True, "its kernel already has a reduction"
        if _scatters_writes(node, root, plan):
            return True, f"{root[0]!r} has its elements in another order"
        return False, f"what follows it is its epilogue, up to {root[0]!r}"
    if node.op in VIEWS or node.op is Op.GATHER:
        return False, "only moves elements"
    if _is_widened(node) and not plan.gpu:
        return False, "what it is computed from is narrower, and stored"
    follows = _follows_sums(node, plan) or (_is_narrowed(node) and math.isinf(cost))
    if follows and all(r in plan.reductions or r[0].op is Op.REDUCE for r in demand):
        return True, "the sums it follows must be stored, and take it as their epilogue"
    if reads <= 1:
        return False, "read once"
    if _is_narrowed(node) and any(user is not node for user in plan.users[node.src[0]]):
        return False, "a conversion of what others read too"
    if math.isinf(cost):
        return True, f"{reads:.0f} reads, and the sums below it are made once"
    again = node.size * cost * (reads - 1)
    summed = any(r in plan.reductions or r[0].op is Op.REDUCE for r in demand)
    keep = LAUNCH_COST + node.size * STORE_COST
    if plan.gpu and not summed:
        keep = GPU_LAUNCH_COST + node.size * GPU_STORE_COST
    reason = f"{reads:.0f} reads: computing again costs {again:.0f}, storing {keep:.0f}"
    return again > keep, reason


def _follows_sums(node: Node, plan: _Plan) -> bool:
    """Whether operations that nothing else reads lead from a REDUCE of as many elements to it."""
    below, seen = [node], 0
    while below and seen < MAX_FUSED:
        seen += 1
        for source in below.pop().src:
            if len(plan.users[source]) != 1 or source.size != node.size:
                continue
            if source.op is Op.REDUCE:
                return True
            if source.op in ELEMENTWISE or source.op in PLAIN_VIEWS:
                below.append(source)
    return False


def _is_narrowed(node: Node) -> bool:
    """Whether the node is a conversion to fewer bytes."""
    return node.op is Op.CAST and node.dtype.itemsize < node.src[0].dtype.itemsize


def _is_widened(node: Node) -> bool:
    """Whether the node is a short chain of cheap operations with constants on a tensor of fewer
    bytes: what is dequantised, or rounded to bf16."""
    wide = node.dtype.itemsize
    for _ in range(MOST_WIDENING):
        computed = [s for s in node.src if _below(VIEWS, s).op is not Op.CONST]
        if node.op not in (Op.CAST, Op.ADD, Op.MUL) or len(computed) != 1:
            return False
        node = computed[0]
        if node.dtype.itemsize < wide:
            return True
    return False


def _spread(node: Node, stored: bool, plan: _Plan, cost: Mapping[Node, float]) -> None:
    """Tell the sources of a node which kernels read them through it, and how often."""
    for position, source in enumerate(node.src):
        part = position if node.op in (Op.CONCAT, Op.SCATTER) else 0
        if node.op is Op.SCATTER and position == 2:
            part = 1  # indices and updates are read by the same kernel
        roots = {(node, part): Demand(shared=1.0)} if stored else plan.demand[node]
        for root, above in roots.items():
            below = plan.demand[source].setdefault(root, Demand())
            copied = node.op is Op.CONCAT or (node.op is Op.SCATTER and part == 0)
            plain = node.op in PLAIN_VIEWS or node.op in ELEMENTWISE or copied
            below.plain = below.plain and above.plain and plain
            if node.op in VIEWS or node.op in (Op.GATHER, Op.SCATTER):
                copied_once = cost[source] < math.inf and _is_factor(node, plan)
                copied_once = copied_once and not plan.gpu
                times = 1.0 if copied_once else _repeats(node, source, position)
                below.views += above.reads * times
            else:
                below.shared = max(below.shared, above.reads)


def _is_factor(node: Node, plan: _Plan) -> bool:
    """Whether an EXPAND only makes a factor of a sum of products as large as the other one: a
    contraction copies its factors to local memory and repeats them there."""
    def of_sum(user: Node) -> bool:
        sums = all(u.op is Op.REDUCE and u.arg[0] == "sum" for u in plan.users[user])
        return user.op is Op.MUL and sums and user not in plan.stored
    return node.op is Op.EXPAND and all(of_sum(user) for user in plan.users[node])


def _repeats(node: Node, source: Node, position: int) -> float:
    """How often a view or join reads each element of its source, on average; at least 1."""
    size = node.src[2].size if node.op is Op.SCATTER and position else node.size
    return max(1.0, size / source.size) if source.size else 1.0


@dataclass(frozen=True)
class _Place:
    """Where the elements of a stored node are: a tensor, shifted by an offset per axis."""

    tensor: Tensor
    offset: tuple[int, ...]

    def index(self, index: Sequence[Expr]) -> Index:
        """Index in the tensor of an element of the node."""
        return tuple(e + o for e, o in zip(index, self.offset, strict=True))


def _domain(node: Node) -> tuple[tuple[Axis, ...], Index]:
    """A loop axis per axis of the node, and the element they are at."""
    axes = tuple(Axis(f"i{n}", size) for n, size in enumerate(node.shape))
    return axes, tuple(of(axis) for axis in axes)


def _forward(plan: _Plan, start: Node, end: Node, root: Root, index: Index) -> Index:
    """Index of `end` for an index of `start`, which reaches it by plain views only."""
    node = start
    while node is not end:
        node = next(u for u in plan.users[node]
                    if u is end or (u not in plan.stored and root in plan.demand[u]))
        if node.op is Op.RESHAPE:
            index = reshape_index(index, node.src[0].shape, node.shape)
        elif node.op is Op.PERMUTE:
            index = tuple(index[axis] for axis in node.arg)
    return index


def _scatters_writes(reduction: Node, root: Root, plan: _Plan) -> bool:
    """Whether neighbours in the reduction's order lie apart in what its kernel would write."""
    target, part = root
    end = target.src[part] if target.op in (Op.CONCAT, Op.SCATTER) else target
    axes, index = _domain(reduction)
    offset = ravel(_forward(plan, reduction, end, root, index), end.shape)
    run = max((a.size for a in axes if offset.coefficient(a) == 1), default=1)
    own = next((a.size for a in reversed(axes) if a.size > 1), 1)
    # What is no contraction runs along its own rows: windows of planes, and lanes.
    wanted = min(LEAST_RUN, own) if _is_contraction(reduction) else own
    return not offset.is_affine or run < wanted


def _is_contraction(reduction: Node) -> bool:
    """Whether it sums products whose factors are both repeated: along rows, and along columns."""
    product = reduction.src[0]
    return product.op is Op.MUL and all(_below(PLAIN_VIEWS, factor).op is Op.EXPAND
                                        for factor in product.src)


class _Builder:
    """Writes the kernels of a planned graph."""

    def __init__(self, graph: Graph, plan: _Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.order = graph.nodes()
        self.kernels: list[Kernel] = []
        self.inputs = {
            name: Tensor("state" if name in graph.state else "input", name, node.dtype, node.shape)
            for name, node in graph.inputs.items()}
        self.outputs: dict[str, Tensor] = {}
        self.places: dict[Node, _Place] = {}
        self.duplicates: list[tuple[str, Node]] = []

    def build(self) -> Fusion:
        self._place_outputs()
        self._place_stored()
        for node in self.order:
            if node in self.plan.stored and node.op not in (Op.INPUT, Op.CONST):
                self._write(node)
        for name, node in self.duplicates:
            place = _Place(self.outputs[name], (0,) * len(node.shape))
            self._copy(node, place, "a second name of an output, or an input that is one")
        return Fusion(self.kernels, self.inputs, self.outputs, self.plan.notes)

    def _place_outputs(self) -> None:
        """Outputs are written in place; a second name, an input or a constant is copied."""
        for name, node in self.graph.outputs.items():
            tensor = Tensor("output", name, node.dtype, node.shape)
            self.outputs[name] = tensor
            if node in self.places or node.op in (Op.INPUT, Op.CONST):
                self.duplicates.append((name, node))
            else:
                self.places[node] = _Place(tensor, (0,) * len(node.shape))

    def _place_stored(self) -> None:
        """Give every stored node its tensor; users come first, so that joins nest."""
        for number, node in reversed(list(enumerate(self.order))):
            if node not in self.plan.stored or node in self.places:
                continue
            zero = (0,) * len(node.shape)
            users = self.plan.users[node]
            if node.op is Op.INPUT:
                self.places[node] = _Place(self.inputs[node.arg], zero)
            elif node.op is Op.CONST:
                tensor = Tensor("weight", f"constant {number}", node.dtype, node.shape,
                                node.arg.array)
                self.places[node] = _Place(tensor, zero)
            elif len(users) == 1 and users[0].op is Op.CONCAT and users[0].src.count(node) == 1:
                join = users[0]
                outer = self.places[join]
                before = sum(s.shape[join.arg] for s in join.src[:join.src.index(node)])
                shift = [o + (before if a == join.arg else 0) for a, o in enumerate(outer.offset)]
                self.places[node] = _Place(outer.tensor, tuple(shift))
            else:
                tensor = Tensor("arena", f"{node.op.name.lower()} {number}", node.dtype, node.shape)
                self.places[node] = _Place(tensor, zero)

    def _write(self, node: Node) -> None:
        """All kernels of a stored node."""
        place = self.places[node]
        if node.op is Op.CONCAT:
            start = 0
            for part, source in enumerate(node.src):
                offset = list(place.offset)
                offset[node.arg] += start
                self._operand(source, (node, part), _Place(place.tensor, tuple(offset)))
                start += source.shape[node.arg]
        elif node.op is Op.SCATTER:
            self._operand(node.src[0], (node, 0), place)
            self._scatter(node, place)
        else:
            self._compute(node, (node, 0), place)

    def _operand(self, node: Node, root: Root, place: _Place) -> None:
        """Put an operand of a join where it belongs, unless it is there already."""
        if node not in self.plan.stored:
            self._compute(node, root, place)
        elif self.places[node] != place:
            self._copy(node, place, self.plan.reasons[root[0]])

    def _copy(self, node: Node, place: _Place, reason: str) -> None:
        """A kernel that copies a stored node."""
        reader = _Reader(self)
        axes, index = _domain(node)
        self._append(node, axes, reader.read(node, index), index, place, reader, reason)

    def _compute(self, node: Node, root: Root, place: _Place) -> None:
        """The kernel that computes a node, with the reduction that is fused into it, if any."""
        reader = _Reader(self)
        reader.reduction = node if node.op is Op.REDUCE else self.plan.reductions.get(root)
        if reader.reduction is None:
            axes, index = _domain(node)
        else:
            axes, index = _domain(reader.reduction)
            index = _forward(self.plan, reader.reduction, node, root, index)
        self._append(node, axes, reader.compute(node, index, ()), index, place, reader,
                     self.plan.reasons[root[0]])

    def _append(self, node: Node, axes: tuple[Axis, ...], value: Value, index: Index,
                place: _Place, reader: _Reader, reason: str) -> None:
        """Add the kernel that stores a value; nothing for an empty tensor. Its loops run in the
        order of what they write."""
        if not node.size:
            return
        target = place.index(index)
        offset = ravel(target, place.tensor.shape)
        loops = [a for a in axes if a.size != 1]
        if offset.is_affine:
            loops.sort(key=offset.coefficient, reverse=True)
        self.kernels.append(Kernel(
            tuple(loops), value, place.tensor, target, runtime=reader.runtime,
            note=_note(reader.computed, node), reason=reason))

    def _scatter(self, node: Node, place: _Place) -> None:
        """The serial kernel that puts the updates into what the copy kernel wrote."""
        _, indices, updates = node.src
        if updates.size == 0:
            return
        axis, mode = node.arg
        reader = _Reader(self)
        axes, index = _domain(updates)
        value = reader.read(updates, index)
        position = reader.runtime_name(reader.read(indices, (index[axis],)), UNCLIPPED)
        row = of(RunTime(position, node.shape[axis], clip=False))
        target = place.index((*index[:axis], row, *index[axis + 1:]))
        inside = Within(row, node.shape[axis])
        self.kernels.append(Kernel(
            tuple(a for a in axes if a.size != 1), value, place.tensor, target, (inside,),
            scatter=mode, runtime=reader.runtime, note=_note([node, *reader.computed], node),
            reason=self.plan.reasons[node]))


class _Reader:
    """Builds the expression of one kernel; equal reads are one value."""

    def __init__(self, builder: _Builder) -> None:
        self.builder = builder
        self.plan = builder.plan
        self.reduction: Node | None = None
        self.runtime: dict[str, Value] = {}
        self.sizes: dict[str, int] = {}
        self.computed: list[Node] = []
        self.memo: dict[tuple[Node, Index, tuple[Within, ...]], Value] = {}

    def runtime_name(self, value: Value, size: int) -> str:
        """Name under which an index that is read at run time is known in this kernel; clipped to
        another size, it is another index."""
        for name, known in self.runtime.items():
            if known is value and self.sizes[name] == size:
                return name
        name = f"g{len(self.runtime)}"
        self.runtime[name], self.sizes[name] = value, size
        return name

    def read(self, node: Node, index: Index, when: tuple[Within, ...] = ()) -> Value:
        """The element of a node at an index, of interest only where `when` holds."""
        key = (node, index, when)
        if key not in self.memo:
            if node.op is Op.CONST and node.size == 1:
                self.memo[key] = Literal(node.arg.array.reshape(()).item(), node.dtype)
            elif node in self.plan.stored:
                place = self.builder.places[node]
                self.memo[key] = Load(place.tensor, place.index(index), when)
            else:
                self.memo[key] = self.compute(node, index, when)
        return self.memo[key]

    def compute(self, node: Node, index: Index, when: tuple[Within, ...]) -> Value:
        """The element computed from the sources of the node."""
        self.computed.append(node)
        if node.op in ELEMENTWISE:
            return Compute(node.op, node.dtype, tuple(self.read(s, index, when) for s in node.src))
        if node.op is Op.PAD:
            return self._padded(node, index, when)
        if node.op in VIEWS:
            return self.read(node.src[0], source_index(node, index)[0], when)
        if node.op is Op.GATHER:
            return self._gathered(node, index, when)
        if node.op is Op.REDUCE:
            return self._reduced(node, index, when)
        raise AssertionError(f"{node!r} is never computed inside a kernel")

    def _padded(self, node: Node, index: Index, when: tuple[Within, ...]) -> Value:
        source, inside = source_index(node, index)
        fill = node.arg[1]
        if not inside:
            return self.read(node.src[0], source, when)
        conditions = tuple(inside)
        value = self.read(node.src[0], source, when + conditions)
        if isinstance(value, Load) and value.when == when + conditions:
            return Load(value.tensor, value.index, value.when, fill)
        return Guard(conditions, value, fill)

    def _gathered(self, node: Node, index: Index, when: tuple[Within, ...]) -> Value:
        data, indices = node.src
        axis, rank, size = node.arg, len(indices.shape), data.shape[node.arg]
        position = self.read(indices, index[axis:axis + rank], when)
        if isinstance(position, Literal):
            row = constant(int(np.clip(int(position.value), 0, size - 1)))
        else:
            row = of(RunTime(self.runtime_name(position, size), size))
        return self.read(data, (*index[:axis], row, *index[axis + rank:]), when)

    def _reduced(self, node: Node, index: Index, when: tuple[Within, ...]) -> Value:
        assert node is self.reduction, "a kernel holds one reduction"
        kind, removed = node.arg
        # Every path from here to the kernel's result is a bijection, so the index is that of the
        # kernel's own axes, whatever the reshapes on the way made of it.
        kept = iter(of(Axis(f"i{n}", size)) for n, size in enumerate(node.shape))
        axes = {a: Axis(f"r{n}", node.src[0].shape[a]) for n, a in enumerate(removed)}
        source = tuple(of(axes[a]) if a in axes else next(kept)
                       for a in range(len(node.src[0].shape)))
        body = self.read(node.src[0], source, when)
        return Reduction(kind, tuple(a for a in axes.values() if a.size != 1), body)


def _note(computed: list[Node], node: Node) -> str:
    """For example: MUL REDUCE:sum ADD -> f32[1,64,32,64]."""
    counts: dict[str, int] = {}
    for item in reversed(computed):
        if item.op not in VIEWS:
            name = f"REDUCE:{item.arg[0]}" if item.op is Op.REDUCE else item.op.name
            counts[name] = counts.get(name, 0) + 1
    names = [name if count == 1 else f"{count} {name}" for name, count in counts.items()]
    dims = ",".join(map(str, node.shape))
    return f"{' '.join(names) or 'copy'} -> {node.dtype.value}[{dims}]"
