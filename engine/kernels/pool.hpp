// Threads that share one call. They sleep between calls, and spin only for a call: while they wait for each other inside one, and for a
// moment if they were told that one is about to come.
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

// What the threads of one call share. The work of a phase is taken piece by piece, and a phase ends when its pieces are done: nobody
// waits for a thread that has none, perhaps because others have its core.
struct Team {
    static constexpr int PHASES = 2 * MOST_LAYERS + 2, SPINS = 10000;
    int size = 1;
    int taken[PHASES] = {}, done[PHASES] = {};

    // The next piece of a phase, from 0.
    [[gnu::always_inline]] int take(int phase) {
        return size == 1 ? taken[phase]++ : __atomic_fetch_add(&taken[phase], 1, __ATOMIC_RELAXED);
    }
    // A piece that was taken is done.
    [[gnu::always_inline]] void finish(int phase) {
        if (size > 1) __atomic_fetch_add(&done[phase], 1, __ATOMIC_RELEASE);
    }
    // Wait until all pieces of a phase are done.
    [[gnu::always_inline]] void meet(int phase, i64 pieces) {
        for (int spins = 0; size > 1 && __atomic_load_n(&done[phase], __ATOMIC_ACQUIRE) < pieces; spins++)
            if (spins < SPINS) relax();
            else sched_yield();  // who is waited for has no core
    }
};

// Sleeping threads that calls take as helpers. Several calls may have some at the same time.
class Pool {
public:
    using Work = void (*)(void* context, int me);

    // Helpers of one call, from `reserve` to `release`.
    struct Helpers {
        int count = 0;
        int index[MOST_THREADS];
    };

    // A part of what prepares a call. False where there are no more.
    using Prepare = bool (*)(const void* context, i64 part);

    // A call with up to `wanted` helpers is about to come: they wake up, which takes a CPU that sleeps as long as a layer, and prepare
    // it until it comes, the parts 0, 1, 2 ... in turn.
    void wake(int wanted, Prepare prepare, const void* context);
    // Up to `wanted` helpers; fewer where the system starts no more threads.
    void reserve(int wanted, Helpers& helpers);
    // Work for 0, the caller, and for 1 to `helpers.count`. Returns when the caller's is done and no helper is at it: those that have
    // not begun by then do not begin.
    void run(Work work, void* context, const Helpers& helpers);
    void release(const Helpers& helpers);
    // Ends the threads. No call may be under way.
    void close();

private:
    struct Job {
        Work work;
        void* context;
        int left;
        pthread_cond_t done;
    };
    struct Worker {
        Pool* pool;
        pthread_t thread;
        pthread_cond_t wake;
        Job* job;  // null: sleeps, or is awake for one
        bool awake;
        i64 part, parts_apart;  // of what it prepares
        Prepare prepare;
        const void* context;
        bool begun;
        int me;
        bool reserved;
    };
    static void* serve(void* argument);
    static void expect(const Worker& worker);
    void renew_after_fork();
    bool add_worker();

    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    pid_t process_ = 0;  // whose threads these are
    bool closed_ = false;
    int count_ = 0;
    Worker workers_[MOST_THREADS] = {};
};
