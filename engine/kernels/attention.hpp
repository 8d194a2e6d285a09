// Attention of one head of one pair, softmax with the exact maximum. A block of queries has its scores in L1; no matrix of
// length x length is ever in memory. Scores are in units of log2: the queries hold that factor.
//
// What is multiplied is rounded to bf16, and sums are fp32. Where the CPU multiplies bf16 (S::PAIRS), two neighbours along the sum
// lie in the 32 bits of a float, and one instruction adds both products, the second first; elsewhere they are floats that hold such
// values, and two fma do the same, in that order. A product of two bf16 is exact in fp32, so that the bits are the same.
#pragma once
#include "model.hpp"

namespace {

constexpr i64 QUERIES = 24;     // of a block
constexpr float NEVER = -1e30f;  // the score of a key that is none
#define ATTENTION_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

inline i64 up_to(i64 n, i64 step) { return (n + step - 1) / step * step; }

// out (M, C * 16) = a (M, inner) @ b (inner, C * 16), each row times its factor if there are any. inner counts pairs if S::PAIRS.
template <class S, int M, int C>
[[gnu::noinline]] void multiply(const float* a, i64 stride, const float* b, i64 b_stride, i64 inner, float* out, i64 out_stride,
                                const float* factors) {
    using F = typename S::F;
    const float *r0 = a, *r1 = a + 3 * stride, *r2 = a + 6 * stride, *r3 = a + 9 * stride;
#define DECLARE(m) [[maybe_unused]] F x##m = S::set(0), y##m = x##m, z##m = x##m, u##m = x##m;
    ATTENTION_ROWS(DECLARE)
#undef DECLARE
    const auto step = [&](i64 k) __attribute__((always_inline)) {
        const float* at = b + k * b_stride;
        const F p0 = S::load(at);
        [[maybe_unused]] const F p1 = C > 1 ? S::load(at + 16) : p0;
        [[maybe_unused]] const F p2 = C > 2 ? S::load(at + 32) : p0, p3 = C > 2 ? S::load(at + 48) : p0;
#define STEP(m)                                                                                       \
    if constexpr (m < M) {                                                                            \
        const F c = S::set((m < 3 ? r0 : m < 6 ? r1 : m < 9 ? r2 : r3)[m % 3 * stride + k]);          \
        x##m = S::attend(c, p0, x##m);                                                                \
        if constexpr (C > 1) y##m = S::attend(c, p1, y##m);                                           \
        if constexpr (C > 2) z##m = S::attend(c, p2, z##m), u##m = S::attend(c, p3, u##m);            \
    }
        ATTENTION_ROWS(STEP)
#undef STEP
    };
    if constexpr (S::PAIRS) {
        for (i64 k = 0; k < inner; k++) step(k);
    } else {
        for (i64 k = 0; k + 1 < inner; k += 2) step(k + 1), step(k);
        if (inner % 2) {  // the second of the last pair is zero
#define NOTHING(m) x##m = S::add(x##m, S::set(0)), y##m = S::add(y##m, S::set(0)), z##m = S::add(z##m, S::set(0)), u##m = S::add(u##m, S::set(0));
            ATTENTION_ROWS(NOTHING)
#undef NOTHING
            step(inner - 1);
        }
    }
#define PUT(m)                                                                    \
    if constexpr (m < M) {                                                        \
        const F f = S::set(factors ? factors[m] : 1);                             \
        float* to = out + m * out_stride;                                         \
        S::store(to, S::mul(x##m, f));                                            \
        if constexpr (C > 1) S::store(to + 16, S::mul(y##m, f));                  \
        if constexpr (C > 2) S::store(to + 32, S::mul(z##m, f)), S::store(to + 48, S::mul(u##m, f)); \
    }
    ATTENTION_ROWS(PUT)
#undef PUT
}

template <class S, int M, int C>
void multiply_of(i64 rows, const float* a, i64 as, const float* b, i64 bs, i64 inner, float* out, i64 os, const float* factors) {
    if (rows == M) return multiply<S, M, C>(a, as, b, bs, inner, out, os, factors);
    if constexpr (M > 1) multiply_of<S, M - 1, C>(rows, a, as, b, bs, inner, out, os, factors);
}

template <class S, int C>
void multiply_rows(i64 rows, const float* a, i64 as, const float* b, i64 bs, i64 inner, float* out, i64 os, const float* factors) {
    constexpr i64 most = S::ACC / C < 12 ? S::ACC / C : 12;
    for (i64 r = 0; r < rows; r += most)
        multiply_of<S, most, C>(rows - r < most ? rows - r : most, a + r * as, as, b, bs, inner, out + r * os, os,
                                factors ? factors + r : nullptr);
}

// columns: a multiple of 16.
template <class S>
void multiply_all(i64 rows, i64 columns, const float* a, i64 as, const float* b, i64 bs, i64 inner, float* out, i64 os,
                  const float* factors) {
    i64 c = 0;
    if constexpr (S::ACC >= 24) {
        for (; c + 64 <= columns; c += 64) multiply_rows<S, 4>(rows, a, as, b + c, bs, inner, out + c, os, factors);
        for (; c + 32 <= columns; c += 32) multiply_rows<S, 2>(rows, a, as, b + c, bs, inner, out + c, os, factors);
    }
    for (; c < columns; c += 16) multiply_rows<S, 1>(rows, a, as, b + c, bs, inner, out + c, os, factors);
}

// scores (padded) -> 2^(score - the largest) in bf16, next to nothing from `keys` on. Returns 1 / their sum.
template <class S>
float softmax(float* scores, i64 keys, i64 padded) {
    for (i64 j = keys; j < padded; j++) scores[j] = NEVER;
    auto most = S::set(NEVER);
    for (i64 j = 0; j < padded; j += LANES) most = S::max(most, S::load(scores + j));
    const auto top = S::set(S::largest(most));
    auto sum = S::set(0);
    for (i64 j = 0; j < padded; j += LANES) {
        const auto e = S::bf16(S::exp2(S::sub(S::load(scores + j), top)));
        sum = S::add(sum, e);
        if constexpr (S::PAIRS) S::pack(scores + j / 2, e);
        else S::store(scores + j, e);
    }
    return 1 / S::sum(sum);
}

// Floats of `room` that `attend` needs.
inline i64 attention_room(i64 keys, i64 width) { return (QUERIES + width) * (up_to(keys, LANES) + 16) + QUERIES * width; }

// Keys (keys, width) -> a row for each channel, or for each pair of channels.
template <class S>
void turn(const float* at, i64 keys, i64 stride, i64 width, float* turned, i64 apart) {
    for (i64 r = 0; r < keys; r += 16)
        for (i64 c = 0; c < width; c += 16) {
            if constexpr (S::PAIRS) {
                alignas(64) float block[16 * 16];
                S::transpose(at + r * stride + c, stride, int(keys - r), block, 16);
                for (i64 j = 0; j < 16; j += 2)
                    S::store(turned + (c + j) / 2 * apart + r, S::pair(S::load(block + j * 16), S::load(block + (j + 1) * 16)));
            } else {
                S::transpose(at + r * stride + c, stride, int(keys - r), turned + c * apart + r, apart);
            }
        }
}

// Values (keys, width) -> a row for each pair of keys; with an odd number, the last one has no other.
template <class S>
void pair_rows(const float* at, i64 keys, i64 stride, i64 width, float* out, i64 apart) {
    for (i64 r = 0; r < keys; r += 2, out += apart, at += 2 * stride)
        for (i64 c = 0; c < width; c += 16)
            S::store(out + c, S::pair(S::load(at + c), r + 1 < keys ? S::load(at + stride + c) : S::set(0)));
}

// queries (rows, width), keys and values (keys, width), all with `stride` -> out (rows, width). width: a multiple of 16. Unless
// S::PAIRS, all three hold values of bf16.
template <class S>
void attend(const float* queries, i64 rows, const float* keys_at, const float* values, i64 keys, i64 stride, i64 width, float* out,
            i64 out_stride, float* room) {
    const i64 padded = up_to(keys, LANES), apart = padded + 16;  // rows a power of two apart would share few sets of L1
    float *scores = room, *turned = scores + QUERIES * apart, *asked = turned + width * apart, factors[QUERIES];
    i64 asked_stride = stride, inner = width, values_stride = stride, counted = keys;
    turn<S>(keys_at, keys, stride, width, turned, apart);
    if constexpr (S::PAIRS) {
        float* paired = turned + width / 2 * apart;
        pair_rows<S>(values, keys, stride, width, paired, width);
        values = paired, values_stride = width, asked_stride = inner = width / 2, counted = (keys + 1) / 2;
    }
    const i64 block = padded > 256 ? QUERIES / 2 : QUERIES;
    for (i64 r = 0; r < rows; r += block) {
        const i64 count = rows - r < block ? rows - r : block;
        const float* at = queries + r * stride;
        if constexpr (S::PAIRS) {
            for (i64 i = 0; i < count; i++)
                for (i64 c = 0; c < width; c += 16) S::pack(asked + i * inner + c / 2, S::load(at + i * stride + c));
            at = asked;
        }
        multiply_all<S>(count, padded, at, asked_stride, turned, apart, inner, scores, apart, nullptr);
        for (i64 i = 0; i < count; i++) factors[i] = softmax<S>(scores + i * apart, keys, padded);
        multiply_all<S>(count, width, scores, apart, values, values_stride, counted, out + r * out_stride, out_stride, factors);
    }
}

}  // namespace
