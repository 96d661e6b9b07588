"""Which family a kernel gets on which machine."""
from __future__ import annotations

import numpy as np
import pytest

from tinynn import derived, ir
from tinynn.contract import Contract
from tinynn.cost import work
from tinynn.depthwise import Depthwise
from tinynn.fuse import fuse
from tinynn.ir import DType, Graph, Node
from tinynn.machine import MACHINES, TargetError, level_of_flags, resolve_target
from tinynn.schedule import Lanes, Schedule, schedule

WIDE = MACHINES["x86-64-v4"]


def _schedules(output: Node, x: Node, machine: str = "x86-64-v4") -> list[Schedule]:
    kernels = fuse(Graph("test", {"x": x}, {"out": output})).kernels
    return [schedule(kernel, MACHINES[machine]) for kernel in kernels]


def _input(*shape: int) -> Node:
    return ir.input_("x", DType.F32, shape)


def _weight(*shape: int) -> Node:
    return ir.const(np.random.default_rng(0).standard_normal(shape), DType.F32)


def _conv(x: Node, out: int, k: int, stride: int = 1, groups: int = 1) -> Node:
    weight = _weight(out, x.shape[1] // groups, k, k)
    return derived.conv(x, weight, [stride] * 2, [1, 1], [(k // 2, k // 2)] * 2, groups)


def test_pointwise_conv_is_a_contraction_over_joined_pixels() -> None:
    x = _input(1, 64, 16, 32)
    (plan,) = _schedules(_conv(x, 192, 1), x)
    assert isinstance(plan, Contract)
    assert plan.row_count == 192 and plan.depth == 64
    assert [a.size for a in plan.columns] == [16 * 32]
    assert plan.rows.packed is not None and plan.cols.packed is None
    assert plan.rows.packed.shape == (1, plan.blocks, 64, plan.tile_rows)


def test_padded_conv_keeps_rows_and_columns_of_pixels_apart() -> None:
    x = _input(1, 24, 32, 64)
    (plan,) = _schedules(_conv(x, 32, 3, 2), x)
    assert isinstance(plan, Contract)
    assert [a.size for a in plan.columns] == [16, 32]


def test_short_rows_are_stored_with_a_stride() -> None:
    x = _input(1, 64, 3)
    y = derived.conv(x, _weight(128, 64, 1), [1], [1], [(0, 0)], 1)
    (plan,) = _schedules(y, x)
    assert isinstance(plan, Contract)
    assert [a.size for a in plan.columns] == [128] and plan.row_count == 3


def test_pooling_copies_planes_as_depthwise_does() -> None:
    x = _input(1, 24, 32, 32)
    windows = ir.window(x, [(2, 2, 2, 1), (3, 2, 2, 1)])
    for kind in ("max", "sum"):
        (plan,) = _schedules(ir.reduce(windows, kind, (4, 5)), x)
        assert isinstance(plan, Depthwise) and plan.weights is None


def test_gemm_of_one_row_reads_packed_f16_weights_as_vectors() -> None:
    x = _input(1, 512)
    half = np.random.default_rng(0).standard_normal((512, 256)).astype(np.float16)
    y = derived.matmul(x, ir.const(half.astype(np.float32)))
    (plan,) = _schedules(y, x)
    assert isinstance(plan, Contract) and plan.cols.packed is not None
    assert plan.cols.packed.dtype is DType.F16
    (narrow,) = _schedules(y, x, "x86-64-v2")
    assert isinstance(narrow, Contract) and narrow.cols.packed is not None
    assert narrow.cols.packed.dtype is DType.F32


def test_weights_that_f16_cannot_hold_stay_f32() -> None:
    x = _input(1, 64)
    (plan,) = _schedules(derived.matmul(x, _weight(64, 32)), x)
    assert isinstance(plan, Contract) and plan.cols.packed is not None
    assert plan.cols.packed.dtype is DType.F32


def test_matmul_of_two_inputs_is_a_contraction() -> None:
    x = _input(2, 10, 64)
    (plan,) = _schedules(derived.matmul(x, ir.permute(x, (0, 2, 1))), x)
    assert isinstance(plan, Contract)
    assert plan.rows.packed is None and plan.cols.packed is None
    assert [a.size for a in plan.outer] == [2]


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_conv_has_its_family(stride: int) -> None:
    x = _input(1, 32, 16, 32)
    (plan,) = _schedules(_conv(x, 32, 7, stride, 32), x)
    assert isinstance(plan, Depthwise)
    assert (plan.y.taps, plan.x.taps, plan.x.stride) == (7, 7, stride)


def test_a_deep_dense_conv_is_still_a_contraction() -> None:
    x = _input(1, 512, 7, 7)
    (plan,) = _schedules(_conv(x, 64, 3), x)
    assert isinstance(plan, Contract) and plan.depth == 512 * 9


def test_other_reductions_use_lanes() -> None:
    x = _input(8, 640)
    (rows,) = _schedules(ir.reduce(x, "sum", (1,)), x)
    assert isinstance(rows, Lanes) and rows.axis not in rows.kernel.axes
    (columns,) = _schedules(ir.reduce(x, "max", (0,)), x)
    assert isinstance(columns, Lanes) and columns.axis in columns.kernel.axes


def test_registers_of_every_machine_hold_the_tile() -> None:
    x = _input(1, 64, 16, 32)
    for name, machine in MACHINES.items():
        (plan,) = _schedules(_conv(x, 192, 1), x, name)
        assert isinstance(plan, Contract)
        used = plan.tile_rows * plan.tile_vectors + plan.tile_vectors + 1
        assert used <= machine.registers
        assert plan.tile_rows * plan.tile_vectors >= machine.registers // 2


def test_large_kernels_are_shared_and_small_ones_are_not() -> None:
    large = _input(1, 64, 32, 64)
    assert _schedules(_conv(large, 64, 1), large)[0].parts >= 8
    small = _input(1, 8, 2, 2)
    assert _schedules(_conv(small, 8, 1), small)[0].parts == 1


def test_work_counts_two_operations_per_product() -> None:
    x = _input(1, 8, 16)
    (kernel,) = fuse(Graph("t", {"x": x}, {"y": derived.matmul(x, _weight(16, 4))})).kernels
    assert work(kernel) == 2 * 8 * 16 * 4


def test_targets_resolve_to_names() -> None:
    assert resolve_target("cpu").startswith("cpu:")
    assert resolve_target("cpu:aarch64") == "cpu:aarch64"
    with pytest.raises(TargetError, match="'cpu:z80' is not known; choose one of cpu, cpu:x86-64"):
        resolve_target("cpu:z80")


def test_the_level_of_a_machine_follows_from_its_flags() -> None:
    second = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
    third = f"{second} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
    fourth = f"{third} avx512f avx512bw avx512cd avx512dq avx512vl"
    assert level_of_flags(f"flags\t\t: {second}\n") == "x86-64-v2"
    assert level_of_flags(f"flags\t\t: {third}\n") == "x86-64-v3"
    assert level_of_flags(f"flags\t\t: {fourth}\n") == "x86-64-v4"
    assert level_of_flags(f"flags\t\t: {fourth.replace('fma', '')}\n") == "x86-64-v2"
