// Products on AMX tiles, from the same packed weights: a group of 16 columns is one tile, 16 steps of four channels, 64 bytes each.
// A tile's product is a group's exact sum, so that the bits are those of `product`. Rows that fill no tile are left to it.
#pragma once
#include <cmath>
#include <cstring>

#include "model.hpp"

namespace {

// What the tiles compute, in plain C++.
struct EmulatedTiles {
    struct Tile { u8 bytes[16][64]; };
    Tile tile[8];
    static void configure() {}
    static void release() {}
    template <int T> void zero() { std::memset(&tile[T], 0, sizeof(Tile)); }
    template <int T> void load(const void* from, i64 stride) {
        for (int r = 0; r < 16; r++) std::memcpy(tile[T].bytes[r], static_cast<const char*>(from) + r * stride, 64);
    }
    template <int T> void store(void* to, i64 stride) {
        for (int r = 0; r < 16; r++) std::memcpy(static_cast<char*>(to) + r * stride, tile[T].bytes[r], 64);
    }
    // c[m][n] += sum over k, b: i8 a[m][4 k + b] * u8 w[k][4 n + b]
    template <int C, int A, int W> void dot() {
        each<C, i32>([&](int m, int n, i32 sum) {
            for (int k = 0; k < 16; k++)
                for (int b = 0; b < 4; b++) sum += i32(i8(tile[A].bytes[m][4 * k + b])) * tile[W].bytes[k][4 * n + b];
            return sum;
        });
    }
    // c[m][n] += (sum over k: a[m][2 k] * w[k][2 n]) + (sum over k: a[m][2 k + 1] * w[k][2 n + 1]), of bf16, k ascending
    template <int C, int A, int W> void attend() {
        each<C, float>([&](int m, int n, float sum) {
            float parts[2] = {0, 0};
            for (int k = 0; k < 16; k++)
                for (int b = 0; b < 2; b++) parts[b] = std::fmaf(half(A, m, 2 * k + b), half(W, k, 2 * n + b), parts[b]);
            return sum + (parts[0] + parts[1]);
        });
    }

private:
    float half(int t, int row, int index) const {
        u8 bytes[4] = {0, 0, tile[t].bytes[row][2 * index], tile[t].bytes[row][2 * index + 1]};
        float value;
        std::memcpy(&value, bytes, 4);
        return value;
    }
    template <int C, class T, class G> void each(G next) {
        for (int m = 0; m < 16; m++)
            for (int n = 0; n < 16; n++) {
                T sum;
                std::memcpy(&sum, &tile[C].bytes[m][4 * n], 4);
                sum = next(m, n, sum);
                std::memcpy(&tile[C].bytes[m][4 * n], &sum, 4);
            }
    }
};

#if defined(__x86_64__) && defined(__AVX512F__)
struct AmxTiles {
    static void configure() {  // of the calling thread
        alignas(64) u8 config[64] = {1};
        for (int t = 0; t < 8; t++) config[16 + 2 * t] = 64, config[48 + t] = 16;  // bytes of a row, rows
        asm volatile("ldtilecfg %0" : : "m"(config));
    }
    static void release() { asm volatile("tilerelease"); }
    // Not the intrinsics: gcc's are macros that want a literal for the tile.
    template <int T> void zero() { asm volatile("tilezero %%tmm%c0" : : "i"(T)); }
    template <int T> void load(const void* from, i64 stride) {
        asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(T), "r"(from), "r"(stride) : "memory");
    }
    template <int T> void store(void* to, i64 stride) {
        asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(T), "r"(to), "r"(stride) : "memory");
    }
    template <int C, int A, int W> void dot() { asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(W)); }
    template <int C, int A, int W> void attend() { asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(W)); }
};
#endif

// 32 columns of R * 16 rows (R is 1 or 2), of which the first `skipped` rows are not handed to `out`.
//
// Sums leave the tiles through memory, and what is done to them there takes longer than the tiles' own work. So two groups are added
// to the rows at a time, while the tiles work on the next two: half of their rows behind each.
template <class S, int R, class Out>
void tiled(const Quantized& a, i64 row, int skipped, const rk_product& p, i64 column, const Out& out) {
    typename S::Tiles tiles;
    const i64 stride = a.apart * a.channels, apart = a.apart * a.groups(), beside = 16 * a.channels, groups = a.groups();
    const i8* const integers = a.integers + row * stride;
    const Range* const ranges = a.ranges + row * apart;
    const u8* const weights = p.weights + column / 16 * beside;
    alignas(64) i32 sums[2][2][R][2][256];  // two pairs of groups, the groups, rows, columns
    alignas(64) float y[R * 16][32];
    const auto multiply = [&](i64 g) {
        const u8* w = weights + g * 16 * GROUP;
        const i8* at = integers + g * GROUP;
        auto& to = sums[g / 2 % 2][g % 2];
        tiles.template load<6>(w, 64), tiles.template load<7>(w + beside, 64), tiles.template load<4>(at, stride);
        tiles.template zero<0>(), tiles.template zero<1>();
        tiles.template dot<0, 4, 6>(), tiles.template dot<1, 4, 7>();
        if constexpr (R > 1) {
            tiles.template load<5>(at + 16 * stride, stride);
            tiles.template zero<2>(), tiles.template zero<3>();
            tiles.template dot<2, 5, 6>(), tiles.template dot<3, 5, 7>();
        }
        tiles.template store<0>(to[0][0], 64), tiles.template store<1>(to[0][1], 64);
        if constexpr (R > 1) tiles.template store<2>(to[R - 1][0], 64), tiles.template store<3>(to[R - 1][1], 64);
    };
    const auto add = [&](i64 g, int first, int last) {  // groups g and, if there is one, g + 1 to some of the rows
        const auto& from = sums[g / 2 % 2];
        const bool two = g + 1 < groups, begun = g > 0, done = g + 2 >= groups;
        const float *scales = p.scales + g * p.scale_stride + column, *others = scales + (two ? p.scale_stride : 0);
        const auto q0 = S::vload(scales), q1 = S::vload(scales + 16), s0 = S::vload(others), s1 = S::vload(others + 16);
        for (int m = first; m < last; m++) {
            const Range* range = ranges + m * apart + g;
            auto y0 = begun ? S::vload(y[m]) : S::vzero(), y1 = begun ? S::vload(y[m] + 16) : S::vzero();
            const auto one = [&](int of, const auto& scale0, const auto& scale1) {
                const auto start = S::start(range[of].start);
                const auto step = S::vset(range[of].step);
                const i32 *at0 = &from[of][m / 16][0][m % 16 * 16], *at1 = &from[of][m / 16][1][m % 16 * 16];
                y0 = S::vfma(S::vfloat(S::addi(S::loadi(at0), start)), S::vmul(step, scale0), y0);
                y1 = S::vfma(S::vfloat(S::addi(S::loadi(at1), start)), S::vmul(step, scale1), y1);
            };
            one(0, q0, q1);
            if (two) one(1, s0, s1);
            if (!done) S::vstore(y[m], y0), S::vstore(y[m] + 16, y1);
            else if (m >= skipped) out.put(row + m, column, y0), out.put(row + m, column + 16, y1);
        }
    };
    multiply(0);
    if (groups > 1) multiply(1);
    for (i64 g = 0; g < groups; g += 2) {
        if (g + 2 < groups) multiply(g + 2);
        add(g, 0, R * 8);
        if (g + 3 < groups) multiply(g + 3);
        add(g, R * 8, R * 16);
    }
}

// All rows of 32 columns, if they fill a tile; the last tile may begin in the one before. Returns how many rows that were.
template <class S, class Out>
i64 tiled_rows(const Quantized& a, i64 rows, const rk_product& p, i64 column, const Out& out) {
    if (rows < 16) return 0;
    i64 row = 0;
    for (; row + 32 <= rows; row += 32) tiled<S, 2>(a, row, 0, p, column, out);
    if (rows - row > 16 && rows >= 32) tiled<S, 2>(a, rows - 32, int(32 - (rows - row)), p, column, out), row = rows;
    for (; row + 16 <= rows; row += 16) tiled<S, 1>(a, row, 0, p, column, out);
    if (row < rows) tiled<S, 1>(a, rows - 16, int(16 - (rows - row)), p, column, out);
    return rows;
}

}  // namespace
