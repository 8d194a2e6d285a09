// What the kernels need from a CPU, in plain C++: the definition that the other instruction sets must match bit for bit, and what
// lets every edge of packing and tiling be tested anywhere.
//
//   F          16 floats; every operation is one IEEE operation for each lane, so that a row's bits depend on nothing beside it
//   V, I       as many floats and 32-bit integers as one register of a product's tile has (WIDTH)
//   ROWS, COLS rows and registers of columns of such a tile
//   ACC        accumulators of type F that attention's products keep in registers
//   PAIRS      whether attention's products take pairs of bf16 in the 32 bits of a float: then there are `pair` and `pack`
//   START      whether `dot` takes weights as they are stored, with 128 added: then sums start at -128 * (sum of activations)
#pragma once
#include <cmath>
#include <cstring>

#include "model.hpp"
#include "tables.hpp"

namespace {

struct Scalar {
    static constexpr int WIDTH = 16, ROWS = 6, COLS = 2, ACC = 24;
    static constexpr bool START = true, TILES = false, PAIRS = false;
    struct F { float v[16]; };
    struct I { i32 v[16]; };
    using V = F;
    template <class G> static F map(G g) { F r; for (int i = 0; i < 16; i++) r.v[i] = g(i); return r; }
    template <class G> static I mapi(G g) { I r; for (int i = 0; i < 16; i++) r.v[i] = g(i); return r; }

    static F load(const float* p) { return map([&](int i) { return p[i]; }); }
    static F load(const i8* p) { return map([&](int i) { return float(p[i]); }); }
    static void store(float* p, F a) { std::memcpy(p, a.v, 64); }
    static F set(float a) { return map([&](int) { return a; }); }
    static F add(F a, F b) { return map([&](int i) { return a.v[i] + b.v[i]; }); }
    static F sub(F a, F b) { return map([&](int i) { return a.v[i] - b.v[i]; }); }
    static F mul(F a, F b) { return map([&](int i) { return a.v[i] * b.v[i]; }); }
    static F div(F a, F b) { return map([&](int i) { return a.v[i] / b.v[i]; }); }
    static F fma(F a, F b, F c) { return map([&](int i) { return std::fmaf(a.v[i], b.v[i], c.v[i]); }); }
    static F max(F a, F b) { return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
    static F min(F a, F b) { return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
    static F abs(F a) { return map([&](int i) { return std::fabs(a.v[i]); }); }
    static float largest(F a) { float m = a.v[0]; for (float x : a.v) m = x > m ? x : m; return m; }
    // Halves are added until one number is left: 8 and 8, 4 and 4, 2 and 2, 1 and 1.
    static float sum(F a) {
        for (int half = 8; half; half /= 2)
            for (int i = 0; i < half; i++) a.v[i] += a.v[i + half];
        return a.v[0];
    }
    // The nearest value of bf16, ties to even. NaN stays NaN.
    static F bf16(F x) {
        return map([&](int i) {
            std::uint32_t bits;
            std::memcpy(&bits, &x.v[i], 4);
            bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
            float y;
            std::memcpy(&y, &bits, 4);
            return std::isnan(x.v[i]) ? x.v[i] : y;
        });
    }
    static F attend(F a, F b, F sums) { return fma(a, b, sums); }
    static F exp2(F x) {  // of x <= 0; 2^-125 below that
        return map([&](int i) {
            const float y = x.v[i] > -125 ? x.v[i] : -125, n = std::nearbyintf(y), r = y - n;
            float p = EXP2[5];
            for (int k = 4; k >= 0; k--) p = std::fmaf(p, r, EXP2[k]);
            return std::ldexp(p, int(n));
        });
    }
    static F gelu(F x) {
        return map([&](int i) {
            const float a = std::fabs(x.v[i]), t = a < GELU_TOP ? a : GELU_TOP;
            const int s = int(std::nearbyintf(t * (1 / GELU_STEP)));
            const float u = std::fmaf(float(s), -GELU_STEP, t);
            float p = GELU[4][s];
            for (int k = 3; k >= 0; k--) p = std::fmaf(p, u, GELU[k][s]);
            return (x.v[i] > 0 ? x.v[i] : 0) - p;
        });
    }
    // To the nearest integers, ties to even; a in [-127, 127]. NaN gives any integer: the range that it made keeps it.
    static void round(i8* p, F a) {
        for (int i = 0; i < 16; i++) p[i] = std::isnan(a.v[i]) ? i8(0) : i8(std::nearbyintf(a.v[i]));
    }
    static i32 sum64(const i8* p) { i32 s = 0; for (int i = 0; i < 64; i++) s += p[i]; return s; }
    // Rows of 16 floats, `stride` apart, become columns, `out_stride` apart; rows from `count` on are zeros.
    static void transpose(const float* in, long stride, int count, float* out, long out_stride) {
        for (int j = 0; j < 16; j++)
            for (int i = 0; i < 16; i++) out[j * out_stride + i] = i < count ? in[i * stride + j] : 0;
    }

    static V vload(const float* p) { return load(p); }
    static void vstore(float* p, V a) { store(p, a); }
    static V vset(float a) { return set(a); }
    static V vzero() { return set(0); }
    static V vadd(V a, V b) { return add(a, b); }
    static V vmul(V a, V b) { return mul(a, b); }
    static V vfma(V a, V b, V c) { return fma(a, b, c); }
    static V vbf16(V a) { return bf16(a); }
    static V vfloat(I a) { return map([&](int i) { return float(a.v[i]); }); }

    struct W { u8 v[64]; };  // weights of 4 channels for each of WIDTH columns
    static W weights(const u8* p) { W r; std::memcpy(r.v, p, 64); return r; }
    static I start(i32 a) { return mapi([&](int) { return a; }); }
    static I four(const i8* p) { i32 x; std::memcpy(&x, p, 4); return start(x); }  // of a row, for all columns
    static I dot(I sums, W w, I a) {
        return mapi([&](int i) {
            i8 of[4];
            std::memcpy(of, &a.v[i], 4);
            i32 s = sums.v[i];
            for (int b = 0; b < 4; b++) s += i32(w.v[4 * i + b]) * of[b];
            return s;
        });
    }
    static I loadi(const i32* p) { I r; std::memcpy(r.v, p, 64); return r; }
    static I addi(I a, I b) { return mapi([&](int i) { return a.v[i] + b.v[i]; }); }
};

}  // namespace
