// Products on AMX tiles, from the same packed weights: a group of 16 columns is one tile, 16 steps of four channels, 64 bytes each.
// A tile's product is a group's exact sum, so that the bits are those of `product`. Rows that fill no tile are left to it.
#pragma once
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
    template <int T> void store(i32* to) { std::memcpy(to, &tile[T], sizeof(Tile)); }
    // c[m][n] += sum over k, b: i8 a[m][4 k + b] * u8 w[k][4 n + b]
    template <int C, int A, int W> void dot() {
        for (int m = 0; m < 16; m++)
            for (int n = 0; n < 16; n++) {
                i32 sum;
                std::memcpy(&sum, &tile[C].bytes[m][4 * n], 4);
                for (int k = 0; k < 16; k++)
                    for (int b = 0; b < 4; b++) sum += i32(i8(tile[A].bytes[m][4 * k + b])) * tile[W].bytes[k][4 * n + b];
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
    template <int T> void store(i32* to) { asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(T), "r"(to), "r"(i64(64)) : "memory"); }
    template <int C, int A, int W> void dot() { asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(W)); }
};
#endif

// 32 columns of R * 16 rows (R is 1 or 2).
template <class S, int R, class Out>
void tiled(const Quantized& a, i64 row, const rk_product& p, i64 column, const Out& out) {
    typename S::Tiles tiles;
    const i64 stride = a.apart * a.channels, apart = a.apart * a.groups(), beside = 16 * a.channels;
    const i8* at = a.integers + row * stride;
    const u8* w = p.weights + column / 16 * beside;
    const float* scales = p.scales + column;
    alignas(64) i32 sums[R][2][256];
    alignas(64) float y[R * 16][32] = {};
    for (i64 g = 0; g < a.groups(); g++, at += GROUP, w += 16 * GROUP, scales += p.scale_stride) {
        tiles.template load<6>(w, 64), tiles.template load<7>(w + beside, 64);
        tiles.template load<4>(at, stride);
        tiles.template zero<0>(), tiles.template zero<1>();
        tiles.template dot<0, 4, 6>(), tiles.template dot<1, 4, 7>();
        tiles.template store<0>(sums[0][0]), tiles.template store<1>(sums[0][1]);
        if constexpr (R > 1) {
            tiles.template load<5>(at + 16 * stride, stride);
            tiles.template zero<2>(), tiles.template zero<3>();
            tiles.template dot<2, 5, 6>(), tiles.template dot<3, 5, 7>();
            tiles.template store<2>(sums[R - 1][0]), tiles.template store<3>(sums[R - 1][1]);
        }
        const auto q0 = S::vload(scales), q1 = S::vload(scales + 16);
        const Range* range = a.ranges + row * apart + g;
        for (int m = 0; m < R * 16; m++, range += apart) {
            const auto start = S::start(range->start);
            const auto step = S::vset(range->step);
            const auto add = [&](int c, auto q) {
                const auto sum = S::addi(S::loadi(&sums[m / 16][c][m % 16 * 16]), start);
                S::vstore(&y[m][c * 16], S::vfma(S::vfloat(sum), S::vmul(step, q), S::vload(&y[m][c * 16])));
            };
            add(0, q0), add(1, q1);
        }
    }
    for (int m = 0; m < R * 16; m++)
        for (int c = 0; c < 2; c++) out.put(row + m, column + c * 16, S::vload(&y[m][c * 16]));
}

// The rows that fill tiles, of 32 columns. Returns how many.
template <class S, class Out>
i64 tiled_rows(const Quantized& a, i64 rows, const rk_product& p, i64 column, const Out& out) {
    i64 row = 0;
    for (; row + 32 <= rows; row += 32) tiled<S, 2>(a, row, p, column, out);
    for (; row + 16 <= rows; row += 16) tiled<S, 1>(a, row, p, column, out);
    return row;
}

}  // namespace
