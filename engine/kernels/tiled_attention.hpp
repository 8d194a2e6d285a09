// Attention of one head of one pair on AMX tiles, with what attention.hpp makes of keys, values and scores. A tile adds 32 products
// in an order of its own, so that scores have other last bits than without tiles. What is not there is zero, or a row or column that
// nobody reads.
#pragma once
#include "attention.hpp"
#include "tiles.hpp"

namespace {

constexpr i64 SIDE = 32;  // queries of a block, channels or keys of a step, columns beside each other

inline i64 tiled_attention_room(i64 keys, i64 width) {
    const i64 padded = up_to(keys, SIDE), deep = up_to(width, SIDE);
    return (SIDE + deep / 2) * (padded + 16) + SIDE * deep / 2 + padded / 2 * deep + SIDE * SIDE;
}

// out (R * 16, 32) = a (R * 16, steps * 32) @ b (steps * 32, 32) of bf16: rows of `a` hold two neighbours in a float, rows of `b`
// are pairs of rows. R is 1 or 2; strides are in floats.
template <class S, int R>
void multiply_tiles(const float* a, i64 a_stride, const float* b, i64 b_stride, i64 steps, float* out, i64 out_stride) {
    typename S::Tiles tiles;
    const i64 to = out_stride * 4;
    tiles.template zero<0>(), tiles.template zero<1>();
    if constexpr (R > 1) tiles.template zero<2>(), tiles.template zero<3>();
    for (i64 k = 0; k < steps; k++, a += SIDE / 2, b += SIDE / 2 * b_stride) {
        tiles.template load<4>(a, a_stride * 4);
        tiles.template load<6>(b, b_stride * 4), tiles.template load<7>(b + 16, b_stride * 4);
        tiles.template attend<0, 4, 6>(), tiles.template attend<1, 4, 7>();
        if constexpr (R > 1) {
            tiles.template load<5>(a + 16 * a_stride, a_stride * 4);
            tiles.template attend<2, 5, 6>(), tiles.template attend<3, 5, 7>();
        }
    }
    tiles.template store<0>(out, to), tiles.template store<1>(out + 16, to);
    if constexpr (R > 1) tiles.template store<2>(out + 16 * out_stride, to), tiles.template store<3>(out + 16 * out_stride + 16, to);
}

// As `attend`.
template <class S>
void attend_tiled(const float* queries, i64 rows, const float* keys_at, const float* values, i64 keys, i64 stride, i64 width, float* out,
                  i64 out_stride, float* room) {
    const i64 padded = up_to(keys, SIDE), apart = padded + 16, deep = up_to(width, SIDE), inner = deep / 2;
    float *scores = room, *turned = scores + SIDE * apart, *asked = turned + inner * apart, *paired = asked + SIDE * inner;
    float *found = paired + padded / 2 * deep, factors[SIDE];
    const auto clear = [](float* from, i64 count) { std::memset(from, 0, size_t(count) * sizeof(float)); };
    if (width < deep) clear(turned + width / 2 * apart, (deep - width) / 2 * apart), clear(asked, SIDE * inner);
    turn<S>(keys_at, keys, stride, width, turned, apart);
    pair_rows<S>(values, keys, stride, width, paired, deep);
    clear(paired + (keys + 1) / 2 * deep, (padded / 2 - (keys + 1) / 2) * deep);
    const auto block = [&](auto sixteens, i64 r, i64 count) {
        constexpr int R = decltype(sixteens)::value;
        for (i64 i = 0; i < count; i++)
            for (i64 c = 0; c < width; c += 16) S::pack(asked + i * inner + c / 2, S::load(queries + (r + i) * stride + c));
        for (i64 k = 0; k < padded; k += SIDE) multiply_tiles<S, R>(asked, inner, turned + k, apart, deep / SIDE, scores + k, apart);
        for (i64 i = 0; i < count; i++) factors[i] = softmax<S>(scores + i * apart, keys, padded);
        for (i64 c = 0; c < width; c += SIDE) {
            multiply_tiles<S, R>(scores, apart, paired + c, deep, padded / SIDE, found, SIDE);
            for (i64 i = 0; i < count; i++)
                for (i64 j = 0; j < SIDE && c + j < width; j += LANES)
                    S::store(out + (r + i) * out_stride + c + j, S::mul(S::load(found + i * SIDE + j), S::set(factors[i])));
        }
    };
    for (i64 r = 0; r < rows; r += SIDE) {
        const i64 count = rows - r < SIDE ? rows - r : SIDE;
        if (count > 16) block(std::integral_constant<int, 2>{}, r, count);
        else block(std::integral_constant<int, 1>{}, r, count);
    }
}

}  // namespace
