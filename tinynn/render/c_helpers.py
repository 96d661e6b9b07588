"""C text that every program starts with: types, conversions and functions of one number.

No header is included and no function of libc is called. The functions are free of branches wherever
the compiler should vectorise loops over them. Series are, but for one, Taylor series on an interval
short enough that the first term left out is below half a unit in the last place.
"""
from __future__ import annotations

import math
from fractions import Fraction

from tinynn.render.c_packed import PACKED_HELPERS

_TYPES = """\
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;

static inline uint32_t bits_f32(float x) { uint32_t u; __builtin_memcpy(&u, &x, 4); return u; }
static inline float from_bits_f32(uint32_t u) { float x; __builtin_memcpy(&x, &u, 4); return x; }
static inline uint64_t bits_f64(double x) { uint64_t u; __builtin_memcpy(&u, &x, 8); return u; }
static inline double from_bits_f64(uint64_t u) { double x; __builtin_memcpy(&x, &u, 8); return x; }

/* An operand of assembly: a vector that is in a register there. */
#if defined(__aarch64__)
#define KEEP(v) "+w"(v)
#elif defined(__AVX512F__)
#define KEEP(v) "+v"(v)
#else
#define KEEP(v) "+x"(v)
#endif

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t clip_signed(int64_t i, int64_t size) {
    return i < 0 ? 0 : i >= size ? size - 1 : i;
}
static inline int64_t clip_unsigned(uint64_t i, int64_t size) {
    return i >= (uint64_t)size ? size - 1 : (int64_t)i;
}
"""

_HALVES = """\
/* float16 and bfloat16 are stored as uint16_t and computed in float, rounded to nearest even. */
#if defined(__F16C__) || defined(__aarch64__)
static inline float load_f16(uint16_t h) {
    _Float16 x;
    __builtin_memcpy(&x, &h, 2);
    return (float)x;
}
static inline uint16_t store_f16(float x) {
    _Float16 y = (_Float16)x;
    uint16_t h;
    __builtin_memcpy(&h, &y, 2);
    return h;
}
#else
static inline float load_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    /* 2^112 moves the exponent from the bias of float16 to that of float, denormals included. */
    const uint32_t finite = bits_f32(from_bits_f32(rest) * 0x1p+112f);
    return from_bits_f32(sign | (rest >= 0x0f800000 ? rest | 0x7f800000 : finite));
}
static inline uint16_t store_f16(float x) {
    const uint32_t bits = bits_f32(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    const uint32_t normal = (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13;
    /* The last place of floats in [0.5, 1) is that of denormal float16: the addition rounds. */
    const uint32_t small = bits_f32(from_bits_f32(rest) + 0.5f) - bits_f32(0.5f);
    const uint32_t large = rest > 0x7f800000 ? 0x7e00 : 0x7c00;
    return sign | (rest < 0x38800000 ? small : rest >= 0x477ff000 ? large : normal);
}
#endif
static inline float load_bf16(uint16_t h) { return from_bits_f32((uint32_t)h << 16); }
static inline uint16_t store_bf16(float x) {
    const uint32_t bits = bits_f32(x);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return x == x ? rounded : (bits >> 16 & 0x8000) | 0x7fc0;
}
static inline float round_f16(float x) { return load_f16(store_f16(x)); }
static inline float round_bf16(float x) { return load_bf16(store_bf16(x)); }
/* double -> float with the last bit set if anything was lost, so that rounding again is right. */
static inline float narrow_to_odd(double x) {
    const float y = (float)x;
    uint32_t bits = bits_f32(y);
    if (x == x && (double)y != x) {
        bits -= __builtin_fabs((double)y) > __builtin_fabs(x);
        bits |= 1;
    }
    return from_bits_f32(bits);
}
"""

# C type -> (smallest, largest) value as C text, for saturating conversions.
_INTEGERS = {
    "int8_t": ("-128", "127"),
    "uint8_t": ("0", "255"),
    "int16_t": ("-32768", "32767"),
    "uint16_t": ("0", "65535"),
    "int32_t": ("(-2147483647 - 1)", "2147483647"),
    "uint32_t": ("0", "4294967295u"),
    "int64_t": ("(-9223372036854775807ll - 1)", "9223372036854775807ll"),
    "uint64_t": ("0", "18446744073709551615ull"),
}


def _saturating() -> str:
    """double -> integer: truncated, clamped to the range of the type, NaN gives 0. The limits of
    short integers are float, which makes vectors of them twice as long."""
    lines = ["/* Conversion to integers truncates and saturates; NaN gives 0. */"]
    for name, (low, high) in _INTEGERS.items():
        kinds = [("", "double")] + ([("f32_", "float")] if len(high) <= len("65535") else [])
        lines += [
            f"static inline {name} to_{prefix}{name}({kind} x) {{\n"
            f"    return x != x ? 0 : x >= ({kind}){high} ? {high}"
            f" : x <= ({kind}){low} ? {low} : ({name})x;\n}}" for prefix, kind in kinds]
    return "\n".join(lines) + "\n"


def _horner(variable: str, coefficients: list[float], suffix: str) -> str:
    """Nested form of a polynomial, lowest power first in `coefficients`."""
    text = coefficients[-1].hex() + suffix
    for value in reversed(coefficients[:-1]):
        text = f"({text}) * {variable} + {value.hex()}{suffix}"
    return text


# 2^f = 1 + ... for |f| <= 1/2, lowest power first, with the smallest possible largest relative
# error: 2e-9, where half a unit in the last place is 6e-8.
_EXP2_SERIES = [
    1.0, 0.6931472029, 0.2402264791, 0.05550332471,
    0.009618437359, 0.001339887459, 0.0001535336206,
]


def _vector_functions(lanes: int) -> str:
    """Vectors of 32-bit numbers: loads and stores at any address, and what epilogues need."""
    kind, mask, bits, size = f"f32x{lanes}", f"i32x{lanes}", f"u32x{lanes}", 4 * lanes
    second = ", ".join(str(2 * i) for i in range(lanes))
    series = _horner("f", _EXP2_SERIES, "f")
    return f"""\
typedef float {kind} __attribute__((vector_size({size})));
typedef int32_t {mask} __attribute__((vector_size({size})));
typedef uint32_t {bits} __attribute__((vector_size({size})));
typedef uint16_t u16x{lanes} __attribute__((vector_size({2 * lanes})));
typedef uint8_t u8x{lanes} __attribute__((vector_size({lanes})));
static inline {kind} splat_{kind}(float x) {{ return x - ({kind}){{0}}; }}
static inline {kind} load_{kind}(const float *p) {{
    {kind} v;
    __builtin_memcpy(&v, p, {size});
    return v;
}}
static inline void store_{kind}(float *p, {kind} v) {{ __builtin_memcpy(p, &v, {size}); }}
/* load<n>: elements n apart; those between the last one and the next are read too. */
static inline {kind} load0_{kind}(const float *p) {{ return splat_{kind}(*p); }}
static inline {kind} evens_{kind}({kind} a, {kind} b) {{
    return __builtin_shufflevector(a, b, {second});
}}
static inline {kind} load2_{kind}(const float *p) {{
    return evens_{kind}(load_{kind}(p), load_{kind}(p + {lanes}));
}}
static inline {kind} load0_u8_{kind}(const uint8_t *p) {{ return splat_{kind}(*p); }}
static inline {kind} load_u8_{kind}(const uint8_t *p) {{
    u8x{lanes} v;
    __builtin_memcpy(&v, p, {lanes});
    return __builtin_convertvector(v, {kind});
}}
static inline {kind} load2_u8_{kind}(const uint8_t *p) {{
    u16x{lanes} v;
    __builtin_memcpy(&v, p, {2 * lanes});
    return __builtin_convertvector(v & 0xff, {kind});
}}
static inline {kind} load4_u8_{kind}(const uint8_t *p) {{
    {mask} v;
    __builtin_memcpy(&v, p, {size});
    return __builtin_convertvector(v & 0xff, {kind});
}}
static inline {kind} load8_u8_{kind}(const uint8_t *p) {{
    return evens_{kind}(load4_u8_{kind}(p), load4_u8_{kind}(p + {size}));
}}
static inline {kind} widen_bf16_{kind}({bits} word) {{ return ({kind})(word << 16); }}
static inline {kind} load0_bf16_{kind}(const uint16_t *p) {{
    return widen_bf16_{kind}(*p + ({bits}){{0}});
}}
static inline {kind} load_bf16_{kind}(const uint16_t *p) {{
    u16x{lanes} v;
    __builtin_memcpy(&v, p, {2 * lanes});
    return widen_bf16_{kind}(__builtin_convertvector(v, {bits}));
}}
static inline {kind} load2_bf16_{kind}(const uint16_t *p) {{
    {bits} v;
    __builtin_memcpy(&v, p, {size});
    return widen_bf16_{kind}(v);
}}
static inline {kind} select_{kind}({mask} which, {kind} a, {kind} b) {{
    return ({kind})((which & ({mask})a) | (~which & ({mask})b));
}}
/* Stores that narrow, each as the function for one number. */
static inline void store_bf16_{kind}(uint16_t *p, {kind} v) {{
    const {bits} b = ({bits})v, rounded = b + 0x7fff + (b >> 16 & 1);
    const {bits} number = ({bits})(v == v), nan = (b & 0x80000000u) | 0x7fc00000u;
    const u16x{lanes} h = __builtin_convertvector(((rounded & number) | (nan & ~number)) >> 16,
                                            u16x{lanes});
    __builtin_memcpy(p, &h, {2 * lanes});
}}
static inline {mask} to_byte_{kind}({kind} v, float low, float high) {{
    const {kind} number = ({kind})(({mask})v & (v == v)), least = splat_{kind}(low);
    const {kind} most = splat_{kind}(high), above = select_{kind}(number > least, number, least);
    return __builtin_convertvector(select_{kind}(above < most, above, most), {mask});
}}
static inline {kind} whole_byte_{kind}({kind} v) {{
    return __builtin_convertvector(to_byte_{kind}(v, 0.0f, 255.0f), {kind});
}}
static inline void store_u8_{kind}(uint8_t *p, {kind} v) {{
    const u8x{lanes} q = __builtin_convertvector(to_byte_{kind}(v, 0.0f, 255.0f), u8x{lanes});
    __builtin_memcpy(p, &q, {lanes});
}}
static inline void store_i8_{kind}(int8_t *p, {kind} v) {{
    const u8x{lanes} q = __builtin_convertvector(to_byte_{kind}(v, -128.0f, 127.0f), u8x{lanes});
    __builtin_memcpy(p, &q, {lanes});
}}
/* 2^x as exp2_f32 computes it; AVX-512 scales by 2^n in one instruction. */
static inline {kind} exp2_{kind}({kind} x) {{
#if defined(__AVX512DQ__) && {lanes} == 16
    {kind} f, y;
    __asm__("vreduceps $8, %1, %0" : "=v"(f) : "v"(x));
    const {kind} series = {series};
    __asm__("vscalefps %2, %1, %0" : "=v"(y) : "v"(series), "v"(x - f));
    return y;
#else
    const {kind} low = splat_{kind}(-151.0f), high = splat_{kind}(129.0f);
    const {kind} above = select_{kind}(x > low, x, low);
    const {kind} y = select_{kind}(above < high, above, high);
    const {kind} shifted = y + 0x1.8p+23f, f = y - (shifted - 0x1.8p+23f);
    const {bits} n = ({bits})shifted << 23;
    const {bits} half = ({bits})(({mask})n >> 1) & 0xff800000u;
    const {kind} rest = ({kind})(n - half + 0x3f800000u);
    const {kind} series = {series};
    return select_{kind}(x == x, ({kind})(({bits})series + half) * rest, x);
#endif
}}
#if defined(__F16C__) || defined(__aarch64__)
typedef _Float16 f16x{lanes} __attribute__((vector_size({2 * lanes})));
static inline {kind} widen_f16x{lanes}(const uint16_t *p) {{
    f16x{lanes} v;
    __builtin_memcpy(&v, p, {2 * lanes});
    return __builtin_convertvector(v, {kind});
}}
#endif
"""


def _exp2() -> str:
    single = _horner("f", _EXP2_SERIES, "f")
    double = _horner("f", [math.log(2) ** k / math.factorial(k) for k in range(15)], "")
    return f"""\
/* 2^x = 2^n 2^f with n whole and |f| <= 1/2. 2^n is applied in two factors, so that results beyond
   the range of normal numbers round once. Adding 1.5 * 2^23 rounds to nearest and leaves n in the
   low bits; what is added to the place of the exponent multiplies by a power of two. */
static inline float exp2_f32(float x) {{
    const float above = x > -151.0f ? x : -151.0f, y = above < 129.0f ? above : 129.0f;
    const float shifted = y + 0x1.8p+23f, f = y - (shifted - 0x1.8p+23f);
    const uint32_t n = bits_f32(shifted) << 23;
    const uint32_t half = (uint32_t)((int32_t)n >> 1) & 0xff800000u;
    const float rest = from_bits_f32(0x3f800000u + (n - half));
    const float series = {single};
    return x == x ? from_bits_f32(bits_f32(series) + half) * rest : x;
}}
static inline double exp2_f64(double x) {{
    const double y = x < 1025.0 ? (x > -1077.0 ? x : -1077.0) : 1025.0;
    const double n = (y + 0x1.8p+52) - 0x1.8p+52, f = y - n;
    const int64_t whole = (int64_t)n, half = whole >> 1;
    const double scale = from_bits_f64((uint64_t)(half + 1023) << 52);
    const double rest = from_bits_f64((uint64_t)(whole - half + 1023) << 52);
    const double series = {double};
    return x == x ? series * scale * rest : x;
}}
"""


def _log2() -> str:
    # log m = 2 atanh s with s = (m - 1) / (m + 1), and atanh s = s + s^3/3 + s^5/5 + ...
    series = _horner("t", [2 / math.log(2) / (2 * k + 1) for k in range(12)], "")
    return f"""\
/* log2 x = n + log2 m with m in [sqrt(1/2), sqrt(2)). */
static inline double log2_f64(double x) {{
    const int tiny = x < 0x1p-1022;
    const uint64_t bits = bits_f64(tiny ? x * 0x1p+54 : x);
    const uint64_t shifted = bits - 0x3fe6a09e667f3bcdull;
    const int64_t n = (int64_t)shifted >> 52;
    const double m = from_bits_f64(bits - ((uint64_t)n << 52));
    const double s = (m - 1.0) / (m + 1.0), t = s * s;
    const double y = (double)(tiny ? n - 54 : n) + s * ({series});
    const double edge = x == 0.0 ? -__builtin_inf() : x > 0.0 ? x : __builtin_nan("");
    return x > 0.0 && x < __builtin_inf() ? y : edge;
}}
static inline float log2_f32(float x) {{ return (float)log2_f64((double)x); }}
"""


def _arctan_inverse(n: int, bits: int) -> int:
    """floor-ish of 2^bits * arctan(1 / n), by its series."""
    total, power, k = 0, (1 << bits) // n, 0
    while power:
        total += (power // (2 * k + 1)) * (-1) ** k
        power //= n * n
        k += 1
    return total


def _sin() -> str:
    guard = 64
    bits = 1280 + guard
    # Machin: pi = 16 arctan(1/5) - 4 arctan(1/239)
    pi = 16 * _arctan_inverse(5, bits) - 4 * _arctan_inverse(239, bits)
    inverse = (1 << (2 * bits)) // pi >> guard  # 2^1280 / pi
    words = [inverse >> (1280 - 64 * (i + 1)) & (2 ** 64 - 1) for i in range(20)]
    table = ",\n    ".join(", ".join(f"0x{w:016x}ull" for w in words[i:i + 4])
                           for i in range(0, 20, 4))
    # pi in three parts of 33 bits: whole multiples up to 2^20 of the first two are exact.
    exact = Fraction(pi, 1 << bits)
    parts = []
    for place in (31, 64):
        part = Fraction(int(exact * 2 ** place), 2 ** place)
        parts.append(float(part))
        exact -= part
    parts.append(float(exact))
    series = _horner("t", [(-1) ** k / math.factorial(2 * k + 1) for k in range(12)], "")
    return f"""\
/* sin x = (-1)^n sin r with x = n pi + r, |r| <= pi / 2. */
static const uint64_t inverse_pi[20] = {{
    {table}}};
/* r and the parity of n for |x| >= 2^20: the whole part of x / pi is formed in integers, from the
   bits of 1 / pi that matter at the exponent of x. */
static double sin_reduce_large(double x, int64_t *n) {{
    const uint64_t bits = bits_f64(x), mantissa = (bits & 0xfffffffffffffull) | 0x10000000000000ull;
    const int64_t exponent = (int64_t)(bits >> 52 & 0x7ff) - 1075;
    /* x = mantissa 2^exponent; bits of 1 / pi above 2^-exponent give multiples of 2. Start 8 bits
       before the first that matters: they only add whole multiples of 2. */
    int64_t start = exponent - 1;
    uint64_t window[3], product[3];
    for (int i = 0; i < 3; ++i) {{
        const int64_t at = start + 64 * i;
        uint64_t word = 0;
        for (int b = 0; b < 64; ++b) {{
            const int64_t place = at + b;
            const uint64_t bit = place < 0 ? 0 : inverse_pi[place >> 6] >> (63 - (place & 63)) & 1;
            word = word << 1 | bit;
        }}
        window[i] = word;
    }}
    unsigned __int128 carry = 0;
    for (int i = 2; i >= 0; --i) {{
        carry += (unsigned __int128)window[i] * mantissa;
        product[i] = (uint64_t)carry;
        carry >>= 64;
    }}
    /* product[0]: top bit is the parity of the whole part, the rest is the fraction. */
    const uint64_t high = product[0] << 1 | product[1] >> 63;
    const uint64_t low = product[1] << 1 | product[2] >> 63;
    const int up = (int)(high >> 63);
    const int64_t parity = (int64_t)(product[0] >> 63);
    *n = parity + up;
    const double fraction = (double)(int64_t)high * 0x1p-64 + (double)low * 0x1p-128;
    const double r = fraction * {math.pi.hex()};
    return x < 0.0 ? -r : r;
}}
static inline double sin_f64(double x) {{
    double r;
    int64_t n;
    if (__builtin_fabs(x) < 0x1p+20) {{
        const double y = (x * {(1 / math.pi).hex()} + 0x1.8p+52) - 0x1.8p+52;
        n = (int64_t)y;
        r = ((x - y * {parts[0].hex()}) - y * {parts[1].hex()}) - y * {parts[2].hex()};
    }} else if (__builtin_fabs(x) < __builtin_inf()) {{
        r = sin_reduce_large(x, &n);
    }} else {{
        return x - x;
    }}
    const double t = r * r;
    const double y = r * ({series});
    return n & 1 ? -y : x == 0.0 ? x : y;
}}
static inline float sin_f32(float x) {{ return (float)sin_f64((double)x); }}
"""


def preamble() -> str:
    """All helpers, in an order in which they may be compiled."""
    vectors = map(_vector_functions, (4, 8, 16))
    return "\n".join([_TYPES, _HALVES, *vectors, PACKED_HELPERS, _saturating(), _exp2(), _log2(),
                      _sin()])
