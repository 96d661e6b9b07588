"""Random small graphs through everything: printed and parsed back, simplified and as they are,
interpreted and compiled. A failure is shrunk to a small graph and told as text that parses."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tinynn import interp
from tinynn.ir import DType, Graph, Op, node
from tinynn.machine import resolve_target
from tinynn.simplify import simplify
from tinynn.tests import direct, random_graphs
from tinynn.text import constants, parse_graph, print_graph

Arrays = dict[str, np.ndarray[Any, Any]]
Backend = Callable[[Graph, Arrays], Arrays]

# Many graphs are compiled at once: starting the compiler takes longer than one of them.
_BATCHES = st.lists(
    random_graphs.graphs(most_nodes=14, dtypes=tuple(DType), special=True, empty_axes=True),
    min_size=1, max_size=40)
_SEEDS = st.integers(0, 2 ** 31)
_COARSE = {DType.F16.numpy: 4e-3, DType.BF16.numpy: 3e-2}
_OPTIONS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck),
                            "phases": [Phase.reuse, Phase.generate, Phase.shrink],
                            "report_multiple_bugs": False}


def check(graphs: list[Graph], feeds: list[Arrays], backend: Backend) -> None:
    """Raise AssertionError for the first graph that any of the ways gives another result for."""
    wanted = [interp.run(graph, feed) for graph, feed in zip(graphs, feeds, strict=True)]
    simple = [simplify(graph) for graph in graphs]
    for graph, after, feed, want in zip(graphs, simple, feeds, wanted, strict=True):
        with _told(graph, feed, "printed and parsed"):
            assert parse_graph(print_graph(graph), constants(graph)) == graph
        with _told(graph, feed, "simplified"):
            direct.assert_close(interp.run(after, feed), want, 0.0)
    together = direct.joined([*graphs, *simple])
    named = {f"{i}.{name}": value for i, feed in enumerate([*feeds, *feeds])
             for name, value in feed.items()}
    got = backend(together, named)
    for i in range(2 * len(graphs)):
        at = i % len(graphs)
        how = "compiled" if i == at else "simplified and compiled"
        with _told(graphs[at], feeds[at], how):
            for name, want_one in wanted[at].items():
                tolerance = _COARSE.get(want_one.dtype, 1e-5)
                direct.assert_close({name: got[f"{i}.{name}"]}, {name: want_one}, tolerance)


@contextlib.contextmanager
def _told(graph: Graph, feed: Arrays, how: str) -> Iterator[None]:
    """Adds the graph and its inputs to what a failed comparison says."""
    try:
        yield
    except AssertionError as error:
        values = "".join(f"\n{name} = {value!r}" for name, value in feed.items())
        text = f"{how}, this graph gives another result:\n{print_graph(graph)}{values}\n{error}"
        raise AssertionError(text) from error


def _check_seeded(graphs: list[Graph], seed: int, special: bool, backend: Backend) -> None:
    check(graphs, [random_graphs.random_inputs(g, seed, special) for g in graphs], backend)


@given(_BATCHES, _SEEDS, st.booleans(), st.integers(1, 3))
@settings(max_examples=60, derandomize=True, database=None, **_OPTIONS)
def test_all_ways_agree(graphs: list[Graph], seed: int, special: bool, threads: int) -> None:
    _check_seeded(graphs, seed, special, lambda g, feed: direct.run(g, feed, threads=threads))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", *(pytest.param(name, marks=pytest.mark.skipif(
    "x86" not in resolve_target("cpu"), reason="needs an x86-64 machine"))
    for name in ("cpu:x86-64-v2", "cpu:x86-64-v3"))])
def test_all_ways_agree_on_many_new_graphs(target: str) -> None:
    @given(_BATCHES, _SEEDS, st.booleans(), st.integers(1, 3))
    @settings(max_examples=400, print_blob=True, **_OPTIONS)
    def agree(graphs: list[Graph], seed: int, special: bool, threads: int) -> None:
        _check_seeded(graphs, seed, special,
                      lambda g, feed: direct.run(g, feed, target, threads))

    agree()


def test_a_failure_is_shrunk_to_the_operation_that_is_wrong(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that rounds up where FLOOR rounds down."""
    def backend(graph: Graph, feed: Arrays) -> Arrays:
        with monkeypatch.context() as patch:
            patch.setitem(interp.EVALUATE, Op.FLOOR, lambda n, x: np.ceil(x))
            return interp.run(graph, feed)

    @given(_BATCHES, _SEEDS)
    @settings(max_examples=60, derandomize=True, database=None, **_OPTIONS)
    def agree(graphs: list[Graph], seed: int) -> None:
        _check_seeded(graphs, seed, False, backend)

    with pytest.raises(AssertionError, match="this graph gives another result") as caught:
        agree()
    text = str(caught.value)
    start = text.index('graph "')
    minimal = parse_graph(text[start:text.index("\nx = ")])
    assert Op.FLOOR in {n.op for n in minimal.nodes()}
    assert len(minimal.nodes()) <= 4


def test_a_sum_over_nothing_is_nothing() -> None:
    """Axes without elements once were joined, and what was read divided by their size."""
    x = node(Op.INPUT, DType.F32, (0, 4, 2, 2), (), "x")
    turned = node(Op.PERMUTE, DType.F32, (4, 2, 2, 0), (x,), (1, 3, 2, 0))
    doubled = node(Op.ADD, DType.F32, turned.shape, (turned, turned))
    total = node(Op.REDUCE, DType.F32, (), (doubled,), ("sum", (0, 1, 2, 3)))
    graph = Graph("nothing", {"x": x}, {"out": total}, {}, {})
    out = direct.run(graph, {"x": np.zeros(x.shape, np.float32)}, "cpu", 1)["out"]
    assert out.shape == () and out == 0
