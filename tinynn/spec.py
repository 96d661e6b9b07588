"""What is legal: that every node keeps the rule of its operation, and what must hold between nodes,
inputs and outputs.

`check` is run on every imported and every parsed graph, and after passes in tests. The rules of the
operations (ir.RULES) derive dtype and shape of a node; here they are compared with what it claims.
"""
from __future__ import annotations

from tinynn.ir import Graph, GraphError, Node, Op, required, toposort


def numbered(graph: Graph) -> dict[Node, int]:
    """The number by which texts and errors call each node: inputs first, sources before users."""
    order = toposort([*graph.inputs.values(), *graph.outputs.values()])
    return {n: i for i, n in enumerate(order)}


def check(graph: Graph) -> None:
    """Raise GraphError, naming the node, if anything in the graph is not legal."""
    numbers = numbered(graph)
    for n, number in numbers.items():
        try:
            check_node(n)
        except GraphError as error:
            sources = " ".join(f"%{numbers[s]} {s!r}" for s in n.src)
            raise GraphError(f"graph {graph.name!r}, node %{number} = {n!r} of ({sources}): "
                             f"{error}") from error
    _check_names(graph, numbers)
    _check_state(graph)


def check_node(n: Node) -> None:
    """Raise GraphError if the node breaks the rule of its operation; sources are taken as legal."""
    dtype, shape = required(n)
    if n.dtype is not dtype:
        raise GraphError(f"the dtype should be {dtype.value}, is {n.dtype.value}")
    if n.shape != shape:
        raise GraphError(f"the shape should be {shape}, is {n.shape}")


def _check_names(graph: Graph, numbers: dict[Node, int]) -> None:
    declared = set(graph.inputs.values())
    for name, n in graph.inputs.items():
        if n.op is not Op.INPUT or n.arg != name:
            raise GraphError(f"graph {graph.name!r}: input {name!r} is {n!r} called {n.arg!r}")
    for n in numbers:
        if n.op is Op.INPUT and n not in declared:
            raise GraphError(f"graph {graph.name!r}: node %{numbers[n]} reads the input {n.arg!r}, "
                             f"which is not declared; declared are {list(graph.inputs)}")
    if not graph.outputs:
        raise GraphError(f"graph {graph.name!r} has no outputs")


def _check_state(graph: Graph) -> None:
    for name, follower in graph.state.items():
        before, after = graph.inputs.get(name), graph.outputs.get(follower)
        if before is None or after is None:
            raise GraphError(f"graph {graph.name!r}: state {name!r} -> {follower!r}: "
                             f"there is no such {'input' if before is None else 'output'}")
        if before.dtype is not after.dtype or before.shape != after.shape:
            raise GraphError(f"graph {graph.name!r}: state {name!r} is {before!r}, but its next "
                             f"value {follower!r} is {after!r}")
    if len(set(graph.state.values())) != len(graph.state):
        raise GraphError(f"graph {graph.name!r}: two states take the same output: {graph.state}")
