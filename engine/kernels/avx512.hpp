// AVX-512 with VNNI.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "model.hpp"
#include "tables.hpp"

namespace {

struct Avx512 {
    static constexpr int WIDTH = 16, ROWS = 6, COLS = 2, ACC = 24;
    static constexpr bool START = true, TILES = false, PAIRS = false;
    using F = __m512;
    using V = __m512;
    using I = __m512i;
    using W = __m512i;
    static constexpr float MAGIC = 12582912;  // 1.5 * 2^23: what is added to it is rounded into the low bits

    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static F load(const i8* p) { return vfloat(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))); }
    static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
    static F set(float a) { return _mm512_set1_ps(a); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F div(F a, F b) { return _mm512_div_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static F min(F a, F b) { return _mm512_min_ps(a, b); }
    static F abs(F a) { return _mm512_abs_ps(a); }
    static float largest(F a) { return _mm512_reduce_max_ps(a); }
    static float sum(F a) {
        const __m256 both = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        __m128 m = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
        m = _mm_add_ps(m, _mm_movehl_ps(m, m));
        return _mm_cvtss_f32(_mm_add_ss(m, _mm_movehdup_ps(m)));
    }
    static F bf16(F x) {
        const I bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const I up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const I cut = _mm512_and_si512(up, _mm512_set1_epi32(i32(0xffff0000)));
        return _mm512_mask_mov_ps(_mm512_castsi512_ps(cut), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
    }
    static F attend(F a, F b, F sums) { return fma(a, b, sums); }
    static F exp2(F x) {  // vreduceps and vscalefps would be two cycles each
        x = max(x, set(-125));
        const F m = add(x, set(MAGIC)), r = sub(x, sub(m, set(MAGIC)));
        F p = set(EXP2[5]);
        for (int k = 4; k >= 0; k--) p = fma(p, r, set(EXP2[k]));
        return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(m), 23)));
    }
    static F gelu(F x) {
        const F t = min(abs(x), set(GELU_TOP)), m = add(mul(t, set(1 / GELU_STEP)), set(MAGIC));
        const F u = fma(sub(m, set(MAGIC)), set(-GELU_STEP), t);
        const I s = _mm512_castps_si512(m);  // vpermps looks at the low four bits alone
        F p = _mm512_permutexvar_ps(s, load(GELU[4]));
        for (int k = 3; k >= 0; k--) p = fma(p, u, _mm512_permutexvar_ps(s, load(GELU[k])));
        return sub(max(x, set(0)), p);
    }
    static void round(i8* p, F a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a))); }
    static i32 sum64(const i8* p) {
        return _mm512_reduce_add_epi32(dot(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_loadu_si512(p)));
    }
    static void transpose(const float* in, long stride, int count, float* out, long out_stride) {
        F a[16], b[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) a[i] = i < count ? load(in + i * stride) : set(0);
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 2) b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
#pragma GCC unroll 4
        for (int i = 0; i < 16; i += 4)  // a[i + c]: column c of each four, of rows i to i + 3
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                const __m512d x = _mm512_castps_pd(b[i + h]), y = _mm512_castps_pd(b[i + 2 + h]);
                a[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
                a[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
            }
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            const F e = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), o = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd);
            const F g = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88), q = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
            store(out + (0 + c) * out_stride, _mm512_shuffle_f32x4(e, g, 0x88));
            store(out + (4 + c) * out_stride, _mm512_shuffle_f32x4(o, q, 0x88));
            store(out + (8 + c) * out_stride, _mm512_shuffle_f32x4(e, g, 0xdd));
            store(out + (12 + c) * out_stride, _mm512_shuffle_f32x4(o, q, 0xdd));
        }
    }

    static V vload(const float* p) { return load(p); }
    static void vstore(float* p, V a) { store(p, a); }
    static V vset(float a) { return set(a); }
    static V vzero() { return _mm512_setzero_ps(); }
    static V vadd(V a, V b) { return add(a, b); }
    static V vmul(V a, V b) { return mul(a, b); }
    static V vfma(V a, V b, V c) { return fma(a, b, c); }
    static V vbf16(V a) { return bf16(a); }
    static V vfloat(I a) { return _mm512_cvtepi32_ps(a); }

    static W weights(const u8* p) { return _mm512_loadu_si512(p); }
    static I start(i32 a) { return _mm512_set1_epi32(a); }
    static I four(const i8* p) { i32 x; std::memcpy(&x, p, 4); return _mm512_set1_epi32(x); }
    static I dot(I sums, W w, I a) {  // not the intrinsic: gcc 12 copies every accumulator around it, twice
        asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(a));
        return sums;
    }
    static I loadi(const i32* p) { return _mm512_loadu_si512(p); }
    static I addi(I a, I b) { return _mm512_add_epi32(a, b); }
};

#if defined(__AVX512BF16__)
// Also with products of bf16.
struct Avx512Bf16 : Avx512 {
    static constexpr bool PAIRS = true;
    static I half(F a) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a)); }
    static F bf16(F a) { return _mm512_castsi512_ps(_mm512_slli_epi32(half(a), 16)); }
    static V vbf16(V a) { return a; }  // `pair` and `pack` round
    static F pair(F first, F second) {
        return _mm512_castsi512_ps(_mm512_or_si512(half(first), _mm512_slli_epi32(half(second), 16)));
    }
    static void pack(float* to, F a) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(a)); }
    static F attend(F a, F b, F sums) {
        asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
        return sums;
    }
};
#endif

}  // namespace
