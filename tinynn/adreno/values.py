"""Values as OpenCL C where tensors are images: how elements and texels are read and written.

Arithmetic on values is in float; only the long sums of the families are in the type of the images.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinynn.adreno.layout import TEXEL, Image
from tinynn.index import Axis, Expr, Within, of
from tinynn.ir import DType, Op
from tinynn.kernel import Compute, Load, Tensor, Value
from tinynn.opencl.values import (
    Block,
    Pointers,
    Writer,
    condition_text,
    index_text,
    literal,
)

# Names that differ by precision: type of a texel, how it is read and written, fast functions.
PREAMBLES = {
    "f16": """\
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
typedef half4 texel;
#define READ(image, x, y) read_imageh(image, (int2)(x, y))
#define READ_PADDED(image, x, y) read_imageh(image, ZERO_OUTSIDE, (int2)(x, y))
#define WRITE(image, x, y, value) write_imageh(image, (int2)(x, y), convert_half4(value))
#define TO_FLOAT convert_float4
#define fast_exp2 native_exp2
#define fast_divide native_divide
""",
    "f32": """\
typedef float4 texel;
#define READ(image, x, y) read_imagef(image, (int2)(x, y))
#define READ_PADDED(image, x, y) read_imagef(image, ZERO_OUTSIDE, (int2)(x, y))
#define WRITE(image, x, y, value) write_imagef(image, (int2)(x, y), value)
#define TO_FLOAT
#define fast_exp2 exp2
#define fast_divide(a, b) ((a) / (b))
""",
}
# ONCE is 1, and the compiler does not know it: loops whose bound it multiplies are not written out,
# which would overflow the instruction cache and spill registers.
COMMON = """\
#define ONCE min((uint)get_num_groups(0), 1u)
__constant sampler_t ZERO_OUTSIDE =
    CLK_NORMALIZED_COORDS_FALSE | CLK_ADDRESS_CLAMP | CLK_FILTER_NEAREST;
inline float channel(float4 value, int number) {
    return number < 2 ? (number == 0 ? value.x : value.y) : (number == 2 ? value.z : value.w);
}
"""


@dataclass(frozen=True)
class Lane:
    """The loop axis whose four neighbours a vector holds; its size is a multiple of four.

    texel: counts such vectors along it. In the source both are variables: axis = 4 * texel.
    """

    axis: Axis

    @property
    def texel(self) -> Axis:
        return Axis(f"{self.axis.name}_4", self.axis.size // TEXEL)

    def split(self, expr: Expr) -> Expr:
        """An expression in terms of the vector."""
        return expr.substitute({self.axis: of(self.texel) * TEXEL})

    def declare(self, block: Block, texel: str | None = None) -> None:
        """Declare both variables, or only the axis if the texel is known already."""
        if texel is not None:
            block.add(f"const int {self.texel.name} = {texel};")
        block.add(f"const int {self.axis.name} = {self.texel.name} * {TEXEL};")


class Textures(Pointers):
    """How elements of tensors are read: images by texel, other tensors behind pointers.

    lane: the axis of vectors, whose variable is known to be a multiple of four.
    """

    def __init__(self, names: Mapping[Tensor, str], images: Mapping[Tensor, Image],
                 lane: Lane | None) -> None:
        super().__init__(names)
        self.images = images
        self.lane = lane

    def split(self, exprs: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(e if self.lane is None else self.lane.split(e) for e in exprs)

    def element(self, load: Load, index: Sequence[Expr]) -> str:
        image = self.images.get(load.tensor)
        if image is None:
            return super().element(load, index)
        index = self.split(index)
        number = index[image.channel] % TEXEL
        text = f"READ({self.names[load.tensor]}, {coordinates(image, index)})"
        if number.terms:
            return f"channel(convert_float4({text}), {index_text(number)})"
        return f"(float){text}.{'xyzw'[number.const]}"

    def vector(self, load: Load, index: Sequence[Expr], width: int) -> str | None:
        return None if load.tensor in self.images else super().vector(load, index, width)

    def texel(self, load: Load) -> str | None:
        """Four channels at once as float4 if the lane runs along them; conditions of the load hold,
        or are such that the sampler answers."""
        image = self.images.get(load.tensor)
        if image is None or self.lane is None:
            return None
        index = self.split(load.index)
        expr = index[image.channel]
        others = [e for d, e in enumerate(index) if d != image.channel]
        along = load.index[image.channel].coefficient(self.lane.axis) == 1
        if not along or (expr % TEXEL).terms or expr.const % TEXEL or any(
                self.lane.texel in e.axes for e in others):
            return None
        read = "READ_PADDED" if load.when else "READ"
        return (f"convert_float4({read}({self.names[load.tensor]}, "
                f"{coordinates(image, index)}))")


def coordinates(image: Image, index: Sequence[Expr]) -> str:
    """x and y of the texel that holds an element."""
    return f"{index_text(image.texel(index))}, {index_text(image.row(index))}"


class TexelWriter(Writer):
    """Writes values as float variables; vectors hold the four channels of a texel."""

    def __init__(self, block: Block, access: Textures, runtime: Mapping[str, Value],
                 known: Mapping[int, str] | None = None, prefix: str = "v",
                 tail: Within | None = None) -> None:
        lane = access.lane
        super().__init__(block, access, runtime, known, prefix,
                         None if lane is None else lane.axis, TEXEL if lane else 1, tail)
        self.textures = access

    def _wide_load(self, load: Load) -> str:
        lane = self.textures.lane
        assert lane is not None
        text = self.textures.texel(load)
        moving = any(lane.axis in w.expr.axes for w in load.when)
        if text is None or moving:
            return super()._wide_load(load)
        self.prepare([*load.index, *(w.expr for w in load.when)])
        image = self.textures.images[load.tensor]
        if not load.when or (load.fill == 0 and image.outside_is_zero(load.index, load.when)):
            return text
        fill = literal(load.fill, DType.F32)
        return f"{condition_text(load.when)} ? {text} : (float4)({fill})"

    def _compute(self, value: Compute, wide: bool) -> str:
        # Positions that are computed at run time are exact, or they pick another pixel.
        if value.dtype is DType.F32 and value.op in (Op.EXP2, Op.DIV) and not self.runtime:
            texts = [self.vector(s) if wide else self.write(s) for s in value.src]
            name = "fast_exp2" if value.op is Op.EXP2 else "fast_divide"
            return f"{name}({', '.join(texts)})"
        return super()._compute(value, wide)
