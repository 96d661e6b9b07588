"""The page of a program: places of kernels, edges, and that nothing in it can break out."""
from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinynn import picture
from tinynn.explain import Explanation, KernelRow
from tinynn.program import Buffer, Step


def program(reads: list[list[int]], name: str = "net", source: str = "void f() {}") -> Explanation:
    """Kernel i writes buffer i + 1 and reads the given ones; buffer 0 is the input, the last one
    is the output."""
    kinds = ["input", *["arena"] * (len(reads) - 1), "output"]
    buffers = tuple(Buffer(kind, f"b{i}", "f32", (4,), 0, 16) for i, kind in enumerate(kinds))
    rows = []
    for i, args in enumerate(reads):
        step = Step(f"k{i:03d}_loops_4", (i + 1, *args), (0,), 1, 8, 32, "ADD -> f32[4]", "loops",
                    "reason")
        rows.append(KernelRow(step, source, 500.0, "data"))
    return Explanation(name, "cpu:aarch64", 1, "by hand", source, buffers, tuple(rows))


DIAMOND = program([[0], [1], [1], [2, 3]])


def page_data(explanation: Explanation) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>',
                      picture.page(explanation), re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def test_layers_follow_the_data() -> None:
    spots, edges = picture.lay_out(DIAMOND)
    layer = {(s.kind, s.number): s.layer for s in spots}
    assert layer == {("input", 0): 0, ("kernel", 0): 1, ("kernel", 1): 2, ("kernel", 2): 2,
                     ("kernel", 3): 3, ("output", 4): 4}
    assert sorted(e.buffer for e in edges) == [0, 1, 1, 2, 3, 4]


def test_a_chain_is_straight_and_a_diamond_symmetric() -> None:
    chain, _ = picture.lay_out(program([[i] for i in range(6)]))
    assert len({s.x for s in chain}) == 1
    x = {(s.kind, s.number): s.x for s in picture.lay_out(DIAMOND)[0]}
    assert x["kernel", 1] + x["kernel", 2] == pytest.approx(2 * x["kernel", 3])


def test_long_edges_bend_around_what_they_pass() -> None:
    spots, edges = picture.lay_out(program([[0], [1], [2], [3, 1]]))
    (long,) = [e for e in edges if len(e.path) > 2]
    assert [s.layer for s in long.path] == [1, 2, 3, 4]
    for bend in long.path[1:-1]:
        (kernel,) = [s for s in spots if s.kind == "kernel" and s.layer == bend.layer]
        assert abs(bend.x - kernel.x) >= (bend.width + kernel.width) / 2


@pytest.mark.parametrize("seed", range(5))
def test_nodes_never_overlap(seed: int) -> None:
    """150 kernels with random reads: what the page must stay usable for."""
    generator = random.Random(seed)
    reads = [sorted({generator.randint(max(0, i - 12), i) for _ in range(generator.randint(1, 3))})
             for i in range(150)]
    spots, edges = picture.lay_out(program(reads))
    layers: dict[int, list[picture.Spot]] = {}
    for spot in spots:
        layers.setdefault(spot.layer, []).append(spot)
    for layer in layers.values():
        layer.sort(key=lambda spot: spot.x)
        for left, right in itertools.pairwise(layer):
            assert right.x - left.x >= (left.width + right.width) / 2
        assert len({spot.y for spot in layer}) == 1
    for edge in edges:
        assert all(b.layer == a.layer + 1 for a, b in itertools.pairwise(edge.path))
    assert len(edges) == sum(map(len, reads)) + 1


def test_kernels_that_write_parts_of_a_buffer() -> None:
    """A CONCAT: two kernels write buffer 1, a third reads it."""
    base = program([[0], [0], [1]])
    rows = list(base.rows)
    rows[1] = replace(rows[1], step=replace(rows[1].step, args=(1, 0)))
    _, edges = picture.lay_out(replace(base, rows=tuple(rows)))
    readers = [(e.path[0].number, e.path[-1].number) for e in edges if e.buffer == 1]
    assert readers == [(0, 2), (1, 2)]


def test_empty_program() -> None:
    assert page_data(replace(DIAMOND, buffers=(), rows=()))["spots"] == []


def test_page_holds_everything_and_nothing_outside() -> None:
    timed = DIAMOND.with_times([100.0, 200.0, 300.0, 400.0])
    text = picture.page(timed)
    assert picture.page(timed) == text
    assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    data = page_data(timed)
    assert [k["measured"] for k in data["kernels"]] == [100, 200, 300, 400]
    assert data["measured"] and len(data["spots"]) == 6 and len(data["edges"]) == 6
    assert data["sources"]["k002_loops_4"] == "void f() {}"
    for edge in data["edges"]:
        upper, lower = data["spots"][edge["from"]], data["spots"][edge["to"]]
        assert upper["y"] < lower["y"]


def test_text_cannot_become_markup() -> None:
    evil = "</script><script>alert(1)</script><b>@DATA@"
    text = picture.page(program([[0]], name=evil, source=evil))
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert "<b>" not in text
    data = page_data(program([[0]], name=evil, source=evil))
    assert data["name"] == evil and data["sources"]["k000_loops_4"] == evil


def test_script_is_sound(tmp_path: Path) -> None:
    """A JavaScript engine, where there is one, accepts the script."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to check the script of the page")
    script = picture.page(DIAMOND).rpartition("<script>")[2].partition("</script>")[0]
    path = tmp_path / "page.js"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run([node, "--check", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_page_in_a_browser(tmp_path: Path) -> None:
    """The script runs: afterwards the document holds a box per kernel and the list of them."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium to open the page with")
    path = tmp_path / "page.html"
    picture.write_picture(path, DIAMOND)
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"{path.as_uri()}#2"],
        capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"chromium does not start here: {done.stderr[-200:]}")
    assert done.stdout.count('class="node') == 6
    assert done.stdout.count('class="edge') == 6
    assert "stored because" in done.stdout and "2  k002_loops_4" in done.stdout
