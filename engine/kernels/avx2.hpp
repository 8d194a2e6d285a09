// AVX2 and FMA. Without VNNI, products of bytes are added in pairs in 16 bits: |weight| * (activation with the weight's sign) is at
// most 2 * 127 * 127 = 32258 there, so that nothing saturates and sums are exact.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "model.hpp"
#include "tables.hpp"

namespace {

struct Avx2 {
    static constexpr int WIDTH = 8, ROWS = 5, COLS = 1, ACC = 6;
    static constexpr bool START = false, TILES = false, PAIRS = false;
    struct F { __m256 a, b; };
    using V = __m256;
    using I = __m256i;
    template <class G> static F both(G g, F x) { return {g(x.a), g(x.b)}; }

    static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static F load(const i8* p) {
        const __m128i x = _mm_loadu_si128((const __m128i*)p);
        return {vfloat(_mm256_cvtepi8_epi32(x)), vfloat(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))};
    }
    static void store(float* p, F x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
    static F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
    static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
    static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
    static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
    static F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
    static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
    static F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
    static F abs(F x) {
        const V bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
        return {_mm256_and_ps(x.a, bits), _mm256_and_ps(x.b, bits)};
    }
    static float largest(F x) {
        const V both = _mm256_max_ps(x.a, x.b);
        __m128 m = _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
        m = _mm_max_ps(m, _mm_movehl_ps(m, m));
        return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
    }
    static float sum(F x) {
        const V both = _mm256_add_ps(x.a, x.b);
        __m128 m = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
        m = _mm_add_ps(m, _mm_movehl_ps(m, m));
        return _mm_cvtss_f32(_mm_add_ss(m, _mm_movehdup_ps(m)));
    }
    static F bf16(F x) { return both(vbf16, x); }
    static F attend(F a, F b, F sums) { return fma(a, b, sums); }
    static F exp2(F x) { return both(exp2_of, x); }
    static V exp2_of(V x) {
        x = _mm256_max_ps(x, vset(-125));
        const V n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
        V p = vset(EXP2[5]);
        for (int k = 4; k >= 0; k--) p = vfma(p, r, vset(EXP2[k]));
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
    }
    static F gelu(F x) { return both(gelu_of, x); }
    static V gelu_of(V x) {  // two lookups of 8 for the 16 segments
        const V a = _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff))), t = _mm256_min_ps(a, vset(GELU_TOP));
        const I s = _mm256_cvtps_epi32(_mm256_mul_ps(t, vset(1 / GELU_STEP)));
        const V u = vfma(vfloat(s), vset(-GELU_STEP), t), high = _mm256_castsi256_ps(_mm256_slli_epi32(s, 28));
        const auto at = [&](const float* c) {  // bit 3 of s is the sign of high
            return _mm256_blendv_ps(_mm256_permutevar8x32_ps(vload(c), s), _mm256_permutevar8x32_ps(vload(c + 8), s), high);
        };
        V p = at(GELU[4]);
        for (int k = 3; k >= 0; k--) p = vfma(p, u, at(GELU[k]));
        return _mm256_sub_ps(_mm256_max_ps(x, vset(0)), p);
    }
    static void round(i8* p, F x) {
        const I i = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));  // 0-3 8-11 | 4-7 12-15
        const I q = _mm256_permute4x64_epi64(i, 0xd8);
        _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)));
    }
    static void transpose(const float* in, long stride, int count, float* out, long out_stride) {
        for (int half = 0; half < 16; half += 8) {
            turn8(in, stride, count, half, 0, out + half, out_stride);
            turn8(in, stride, count, half, 8, out + half + 8 * out_stride, out_stride);
        }
    }
    static void turn8(const float* in, long stride, int count, int first, int column, float* out, long out_stride) {
        V r[8], t[8];
        for (int i = 0; i < 8; i++) r[i] = first + i < count ? vload(in + (first + i) * stride + column) : vset(0);
        for (int i = 0; i < 8; i += 2) t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        for (int i = 0; i < 8; i += 4) {
            r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44), r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
            r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44), r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
        }
        for (int i = 0; i < 4; i++) {
            vstore(out + i * out_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
            vstore(out + (i + 4) * out_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
        }
    }

    static V vload(const float* p) { return _mm256_loadu_ps(p); }
    static void vstore(float* p, V x) { _mm256_storeu_ps(p, x); }
    static V vset(float x) { return _mm256_set1_ps(x); }
    static V vzero() { return _mm256_setzero_ps(); }
    static V vadd(V x, V y) { return _mm256_add_ps(x, y); }
    static V vmul(V x, V y) { return _mm256_mul_ps(x, y); }
    static V vfma(V x, V y, V z) { return _mm256_fmadd_ps(x, y, z); }
    static V vfloat(I x) { return _mm256_cvtepi32_ps(x); }
    static V vbf16(V x) {
        const I bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const I up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        const V cut = _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(i32(0xffff0000))));
        return _mm256_blendv_ps(cut, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    }

    struct W { I magnitude, value; };
    static W weights(const u8* p) {
        const I value = _mm256_xor_si256(_mm256_loadu_si256((const I*)p), _mm256_set1_epi8(-128));
        return {_mm256_abs_epi8(value), value};
    }
    static I start(i32) { return _mm256_setzero_si256(); }
    static I four(const i8* p) { i32 x; std::memcpy(&x, p, 4); return _mm256_set1_epi32(x); }
    static I dot(I sums, W w, I a) {
        const I pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(a, w.value));
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static i32 sum64(const i8*) { return 0; }  // sums start at 0
};

// With VNNI in 256 bits: weights as they are stored.
struct AvxVnni : Avx2 {
    static constexpr bool START = true;
    using W = I;
    static W weights(const u8* p) { return _mm256_loadu_si256((const I*)p); }
    static I start(i32 x) { return _mm256_set1_epi32(x); }
    static I dot(I sums, W w, I a) {  // not the intrinsic: gcc 12 copies every accumulator around it
        asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(w), "x"(a));
        return sums;
    }
    static i32 sum64(const i8* p) {
        const I ones = _mm256_set1_epi8(1), one = _mm256_set1_epi16(1);
        const auto part = [&](int at) {
            return _mm256_madd_epi16(_mm256_maddubs_epi16(ones, _mm256_loadu_si256((const I*)(p + at))), one);
        };
        const I sum = _mm256_add_epi32(part(0), part(32));
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
    }
};

}  // namespace
