"""Packed contractions in C: where they differ from plain ones, a lane takes a group of products.

Panels and rows hold words of four bytes: a group of neighbours along the last reduced axis each,
filled up with zeros. One instruction adds the products of a group to a lane.
"""
from __future__ import annotations

from collections.abc import Mapping

from tinynn.contract import Contract
from tinynn.index import ceil_div
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Load, Tensor, Value
from tinynn.packed import Packing
from tinynn.render.c_values import Block, Scope, index_text

# The products are written in assembly, because compilers differ in the name of the operation.
PACKED_HELPERS = """\
#if defined(__AVX512VNNI__)
static inline u32x16 load_u32x16(const uint32_t *p) {
    u32x16 v;
    __builtin_memcpy(&v, p, 64);
    return v;
}
static inline i32x16 load_i32x16(const int32_t *p) {
    i32x16 v;
    __builtin_memcpy(&v, p, 64);
    return v;
}
static inline void store_i32x16(int32_t *p, i32x16 v) { __builtin_memcpy(p, &v, 64); }
/* Adds the four products of every lane: bytes of a without sign, of b with. */
static inline i32x16 dot_u8(i32x16 sum, u32x16 a, u32x16 b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
#endif
#if defined(__AVX512BF16__)
#if defined(__clang__) || __GNUC__ >= 13
static inline uint16_t narrow_bf16(float x) {
    const __bf16 y = (__bf16)x;
    uint16_t h;
    __builtin_memcpy(&h, &y, 2);
    return h;
}
#else
static inline uint16_t narrow_bf16(float x) { return store_bf16(x); }
#endif
/* Stores pairs of bf16: each word holds an element of `low`, and above it one of `high`. */
static inline void pair_f32x16(uint32_t *p, f32x16 low, f32x16 high) {
    typedef uint16_t u16x32 __attribute__((vector_size(64)));
    u16x32 v;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(v) : "v"(low), "v"(high));
    v = __builtin_shufflevector(v, v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24,
                                9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    __builtin_memcpy(p, &v, 64);
}
/* Adds the two products of every lane. */
static inline f32x16 dot_bf16(f32x16 sum, u32x16 a, u32x16 b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
#endif
"""


def open_groups(block: Block, plan: Contract) -> str:
    """Open the loops over all groups, which begin at `first` of the last axis; a group's number."""
    *outer, last = plan.k_axes
    position = "0"
    for axis in outer:
        block.loop(axis)
        position = f"({position}) * {axis.size} + {axis.name}"
    block.open(f"for (int64_t first = 0; first < {last.size}; first += {plan.group})")
    return f"({position}) * {ceil_div(last.size, plan.group)} + first / {plan.group}"


def group_word(block: Block, plan: Contract, names: Mapping[Tensor, str], value: Value) -> str:
    """Write the word of a group; its name."""
    axis, bits = plan.k_axes[-1], 32 // plan.group
    block.add("uint32_t word = 0;")
    for place in range(plan.group):
        block.open("")
        block.add(f"const int64_t at = first + {place}, {axis.name} = "
                  f"{'at' if axis.size % plan.group == 0 else f'smaller(at, {axis.size - 1})'};")
        bit_text = _bits(block, plan, names, value)
        if axis.size % plan.group:
            bit_text = f"(at < {axis.size} ? {bit_text} : 0)"
        block.add(f"word |= (uint32_t){bit_text} << {place * bits};")
        block.close()
    return "word"


def _bits(block: Block, plan: Contract, names: Mapping[Tensor, str], value: Value) -> str:
    """The bits of a narrow value; of signed bytes those of 128 more, which is positive."""
    scope = Scope(block, names, plan.kernel.runtime)
    if value.dtype is DType.I8:
        return f"(uint8_t)({scope.write(value)} ^ 0x80)"
    if value.dtype is DType.U8:
        return scope.write(value)
    if isinstance(value, Load) and not value.when:
        scope.prepare(value.index)
        return f"{names[value.tensor]}[{index_text(value.offset)}]"
    if isinstance(value, Compute) and value.op is Op.CAST and value.src[0].dtype is DType.F32:
        return f"narrow_bf16({scope.write(value.src[0])})"
    return f"store_bf16({scope.write(value)})"


def multiply_groups(block: Block, plan: Contract, pitch: int) -> None:
    """The step of a tile: every row times every vector of columns."""
    assert plan.packing is not None
    # The operand that is not constant has bytes without sign, and comes first.
    order = "s{r}, b{t}" if plan.cols.packed is not None else "b{t}, s{r}"
    dot = "dot_bf16" if plan.packing.dtype is DType.BF16 else "dot_u8"
    for t in range(plan.tile_vectors):
        block.add(f"const u32x16 b{t} = load_u32x16(cols + k * {pitch} + {t * plan.lanes});")
    for r in range(plan.tile_rows):
        block.add(f"const u32x16 s{r} = rows[k * {plan.tile_rows} + {r}] + (u32x16){{0}};")
        block.add(" ".join(f"c{r}_{t} = {dot}(c{r}_{t}, {order.format(r=r, t=t)});"
                           for t in range(plan.tile_vectors)))


def fill_word(packing: Packing) -> str:
    """The group of values outside of the data."""
    return f"{packing.zero * 0x01010101}u"


def begin_sums(block: Block, plan: Contract, names: Mapping[Tensor, str], matrix: str) -> None:
    """Declare the integer accumulators. matrix: which block of the weights."""
    assert plan.start is not None
    by_column = plan.cols.packed is not None
    size = plan.tile_columns if by_column else plan.tile_rows
    block.add(f"const int32_t *sums = {names[plan.start]} + ({matrix}) * {size};")
    for r in range(plan.tile_rows):
        for t in range(plan.tile_vectors):
            by_row = f"(i32x16){{0}} + sums[{r}]"
            first = f"load_i32x16(sums + {t * plan.lanes})" if by_column else by_row
            block.add(f"i32x16 c{r}_{t} = {first};")


def end_sum(dtype: DType, place: str, name: str) -> str:
    """Store an accumulator as what the kernel sums up."""
    if dtype is DType.I32:
        return f"store_i32x16({place}, {name});"
    return f"store_f32x16({place}, __builtin_convertvector({name}, f32x16));"
