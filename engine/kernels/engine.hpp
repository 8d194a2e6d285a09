// What api.cpp knows of an instruction set: one Engine each, in a translation unit that is compiled for it.
#pragma once
#include "model.hpp"
#include "pool.hpp"

using u64 = std::uint64_t;
enum Stage { EMBED, QKV, ATTENTION, QUANTIZE, OUTPUT, NORM, UP, GELU_STAGE, DOWN, HEAD, WAIT, STAGES };

struct Call {
    const i64 *ids, *types;  // (pairs, length), in range
    const i32* positions;    // (pairs, length), in range
    i32 pairs, length;
    float* logits;  // (pairs)
    char* shared;   // room that all threads of the team see
    u64* ticks;     // (STAGES) of the calling thread, or null
};

struct Engine {
    const char* name;
    // One thread's part of a call; `own`: room for it alone. Both rooms start at a multiple of 64 bytes.
    void (*encode)(const rk_model&, const Call&, Team&, int me, char* own);
    i64 (*shared_room)(const rk_model&, i64 pairs, i64 length);
    i64 (*own_room)(const rk_model&, i64 pairs, i64 length);
};

// Plain C++, the second with AMX's tiles.
extern const Engine SCALAR, SCALAR_TILES;
// Null where the library was compiled for another kind of CPU.
extern const Engine *const AVX2, *const AVX_VNNI, *const AVX512, *const AVX512_BF16, *const AMX;

// Whether this CPU, and its operating system, have what the engine was compiled for. Of AMX: permission is asked for, too; of bf16:
// whether it is quicker with it, too.
bool has_avx2(), has_avx_vnni(), has_avx512(), has_avx512_bf16(), has_amx();
