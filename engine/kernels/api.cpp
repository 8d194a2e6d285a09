// The C ABI on the engines: rooms and threads for a call, and its arguments checked.
#include "api.hpp"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>

#include "engine.hpp"

namespace {

constexpr i64 PAGE = 4096;

bool always() { return true; }

const Engine* engine_of(const char* name) {
    static const struct {
        const Engine* engine;
        bool (*usable)();
    } all[] = {{AMX, has_amx}, {AVX512_BF16, has_avx512_bf16}, {AVX512, has_avx512}, {AVX_VNNI, has_avx_vnni}, {AVX2, has_avx2}, {&SCALAR, always}, {&SCALAR_TILES, always}};
    for (const auto& each : all)
        if (each.engine && std::strcmp(each.engine->name, name) == 0) return each.usable() ? each.engine : nullptr;
    return nullptr;
}

// Rooms of ended calls, kept for the next ones: memory that was touched before costs nothing to get.
class Rooms {
public:
    struct Found {
        char* at;
        i64 size;
    };
    // At least `size` bytes, or null.
    Found get(i64 size) {
        Found found{nullptr, 0};
        lock();
        if (count_ > 0) found = kept_[--count_];
        unlock();
        if (found.size >= size) return found;
        std::free(found.at);
        void* at = nullptr;
        return posix_memalign(&at, PAGE, size_t(size)) == 0 ? Found{static_cast<char*>(at), size} : Found{nullptr, 0};
    }
    void put(Found room) {
        lock();
        const bool keep = count_ < MOST_THREADS;
        if (keep) kept_[count_++] = room;
        unlock();
        if (!keep) std::free(room.at);
    }
    void clear() {
        while (count_ > 0) std::free(kept_[--count_].at);
    }

private:
    void lock() {
        if (process_ != getpid()) {  // a forked child: whatever another thread of its parent was doing here is left
            process_ = getpid(), count_ = 0;
            unlock();
        }
        while (__atomic_test_and_set(&busy_, __ATOMIC_ACQUIRE)) sched_yield();
    }
    void unlock() { __atomic_clear(&busy_, __ATOMIC_RELEASE); }

    Found kept_[MOST_THREADS] = {};
    pid_t process_ = getpid();
    int count_ = 0;
    bool busy_ = false;
};

struct Handle {
    rk_model model;
    rk_layer layers[MOST_LAYERS];
    const Engine* engine;
    Rooms rooms;
    Pool pool;
};

struct Shared {
    const Handle* handle;
    const Call* call;
    Team* team;
    char* own;
    i64 own_size;
};

void work(void* context, int me) {
    const Shared& s = *static_cast<const Shared*>(context);
    s.handle->engine->encode(s.handle->model, *s.call, *s.team, me, s.own + me * s.own_size);
}

i64 whole_pages(i64 bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

// Positions of every token; false where an id, a type or a position has no row.
bool find_positions(const rk_model& m, const i64* ids, const i64* types, i32 pairs, i32 length, i32* positions) {
    const i64 kinds = m.types.count > 0 ? m.types.count : 1;
    for (i64 pair = 0; pair < pairs; pair++) {
        i64 next = m.position_offset;
        for (i64 i = pair * length; i < (pair + 1) * length; i++) {
            const bool skipped = m.skipped_id >= 0 && ids[i] == m.skipped_id;
            const i64 position = skipped ? m.position_offset - 1 : next++;
            if (ids[i] < 0 || ids[i] >= m.words.count || types[i] < 0 || types[i] >= kinds || position < 0 ||
                position >= m.positions.count)
                return false;
            positions[i] = i32(position);
        }
    }
    return true;
}

// Memory that a layer's products read is brought into the caches that CPUs share, a page at a time, the first layer's first.
bool fetch(const void* context, i64 page) {
    const rk_model& m = static_cast<const Handle*>(context)->model;
    const i64 square = i64(m.hidden) * m.hidden, wide = i64(m.hidden) * m.intermediate;
    const i64 of_layer = (4 * square + 2 * wide + PAGE - 1) / PAGE;
    if (page >= m.layers * of_layer) return false;
    const rk_layer& layer = m.layer[page / of_layer];
    i64 byte = page % of_layer * PAGE;
    for (const rk_product* p : {&layer.query, &layer.key, &layer.value, &layer.output, &layer.up, &layer.down}) {
        const i64 size = i64(p->inner) * p->columns;
        if (byte < size) {
            const u8 *at = p->weights + byte, *end = p->weights + (byte + PAGE < size ? byte + PAGE : size);
            for (; at < end; at += 64) __builtin_prefetch(at, 0, 2);
            break;
        }
        byte -= size;
    }
    return true;
}

}  // namespace

int rk_layout() { return int(1000 * sizeof(rk_model) + sizeof(rk_layer)); }
int rk_usable(const char* engine) { return engine_of(engine) != nullptr; }

void* rk_create(const rk_model* model, const char* engine) {
    const Engine* found = engine_of(engine);
    const rk_model& m = *model;
    if (!found || m.layers < 1 || m.layers > MOST_LAYERS || m.heads < 1 || m.hidden < GROUP || m.hidden % GROUP || m.hidden % m.heads ||
        m.hidden / m.heads % LANES || m.intermediate < GROUP || m.intermediate % GROUP || m.head_activation < rk_activation::tanh ||
        m.head_activation > rk_activation::relu)
        return nullptr;
    void* at = std::calloc(1, sizeof(Handle));
    if (!at) return nullptr;
    Handle* handle = static_cast<Handle*>(at);
    new (&handle->rooms) Rooms();
    new (&handle->pool) Pool();
    handle->model = m;
    std::memcpy(handle->layers, m.layer, size_t(m.layers) * sizeof(rk_layer));
    handle->model.layer = handle->layers;
    handle->engine = found;
    return handle;
}

int rk_logits(void* opaque, const i64* ids, const i64* types, i32 pairs, i32 length, float* logits, i32 threads, u64* ticks) {
    Handle& h = *static_cast<Handle*>(opaque);
    const rk_model& m = h.model;
    if (pairs < 1 || length < 1 || threads < 1) return BAD_CALL;
    Pool::Helpers helpers;
    h.pool.reserve(threads - 1, helpers);
    Team team;
    team.size = 1 + helpers.count;
    const i64 positions = whole_pages(i64(pairs) * length * i64(sizeof(i32)));
    const i64 shared = whole_pages(h.engine->shared_room(m, pairs, length)), own = whole_pages(h.engine->own_room(m, pairs, length));
    const Rooms::Found room = h.rooms.get(positions + shared + own * team.size);
    int result = 0;
    if (!room.at) {
        result = NO_MEMORY;
    } else if (!find_positions(m, ids, types, pairs, length, reinterpret_cast<i32*>(room.at))) {
        result = BAD_ID;
    } else {
        const Call call{ids, types, reinterpret_cast<i32*>(room.at), pairs, length, logits, room.at + positions, ticks};
        Shared all{&h, &call, &team, room.at + positions + shared, own};
        if (team.size == 1) work(&all, 0);
        else h.pool.run(work, &all, helpers);
    }
    if (room.at) h.rooms.put(room);
    h.pool.release(helpers);
    return result;
}

void rk_expect(void* opaque, i32 threads) { static_cast<Handle*>(opaque)->pool.wake(threads - 1, fetch, opaque); }

void rk_destroy(void* opaque) {
    Handle* handle = static_cast<Handle*>(opaque);
    handle->pool.close();
    handle->rooms.clear();
    std::free(handle);
}
