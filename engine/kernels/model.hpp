// A model as the caller holds it: nothing is copied, so every pointer must outlive the model. Shapes are row-major.
#pragma once
#include <cstdint>

using i8 = std::int8_t;
using u8 = std::uint8_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

constexpr int GROUP = 64;       // channels that share a range, of activations and of weights
constexpr int LANES = 16;       // floats that rows are worked on with, whatever the CPU's own width
constexpr int MOST_LAYERS = 64;
constexpr int MOST_THREADS = 256;  // that all calls together have as helpers

extern "C" {

// y (rows, columns) = x (rows, inner) @ weights + bias.
//   weights  u8 (columns / 16, inner / 4, 16, 4): integers in [-127, 127] with 128 added
//   scales   f32 (inner / GROUP, columns), rows `scale_stride` floats apart
//   bias     f32 (columns)
struct rk_product {
    const u8* weights;
    const float* scales;
    const float* bias;
    i64 scale_stride;
    i32 inner, columns;
};

struct rk_norm {
    const float *gamma, *beta;  // f32 (hidden)
};

// An embedding: integers in groups, each with a scale.
struct rk_table {
    const i8* rows;       // (count, hidden)
    const float* scales;  // (count, hidden / GROUP)
    i64 count;
};

struct rk_layer {
    rk_product query, key, value, output;
    rk_norm attention_norm;
    rk_product up, down;
    rk_norm output_norm;
};

enum class rk_activation : i32 { tanh, gelu, relu };  // gelu: by erf, as between a layer's `up` and `down`

struct rk_model {
    i32 layers, hidden, heads, intermediate;
    i32 position_offset;  // position of the first token
    i32 skipped_id;       // a token of this id has the position before that, and is not counted; -1: every token counts
    rk_activation head_activation;
    float epsilon;
    float logit_bias;
    rk_table words, positions, types;  // no row of types: nothing is added for them, and every type is 0
    rk_norm norm;
    const float *head, *head_bias;  // f32 (hidden, hidden), a row for each output; f32 (hidden)
    const float* logit;             // f32 (hidden), of the head's activations
    const rk_layer* layer;
};

}  // extern "C"
