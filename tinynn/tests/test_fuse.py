"""What becomes a kernel, and why."""
from __future__ import annotations

import numpy as np

from tinynn import derived, ir
from tinynn.fuse import Fusion, fuse
from tinynn.ir import DType, Graph, Node
from tinynn.kernel import Guard, Load, merge_axes


def _fused(output: Node, **inputs: Node) -> Fusion:
    return fuse(Graph("test", inputs, {"out": output}))


def _input(*shape: int) -> Node:
    return ir.input_("x", DType.F32, shape)


def _weight(*shape: int) -> Node:
    return ir.const(np.random.default_rng(0).standard_normal(shape), DType.F32)


def test_a_chain_of_elementwise_nodes_is_one_loop() -> None:
    x = _input(2, 3, 4)
    y = ir.add(ir.mul(x, x), ir.full(x.shape, 1, DType.F32))
    (kernel,) = _fused(y, x=x).kernels
    assert [a.size for a in merge_axes(kernel).axes] == [24]


def test_conv_bias_gelu_and_skip_are_one_kernel() -> None:
    x = _input(1, 8, 6, 6)
    y = derived.conv(x, _weight(8, 8, 1, 1), [1, 1], [1, 1], [(0, 0), (0, 0)], 1)
    y = ir.add(y, derived.broadcast_to(_weight(1, 8, 1, 1), y.shape))
    gate = ir.div(y, ir.add(ir.exp2(y), ir.full(y.shape, 1, DType.F32)))
    (kernel,) = _fused(ir.add(ir.mul(y, gate), x), x=x).kernels
    assert kernel.reduction is not None
    assert kernel.tensor.kind == "output"


def test_a_reduction_with_two_readers_is_stored_with_the_reason() -> None:
    x = _input(4, 5)
    total = ir.reduce(x, "sum", (1,))
    y = ir.add(x, ir.expand(ir.reshape(total, (4, 1)), x.shape))
    z = ir.mul(total, total)
    fusion = fuse(Graph("test", {"x": x}, {"y": y, "z": z}))
    assert len(fusion.kernels) == 3
    assert any("REDUCE" in note and "2 kernels read it" in note for note in fusion.notes)


def test_a_permuted_result_is_written_along_its_own_rows() -> None:
    x = _input(1, 16, 6, 6)
    y = derived.conv(x, _weight(12, 16, 1, 1), [1, 1], [1, 1], [(0, 0), (0, 0)], 1)
    (kernel,) = _fused(ir.permute(y, (0, 2, 3, 1)), x=x).kernels
    assert [a.size for a in kernel.axes] == [6, 6, 12]
    assert kernel.offset.coefficient(kernel.axes[-1]) == 1


def test_a_sum_is_not_scattered_over_what_reads_it() -> None:
    x = _input(1, 16, 6, 6)
    y = derived.conv(x, _weight(4, 16, 1, 1), [1, 1], [1, 1], [(0, 0), (0, 0)], 1)
    doubled = ir.permute(ir.reshape(y, (2, 2, 6, 6)), (2, 0, 3, 1))  # depth to space
    fusion = _fused(ir.reshape(doubled, (12, 12)), x=x)
    assert [k.reduction is not None for k in fusion.kernels] == [True, False]
    assert any("REDUCE" in note and "another order" in note for note in fusion.notes)


def test_a_permuted_depthwise_sum_keeps_the_rows_of_its_planes() -> None:
    x = _input(1, 10, 16, 16)
    y = derived.conv(x, _weight(10, 1, 3, 3), [1, 1], [1, 1], [(1, 1), (1, 1)], 10)
    sums, copy = _fused(ir.permute(y, (0, 2, 3, 1)), x=x).kernels
    assert [a.size for a in sums.axes] == [10, 16, 16]
    assert copy.reduction is None and [a.size for a in copy.axes] == [16, 16, 10]


def test_relu_before_pooling_is_the_epilogue_of_the_sum() -> None:
    x = _input(1, 8, 6, 6)
    y = derived.conv(x, _weight(8, 8, 1, 1), [1, 1], [1, 1], [(0, 0), (0, 0)], 1)
    pooled = ir.reduce(ir.window(derived.relu(y), [(2, 2, 2, 1), (3, 2, 2, 1)]), "max", (4, 5))
    conv, pool = _fused(pooled, x=x).kernels
    assert "MAX" in conv.note and isinstance(pool.reduction and pool.reduction.body, Load)


def test_an_expensive_node_that_is_repeated_is_stored() -> None:
    x = _input(64, 1)
    y = ir.expand(ir.exp2(x), (64, 1000))
    z = ir.input_("z", DType.F32, y.shape)
    fusion = _fused(ir.add(y, z), x=x, z=z)
    assert len(fusion.kernels) == 2
    assert any("EXP2" in note and "1000 reads" in note for note in fusion.notes)


def test_a_cheap_node_that_is_repeated_a_little_is_computed_again() -> None:
    x = _input(64, 1)
    y = ir.expand(ir.add(x, x), (64, 2))
    assert len(_fused(ir.mul(y, y), x=x).kernels) == 1


def test_for_a_gpu_a_launch_is_worth_more_than_arithmetic_but_for_factors_of_sums() -> None:
    x, rows = _input(1, 64), _input(128, 64)
    shift = ir.expand(ir.exp2(x), (128, 64))
    graph = Graph("test", {"x": x, "rows": rows}, {"y": ir.add(shift, rows)})
    assert len(fuse(graph).kernels) == 2
    assert len(fuse(graph, gpu=True).kernels) == 1
    factor = derived.matmul(ir.maximum(x, ir.full((1, 64), 0.0, DType.F32)), _weight(64, 64))
    assert len(fuse(Graph("test", {"x": x}, {"y": factor}), gpu=True).kernels) == 2


def test_concat_has_no_kernel_of_its_own() -> None:
    x = _input(2, 3)
    y = ir.concat([ir.exp2(x), ir.reduce(ir.window(x, [(1, 2, 1, 1)]), "max", (2,))], 1)
    kernels = _fused(y, x=x).kernels
    assert len(kernels) == 2
    assert {k.tensor.kind for k in kernels} == {"output"}


def test_nested_concats_write_to_the_outermost_tensor() -> None:
    x = _input(2, 3)
    y = ir.concat([ir.concat([ir.exp2(x), x], 1), ir.concat([x, ir.sqrt(x)], 1)], 0)
    kernels = _fused(y, x=x).kernels
    assert len(kernels) == 4
    assert {k.tensor.kind for k in kernels} == {"output"}


def test_a_concat_that_is_read_again_keeps_its_own_tensor() -> None:
    x = _input(2, 3)
    inner = ir.concat([ir.exp2(x), x], 1)
    kernels = _fused(ir.concat([inner, ir.sqrt(inner)], 0), x=x).kernels
    assert [k.tensor.kind for k in kernels] == ["arena", "arena", "output", "output"]


def test_an_input_that_is_an_output_and_a_second_name_are_copied() -> None:
    x = _input(5)
    y = ir.exp2(x)
    fusion = fuse(Graph("test", {"x": x}, {"x2": x, "y": y, "y2": y}))
    assert [k.tensor.name for k in fusion.kernels] == ["y", "x2", "y2"]


def test_padding_becomes_a_condition_on_the_load() -> None:
    x = _input(5)
    (kernel,) = _fused(ir.pad(x, [(1, 2)], 7.0), x=x).kernels
    (load,) = kernel.loads()
    assert [str(w.expr) for w in load.when] == ["i0 + -1"]
    assert load.fill == 7.0


def test_padding_of_padding_keeps_both_fill_values() -> None:
    x = _input(5)
    y = ir.pad(ir.pad(x, [(1, 1)], 2.0), [(3, 3)], 5.0)
    (kernel,) = _fused(y, x=x).kernels
    assert isinstance(kernel.value, Guard) and kernel.value.fill == 5.0
    assert isinstance(kernel.value.value, Load) and kernel.value.value.fill == 2.0


def test_long_chains_are_cut_into_kernels() -> None:
    x = y = _input(8)
    for _ in range(5000):
        y = ir.add(ir.exp2(y), x)
    kernels = _fused(y, x=x).kernels
    assert 50 <= len(kernels) <= 200


def test_nothing_is_computed_for_an_empty_output() -> None:
    x = _input(0, 3)
    assert _fused(ir.exp2(x), x=x).kernels == []


def test_scatter_copies_then_updates_in_order() -> None:
    x = _input(4, 2)
    rows = ir.input_("i", DType.I64, (3,))
    y = ir.scatter(x, rows, ir.full((3, 2), 1, DType.F32), 0, "add")
    copy, update = fuse(Graph("test", {"x": x, "i": rows}, {"y": y})).kernels
    assert copy.scatter is None
    assert update.scatter == "add"


def test_notes_name_the_operations() -> None:
    x = _input(3, 4)
    (kernel,) = _fused(ir.exp2(ir.reduce(ir.mul(x, x), "sum", (1,))), x=x).kernels
    assert kernel.note == "MUL REDUCE:sum EXP2 -> f32[3]"


def test_what_is_repeated_in_a_product_that_is_stored_is_computed_once() -> None:
    rows = ir.input_("rows", DType.F32, (64, 1))
    x = ir.input_("x", DType.F32, (64, 1024))
    product = ir.mul(ir.expand(ir.sin(ir.exp2(rows)), (64, 1024)), x)
    for outputs in ({"out": product}, {"out": product, "sum": ir.reduce(product, "sum", (1,))}):
        kernels = fuse(Graph("test", {"rows": rows, "x": x}, outputs)).kernels
        assert len(kernels) == 1 + len(outputs)
        assert [a.size for a in merge_axes(kernels[0]).axes] == [64]
