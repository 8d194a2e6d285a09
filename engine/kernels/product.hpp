// Products of int8 rows with int8 weights, both in groups:
//   y[r, n] = bias[n] + sum over g of float(sum over k in g of a[r, k] * w[k, n]) * (step[r, g] * scale[g, n])
//
// A tile is up to S::ROWS rows by S::COLS registers of columns. Sums of a group are exact integers; the groups of a row are added in
// order, in fp32, so that a row's bits depend on nothing but the row. All rows visit a panel of columns before the next, so that its
// weights stay in L1 or L2.
#pragma once
#include "rows.hpp"
#include "tiles.hpp"

namespace {

// Accumulators are named variables: gcc 12 keeps arrays of them in memory, however its loops are unrolled.
#define TILE_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
constexpr i64 STEPS = GROUP / 4;  // of a group: four channels at a time
constexpr i64 BLOCK_BYTES = 64;   // weights of four channels of 16 columns

template <class S, int M, int C, class Out>
[[gnu::noinline]] void tile(const Quantized& a, i64 row, const rk_product& p, i64 column, const u8* ahead, const Out& out) {
    using I = typename S::I;
    using V = typename S::V;
    // Three rows from an address: so many addresses fit into registers.
    const i64 stride = a.apart * a.channels, apart = a.apart * a.groups();
    const i8 *a0 = a.integers + row * stride, *a3 = a0 + 3 * stride;
    const Range *r0 = a.ranges + row * apart, *r3 = r0 + 3 * apart, *const end = r0 + a.groups();
    const u8* w = p.weights + column / 16 * 16 * a.channels + column % 16 * 4;
    const i64 beside = 16 * a.channels;  // from a register of columns to the next
    const float* scales = p.scales + column;
#define DECLARE(m) [[maybe_unused]] V x##m = S::vzero(), y##m = x##m;
    TILE_ROWS(DECLARE)
#undef DECLARE
    for (; r0 != end; r0++, r3++, scales += p.scale_stride) {
#define START(m) [[maybe_unused]] I i##m = m < M ? S::start((m < 3 ? r0 : r3)[m % 3 * apart].start) : I{}, j##m = i##m;
        TILE_ROWS(START)
#undef START
#pragma GCC unroll 4
        for (i64 k = 0; k < STEPS; k++, a0 += 4, a3 += 4, w += BLOCK_BYTES, ahead += BLOCK_BYTES) {
            __builtin_prefetch(ahead, 0, 3);
            const auto p0 = S::weights(w);
            [[maybe_unused]] const auto p1 = C > 1 ? S::weights(w + beside) : p0;
#define STEP(m)                                                            \
    if constexpr (m < M) {                                                 \
        const I four = S::four((m < 3 ? a0 : a3) + m % 3 * stride);        \
        i##m = S::dot(i##m, p0, four);                                     \
        if constexpr (C > 1) j##m = S::dot(j##m, p1, four);                \
    }
            TILE_ROWS(STEP)
#undef STEP
        }
        const V q0 = S::vload(scales);
        [[maybe_unused]] const V q1 = C > 1 ? S::vload(scales + S::WIDTH) : q0;
#define ADD(m)                                                                                   \
    if constexpr (m < M) {                                                                       \
        const V step = S::vset((m < 3 ? r0 : r3)[m % 3 * apart].step);                           \
        x##m = S::vfma(S::vfloat(i##m), S::vmul(step, q0), x##m);                                \
        if constexpr (C > 1) y##m = S::vfma(S::vfloat(j##m), S::vmul(step, q1), y##m);           \
    }
        TILE_ROWS(ADD)
#undef ADD
    }
#define PUT(m)                                                                       \
    if constexpr (m < M) {                                                           \
        out.put(row + m, column, x##m);                                              \
        if constexpr (C > 1) out.put(row + m, column + S::WIDTH, y##m);              \
    }
    TILE_ROWS(PUT)
#undef PUT
}

template <class S, int C, int M, class Out>
void tile_of(int rows, const Quantized& a, i64 row, const rk_product& p, i64 column, const u8* ahead, const Out& out) {
    if (rows == M) return tile<S, M, C>(a, row, p, column, ahead, out);
    if constexpr (M > 1) tile_of<S, C, M - 1>(rows, a, row, p, column, ahead, out);
}

template <class S, int C, class Out>
void panel(const Quantized& a, i64 rows, const rk_product& p, i64 column, const u8* next, const Out& out) {
    i64 row = 0;
    if constexpr (S::TILES && C == 2) row = tiled_rows<S>(a, rows, p, column, out);
    const i64 tiles = (rows - row + S::ROWS - 1) / S::ROWS;
    for (i64 t = 0; t < tiles; t++) {
        const i64 count = (rows - row + tiles - t - 1) / (tiles - t);  // even parts
        tile_of<S, C, S::ROWS>(int(count), a, row, p, column, next, out);
        row += count;
        if (t == 0) next += 16 * a.channels;  // the first tile fetches 16 columns of the next panel, the others 16 more
    }
}

// Columns [first, last), multiples of 16, of all rows: `out.put(row, column, V)` gets them without bias.
template <class S, class Out>
void product(const Quantized& a, i64 rows, const rk_product& p, i64 first, i64 last, const Out& out) {
    constexpr i64 width = S::WIDTH * S::COLS;
    for (i64 column = first; column < last;) {
        const bool whole = column + width <= last;
        const i64 end = column + (whole ? width : S::WIDTH);
        const u8* next = p.weights + (end < p.columns ? end / 16 * 16 : column / 16 * 16) * a.channels;
        if (whole) panel<S, S::COLS>(a, rows, p, column, next, out);
        else panel<S, 1>(a, rows, p, column, next, out);
        column = end;
    }
}

// What becomes of a product's columns.
template <class S>
struct Biased {  // y + bias, at column - origin
    const rk_product& p;
    float* out;
    i64 stride, origin;
    void put(i64 row, i64 column, typename S::V y) const {
        S::vstore(out + row * stride + column - origin, S::vadd(y, S::vload(p.bias + column)));
    }
};

template <class S>
struct Attended {  // (y + bias) * factor for attention's products, at column - origin
    const rk_product& p;
    float* out;
    i64 stride, origin;
    float factor = 1;
    void put(i64 row, i64 column, typename S::V y) const {
        const auto sum = S::vadd(y, S::vload(p.bias + column));
        S::vstore(out + row * stride + column - origin, S::vbf16(S::vmul(sum, S::vset(factor))));
    }
};

template <class S>
struct Residual {  // y + bias is added to what is there
    const rk_product& p;
    float* out;
    i64 stride;
    void put(i64 row, i64 column, typename S::V y) const {
        float* to = out + row * stride + column;
        S::vstore(to, S::vadd(S::vadd(y, S::vload(p.bias + column)), S::vload(to)));
    }
};

}  // namespace
