// The whole model on pairs of equal length, for one instruction set: one thread's part.
#pragma once
#include <cstring>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "engine.hpp"
#include "product.hpp"
#include "tiled_attention.hpp"

namespace {

constexpr i64 BLOCK_ROWS = 128;  // rows that go through the products behind attention together: their activations stay in L2
constexpr i64 TILE_SIDE = 16;    // rows of one of AMX's tiles
constexpr float LOG2_E = 1.44269504f;

// Adds the ticks that passed since the last call to a stage.
struct Clock {
    u64* ticks;
    u64 last = ticks ? now() : 0;
    static u64 now() {
#if defined(__x86_64__)
        return __builtin_ia32_rdtsc();
#else
        return 0;
#endif
    }
    void stage(Stage which) {
        if (!ticks) return;
        const u64 at = now();
        ticks[which] += at - last;
        last = at;
    }
};

// Numbers too small for a normal float are zeros while it lives, as products of bf16 have them on every CPU.
struct NoDenormals {
#if defined(__x86_64__)
    const unsigned before = __builtin_ia32_stmxcsr();
    NoDenormals() { __builtin_ia32_ldmxcsr(before | 0x8040); }
    ~NoDenormals() { __builtin_ia32_ldmxcsr(before); }
#endif
};

// Memory of a call, handed out in pieces: each begins a cache line, with one between it and the next.
struct Room {
    char* at;
    template <class T>
    T* take(i64 count) {
        char* found = at;
        at += size<T>(count);
        guard(found, count * i64(sizeof(T)), at);
        return reinterpret_cast<T*>(found);
    }
    Quantized quantized(i64 rows, i64 channels) {
        return {take<i8>(rows * channels), take<Range>(rows * channels / GROUP), channels};
    }
    static void guard([[maybe_unused]] char* begin, [[maybe_unused]] i64 bytes, [[maybe_unused]] char* end) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(begin, size_t(bytes));
        __asan_poison_memory_region(begin + bytes, size_t(end - begin - bytes));
#endif
    }
    template <class T>
    static i64 size(i64 count) { return up_to(count * i64(sizeof(T)) + 64, 64); }
    static i64 quantized_size(i64 rows, i64 channels) { return size<i8>(rows * channels) + size<Range>(rows * channels / GROUP); }
};

// What all threads of a call see.
struct Shared {
    float *x, *context;  // (rows, hidden)
    Quantized integers;  // of x
    Shared(const rk_model& m, i64 rows, char* at) {
        Room room{at};
        x = room.take<float>(rows * m.hidden), context = room.take<float>(rows * m.hidden);
        integers = room.quantized(rows, m.hidden);
    }
    static i64 size(const rk_model& m, i64 rows) { return 2 * Room::size<float>(rows * m.hidden) + Room::quantized_size(rows, m.hidden); }
};

template <class S>
void embed(const rk_model& m, const Call& call, const Shared& shared, i64 row) {
    const i64 H = m.hidden, groups = H / GROUP, word = call.ids[row], position = call.positions[row], type = call.types[row];
    const bool typed = m.types.count > 0;
    float* x = shared.x + row * H;
    for (i64 g = 0; g < groups; g++) {
        const auto w = S::set(m.words.scales[word * groups + g]), p = S::set(m.positions.scales[position * groups + g]);
        const auto t = S::set(typed ? m.types.scales[type * groups + g] : 0);
        for (i64 i = g * GROUP; i < (g + 1) * GROUP; i += LANES) {
            const auto at = [&](const rk_table& table, i64 index) { return S::load(table.rows + index * H + i); };
            auto others = S::mul(at(m.positions, position), p);
            if (typed) others = S::fma(at(m.types, type), t, others);
            S::store(x + i, S::fma(at(m.words, word), w, others));
        }
    }
    normalize<S>(x, m.norm, m.epsilon, shared.integers, row);
}

// Everything behind attention for `rows` rows of one block: x and its integers in place.
template <class S>
void behind(const rk_model& m, const rk_layer& layer, const float* context, float* x, const Quantized& xq, i64 rows, char* own,
            Clock& clock) {
    const i64 H = m.hidden, I = m.intermediate;
    Room room{own};
    const Quantized cq = room.quantized(rows, H), hq = room.quantized(rows, I);
    float* panel = room.take<float>(rows * GROUP);
    for (i64 r = 0; r < rows; r++) quantize_row<S>(context + r * H, cq, r);
    clock.stage(QUANTIZE);
    product<S>(cq, rows, layer.output, 0, H, Residual<S>{layer.output, x, H});
    clock.stage(OUTPUT);
    for (i64 r = 0; r < rows; r++) normalize<S>(x + r * H, layer.attention_norm, m.epsilon, xq, r);
    clock.stage(NORM);
    for (i64 g = 0; g < I / GROUP; g++) {
        product<S>(xq, rows, layer.up, g * GROUP, (g + 1) * GROUP, Biased<S>{layer.up, panel, GROUP, g * GROUP});
        clock.stage(UP);
        for (i64 r = 0; r < rows; r++) gelu_group<S>(panel + r * GROUP, hq, r, g);
        clock.stage(GELU_STAGE);
    }
    product<S>(hq, rows, layer.down, 0, H, Residual<S>{layer.down, x, H});
    clock.stage(DOWN);
    for (i64 r = 0; r < rows; r++) normalize<S>(x + r * H, layer.output_norm, m.epsilon, xq, r);
    clock.stage(NORM);
}

inline i64 behind_room(const rk_model& m, i64 rows) {
    return Room::quantized_size(rows, m.hidden) + Room::quantized_size(rows, m.intermediate) + Room::size<float>(rows * GROUP);
}

template <class S>
i64 room_to_attend(i64 keys, i64 width) {
    return S::TILES ? tiled_attention_room(keys, width) : attention_room(keys, width);
}

// Query, key and value of one head, and its attention. last: above it only the first token of each pair is needed.
template <class S>
void attend_head(const rk_model& m, const rk_layer& layer, const Call& call, const Shared& shared, i64 head, bool last, char* own,
                 Clock& clock) {
    const i64 H = m.hidden, L = call.length, d = H / m.heads, first = head * d, rows = i64(call.pairs) * L, stride = 3 * d;
    Room room{own};
    float *heads = room.take<float>(rows * stride), *work = room.take<float>(room_to_attend<S>(L, d));
    const float scale = LOG2_E / __builtin_sqrtf(float(d));
    Quantized asked = shared.integers;
    if (last) asked.apart = L;
    const i64 asked_stride = last ? L * stride : stride;  // so that a first token's query lies beside its key
    product<S>(asked, last ? call.pairs : rows, layer.query, first, first + d,
               Attended<S>{layer.query, heads, asked_stride, first, scale});
    product<S>(shared.integers, rows, layer.key, first, first + d, Attended<S>{layer.key, heads + d, stride, first});
    product<S>(shared.integers, rows, layer.value, first, first + d, Attended<S>{layer.value, heads + 2 * d, stride, first});
    clock.stage(QKV);
    for (i64 b = 0; b < call.pairs; b++) {
        const float* at = heads + b * L * stride;
        float* to = shared.context + b * (last ? 1 : L) * H + first;
        if constexpr (S::TILES) attend_tiled<S>(at, last ? 1 : L, at + d, at + 2 * d, L, stride, d, to, H, work);
        else attend<S>(at, last ? 1 : L, at + d, at + 2 * d, L, stride, d, to, H, work);
    }
    clock.stage(ATTENTION);
}

// One logit of the activations of a dense layer.
template <class S>
float head(const rk_model& m, const float* x, float* hidden) {
    const i64 H = m.hidden;
    for (i64 o = 0; o < H; o++) {
        auto sum = S::set(0);
        for (i64 i = 0; i < H; i += LANES) sum = S::fma(S::load(x + i), S::load(m.head + o * H + i), sum);
        hidden[o] = S::sum(sum) + m.head_bias[o];
    }
    auto sum = S::set(0);
    for (i64 i = 0; i < H; i += LANES) sum = S::fma(active<S>(S::load(hidden + i), m.head_activation), S::load(m.logit + i), sum);
    return S::sum(sum) + m.logit_bias;
}

// The pieces of a phase that this thread gets, until all are done.
template <class Work>
void share(Team& team, int& phase, i64 pieces, Clock& clock, const Work& work) {
    for (i64 piece; (piece = team.take(phase)) < pieces; team.finish(phase)) work(piece);
    team.meet(phase++, pieces);
    clock.stage(WAIT);
}

// Heads, then blocks of rows, are shared out; no value depends on who does what.
template <class S>
void encode(const rk_model& m, const Call& call, Team& team, int me, char* own) {
    Clock clock{me == 0 ? call.ticks : nullptr};
    [[maybe_unused]] const NoDenormals normal;
    if constexpr (S::TILES) S::Tiles::configure();
    const i64 H = m.hidden, rows = i64(call.pairs) * call.length;
    const Shared shared(m, rows, call.shared);
    // Blocks are whole tiles, as nearly as they go on; where several threads share the rows, two of them at least.
    constexpr i64 unit = S::TILES ? TILE_SIDE : S::ROWS, least = S::TILES ? TILE_SIDE : 2 * S::ROWS;
    i64 blocks = rows <= BLOCK_ROWS ? 1 : (rows + BLOCK_ROWS - unit) / (BLOCK_ROWS - unit + 1);  // one may be unit - 1 rows longer
    if (team.size > 1 && blocks < 2 * team.size) {
        const i64 most = (rows + least - 1) / least;
        blocks = most < 2 * team.size ? most : 2 * team.size;
    }
    const auto start = [&](i64 block) { return block == blocks ? rows : rows * block / blocks / unit * unit; };
    int phase = 0;
    share(team, phase, blocks, clock, [&](i64 block) {
        for (i64 row = start(block); row < start(block + 1); row++) embed<S>(m, call, shared, row);
        clock.stage(EMBED);
    });
    for (i32 l = 0; l + 1 < m.layers; l++) {
        const rk_layer& layer = m.layer[l];
        share(team, phase, m.heads, clock, [&](i64 head) { attend_head<S>(m, layer, call, shared, head, false, own, clock); });
        share(team, phase, blocks, clock, [&](i64 block) {
            const i64 row = start(block), at = row * H, count = start(block + 1) - row;
            behind<S>(m, layer, shared.context + at, shared.x + at, shared.integers.from(row), count, own, clock);
        });
    }
    const rk_layer& last = m.layer[m.layers - 1];
    share(team, phase, m.heads, clock, [&](i64 head) { attend_head<S>(m, last, call, shared, head, true, own, clock); });
    const i64 pairs = call.pairs, parts = (pairs + BLOCK_ROWS - 1) / BLOCK_ROWS;
    share(team, phase, parts, clock, [&](i64 part) {
        const i64 begin = pairs * part / parts, count = pairs * (part + 1) / parts - begin;
        Room room{own};
        float *x = room.take<float>(BLOCK_ROWS * H), *hidden = room.take<float>(H);  // x: first tokens, one behind the other
        const Quantized xq = room.quantized(BLOCK_ROWS, H);
        for (i64 b = 0; b < count; b++) std::memcpy(x + b * H, shared.x + (begin + b) * call.length * H, H * sizeof(float));
        behind<S>(m, last, shared.context + begin * H, x, xq, count, room.at, clock);
        for (i64 b = 0; b < count; b++) call.logits[begin + b] = head<S>(m, x + b * H, hidden);
        clock.stage(HEAD);
    });
    if constexpr (S::TILES) S::Tiles::release();
}

inline i64 shared_room(const rk_model& m, i64 pairs, i64 length) { return Shared::size(m, pairs * length); }

template <class S>
i64 own_room(const rk_model& m, i64 pairs, i64 length) {
    const i64 d = m.hidden / m.heads, H = m.hidden;
    const i64 attention = Room::size<float>(pairs * length * 3 * d) + Room::size<float>(room_to_attend<S>(length, d));
    const i64 last = Room::size<float>(BLOCK_ROWS * H) + Room::quantized_size(BLOCK_ROWS, H);
    const i64 products = last + behind_room(m, BLOCK_ROWS) + Room::size<float>(H);
    return up_to(attention > products ? attention : products, 64) + 64;
}

template <class S>
constexpr Engine engine(const char* name) {
    return {name, encode<S>, shared_room, own_room<S>};
}

}  // namespace
