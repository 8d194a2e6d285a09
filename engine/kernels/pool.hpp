// Threads that share one call. They sleep between calls, and spin only while they wait for each other inside one.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <sys/types.h>

#include "model.hpp"

// Always inlined: a copy compiled for one instruction set must not serve the others.
[[gnu::always_inline]] inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// The threads of one call. Work of a phase is taken piece by piece, so that a core which others use too gets less of it.
struct Team {
    static constexpr int PHASES = 2 * MOST_LAYERS + 2, SPINS = 10000;
    int size = 1, arrived = 0, phase = 0;
    int taken[PHASES] = {};

    // The next piece of this phase, from 0.
    [[gnu::always_inline]] int take() { return size == 1 ? taken[phase]++ : __atomic_fetch_add(&taken[phase], 1, __ATOMIC_RELAXED); }

    // Wait until all have come, and begin the next phase.
    [[gnu::always_inline]] void meet() {
        if (size == 1) {
            phase++;
            return;
        }
        const int now = __atomic_load_n(&phase, __ATOMIC_RELAXED);
        if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == size) {
            __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&phase, now + 1, __ATOMIC_RELEASE);
            return;
        }
        for (int spins = 0; __atomic_load_n(&phase, __ATOMIC_ACQUIRE) == now; spins++)
            if (spins < SPINS) relax();
            else sched_yield();  // who is waited for has no core
    }
};

// Up to MOST_THREADS - 1 sleeping threads. One call at a time has them.
class Pool {
public:
    using Work = void (*)(void* context, int me);

    // Work for threads 0 to `size` - 1, 0 being the caller; returns when all have ended. `size` threads take part for certain:
    // call `reserve` first.
    void run(Work work, void* context, int size);
    // How many threads may take part in a `run`, `wanted` at most; 1 where others have the pool. Until `release`.
    int reserve(int wanted);
    void release();
    // Ends the threads. No call may be under way.
    void close();

private:
    static void* serve(void* argument);
    void renew_after_fork();

    struct Worker {
        Pool* pool;
        int me;
        unsigned seen;  // calls there were before it
        pthread_t thread;
    };
    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
    pthread_cond_t done_ = PTHREAD_COND_INITIALIZER;
    Worker workers_[MOST_THREADS] = {};
    pid_t process_ = 0;  // whose threads these are
    int count_ = 0;      // threads that exist
    int size_ = 0;       // of the call under way
    int left_ = 0;       // threads that still work on it
    unsigned round_ = 0;
    bool reserved_ = false, closed_ = false;
    Work work_ = nullptr;
    void* context_ = nullptr;
};
