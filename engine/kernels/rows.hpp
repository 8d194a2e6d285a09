// Activations in int8 by groups, and what is done to whole rows between products.
#pragma once
#include "model.hpp"

namespace {

constexpr float SMALLEST_RANGE = 1e-30f;  // of a group of zeros, whose reciprocal must stay finite
constexpr int LEVELS = 127;

// Of a group of a row: what its integer of 1 stands for, and what sums of products with stored weights start at.
struct Range {
    float step;
    i32 start;
};

// Rows in int8.
struct Quantized {
    i8* integers;   // (rows, channels)
    Range* ranges;  // (rows, channels / GROUP)
    i64 channels;
    i64 apart = 1;  // rows from one to the next: every so many of a larger array

    i64 groups() const { return channels / GROUP; }
    Quantized from(i64 r) const { return {integers + r * channels, ranges + r * groups(), channels, 1}; }
};

// A group of 64 floats in registers becomes group `g` of row `r`: integers x * 127 / range, the range being the largest magnitude.
template <class S>
void quantize(typename S::F a, typename S::F b, typename S::F c, typename S::F d, const Quantized& q, i64 r, i64 g) {
    const float most = S::largest(S::max(S::max(S::abs(a), S::abs(b)), S::max(S::abs(c), S::abs(d))));
    const float range = most > SMALLEST_RANGE ? most : SMALLEST_RANGE;
    const auto factor = S::set(LEVELS / range);
    i8* to = q.integers + r * q.channels + g * GROUP;
    S::round(to, S::mul(a, factor)), S::round(to + 16, S::mul(b, factor));
    S::round(to + 32, S::mul(c, factor)), S::round(to + 48, S::mul(d, factor));
    q.ranges[r * q.groups() + g] = {range * (1.0f / LEVELS), S::START ? -128 * S::sum64(to) : 0};
}

template <class S>
void quantize_row(const float* x, const Quantized& q, i64 r) {
    for (i64 g = 0; g < q.groups(); g++, x += GROUP)
        quantize<S>(S::load(x), S::load(x + 16), S::load(x + 32), S::load(x + 48), q, r, g);
}

// Gelu of 64 floats, then as `quantize`.
template <class S>
void gelu_group(const float* x, const Quantized& q, i64 r, i64 g) {
    const auto at = [&](int i) { return S::gelu(S::load(x + i)); };
    quantize<S>(at(0), at(16), at(32), at(48), q, r, g);
}

// LayerNorm of a row in place, and its integers.
template <class S>
void normalize(float* x, const rk_norm& norm, float epsilon, const Quantized& q, i64 r) {
    const i64 width = q.channels;
    auto sum = S::set(0);
    for (i64 i = 0; i < width; i += LANES) sum = S::add(sum, S::load(x + i));
    const float mean = S::sum(sum) / float(width);
    auto squares = S::set(0);
    for (i64 i = 0; i < width; i += LANES) {
        const auto d = S::sub(S::load(x + i), S::set(mean));
        squares = S::fma(d, d, squares);
    }
    const float inverse = 1 / __builtin_sqrtf(S::sum(squares) / float(width) + epsilon);
    const auto put = [&](i64 i) {
        const auto unit = S::mul(S::sub(S::load(x + i), S::set(mean)), S::set(inverse));
        const auto y = S::fma(unit, S::load(norm.gamma + i), S::load(norm.beta + i));
        S::store(x + i, y);
        return y;
    };
    for (i64 g = 0; g < q.groups(); g++) {
        const i64 i = g * GROUP;
        const auto a = put(i), b = put(i + 16), c = put(i + 32), d = put(i + 48);
        quantize<S>(a, b, c, d, q, r, g);
    }
}

template <class S>
typename S::F tanh(typename S::F x) {  // to 2e-7: sign(x) * (1 - e) / (1 + e), e = exp(-2 |x|)
    const auto one = S::set(1), e = S::exp2(S::mul(S::abs(x), S::set(-2.88539008f)));
    const auto sign = S::max(S::min(S::mul(x, S::set(1e30f)), one), S::set(-1));
    return S::mul(sign, S::div(S::sub(one, e), S::add(one, e)));
}

template <class S>
typename S::F active(typename S::F x, rk_activation which) {
    switch (which) {
        case rk_activation::gelu: return S::gelu(x);
        case rk_activation::relu: return S::max(S::set(0), x);  // in this order NaN stays
        default: return tanh<S>(x);
    }
}

}  // namespace
