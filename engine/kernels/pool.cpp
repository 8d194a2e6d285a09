#include "pool.hpp"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr long STACK = 1 << 18;  // tiles and scores live in the room of a call
constexpr long AWAKE = 2'000'000;  // nanoseconds that a helper waits for a call that is about to come: the time to tokenize a pair

long nanoseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

// A thread that takes no signal: those are the caller's.
bool start(pthread_t* thread, void* (*function)(void*), void* argument) {
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return false;
    pthread_attr_t attributes;
    bool started = pthread_attr_init(&attributes) == 0;
    if (started) {
        pthread_attr_setstacksize(&attributes, size_t(STACK > PTHREAD_STACK_MIN ? STACK : PTHREAD_STACK_MIN));
        started = pthread_create(thread, &attributes, function, argument) == 0;
        pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started;
}

#if defined(__linux__)
// The caller's CPUs but for the one that it is on. A thread that is woken is often put beside the one that wakes it, and stays there
// for milliseconds while another CPU idles.
class Elsewhere {
public:
    Elsewhere() {
        const int here = sched_getcpu();
        CPU_ZERO(&others_);
        if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof others_, &others_) != 0) return;
        CPU_CLR(here, &others_);
        next_ = here;
    }
    // Each call takes the next CPU.
    void place(pthread_t thread) {
        cpu_set_t set;
        CPU_ZERO(&set);
        if (CPU_COUNT(&others_) == 0) return;
        do next_ = (next_ + 1) % CPU_SETSIZE;
        while (!CPU_ISSET(next_, &others_));
        CPU_SET(next_, &set);
        pthread_setaffinity_np(thread, sizeof set, &set);
    }

private:
    cpu_set_t others_;
    int next_ = 0;
};
#else
struct Elsewhere {
    void place(pthread_t) {}
};
#endif

}  // namespace

// A forked child has none of the threads, and whatever state its parent's other threads left the lock in.
void Pool::renew_after_fork() {
    if (process_ == getpid()) return;
    if (process_ != 0) {
        pthread_mutex_init(&mutex_, nullptr);
        count_ = 0;
    }
    process_ = getpid();
}

bool Pool::add_worker() {
    if (count_ == MOST_THREADS) return false;
    Worker& worker = workers_[count_];
    worker.pool = this, worker.job = nullptr, worker.awake = worker.reserved = false;
    pthread_cond_init(&worker.wake, nullptr);
    if (!start(&worker.thread, serve, &worker)) return false;
    count_++;
    return true;
}

void Pool::wake(int wanted, Prepare prepare, const void* context) {
    if (wanted <= 0) return;
    Elsewhere elsewhere;
    renew_after_fork();
    pthread_mutex_lock(&mutex_);
    for (int i = 0, part = 0; part < wanted && (i < count_ || add_worker()); i++) {
        Worker& worker = workers_[i];
        if (worker.reserved) continue;
        part++;
        if (worker.awake) continue;
        worker.awake = true, worker.part = part - 1, worker.parts_apart = wanted, worker.prepare = prepare, worker.context = context;
        elsewhere.place(worker.thread);
        pthread_cond_signal(&worker.wake);
    }
    pthread_mutex_unlock(&mutex_);
}

void Pool::reserve(int wanted, Helpers& helpers) {
    helpers.count = 0;
    if (wanted <= 0) return;
    renew_after_fork();
    pthread_mutex_lock(&mutex_);
    for (int i = 0; helpers.count < wanted && (i < count_ || add_worker()); i++) {
        if (workers_[i].reserved) continue;
        workers_[i].reserved = true;
        helpers.index[helpers.count++] = i;
    }
    pthread_mutex_unlock(&mutex_);
}

void Pool::release(const Helpers& helpers) {
    if (helpers.count == 0) return;
    pthread_mutex_lock(&mutex_);
    for (int i = 0; i < helpers.count; i++) workers_[helpers.index[i]].reserved = false;
    pthread_mutex_unlock(&mutex_);
}

void Pool::run(Work work, void* context, const Helpers& helpers) {
    Job job{work, context, helpers.count, {}};
    Elsewhere elsewhere;
    pthread_cond_init(&job.done, nullptr);
    pthread_mutex_lock(&mutex_);
    for (int i = 0; i < helpers.count; i++) {
        Worker& worker = workers_[helpers.index[i]];
        worker.me = i + 1, worker.begun = false;
        __atomic_store_n(&worker.job, &job, __ATOMIC_RELEASE);
        if (worker.awake) continue;
        elsewhere.place(worker.thread);
        pthread_cond_signal(&worker.wake);
    }
    pthread_mutex_unlock(&mutex_);
    work(context, 0);
    pthread_mutex_lock(&mutex_);
    for (int i = 0; i < helpers.count; i++) {
        Worker& worker = workers_[helpers.index[i]];
        if (worker.job == &job && !worker.begun) __atomic_store_n(&worker.job, nullptr, __ATOMIC_RELAXED), job.left--;
    }
    while (job.left != 0) pthread_cond_wait(&job.done, &mutex_);
    pthread_mutex_unlock(&mutex_);
    pthread_cond_destroy(&job.done);
}

// Until a job is there, or AWAKE is over.
void Pool::expect(const Worker& worker) {
    const long end = nanoseconds() + AWAKE;
    i64 part = worker.part;
    for (bool more = true; !__atomic_load_n(&worker.job, __ATOMIC_ACQUIRE) && nanoseconds() < end; part += worker.parts_apart) {
        if (more) more = worker.prepare(worker.context, part);
        else for (int i = 0; i < 16; i++) relax();
    }
}

void* Pool::serve(void* argument) {
    Worker& worker = *static_cast<Worker*>(argument);
    Pool& pool = *worker.pool;
    pthread_mutex_lock(&pool.mutex_);
    for (;;) {
        while (!worker.job && !worker.awake && !pool.closed_) pthread_cond_wait(&worker.wake, &pool.mutex_);
        if (worker.awake) {
            pthread_mutex_unlock(&pool.mutex_);
            expect(worker);
            pthread_mutex_lock(&pool.mutex_);
            worker.awake = false;
            if (!worker.job && !pool.closed_) continue;
        }
        if (!worker.job) break;
        Job& job = *worker.job;
        const int me = worker.me;
        worker.begun = true;
        pthread_mutex_unlock(&pool.mutex_);
        job.work(job.context, me);
        pthread_mutex_lock(&pool.mutex_);
        __atomic_store_n(&worker.job, nullptr, __ATOMIC_RELAXED);
        if (--job.left == 0) pthread_cond_signal(&job.done);
    }
    pthread_mutex_unlock(&pool.mutex_);
    return nullptr;
}

void Pool::close() {
    renew_after_fork();
    pthread_mutex_lock(&mutex_);
    closed_ = true;
    const int count = count_;
    for (int i = 0; i < count; i++) pthread_cond_signal(&workers_[i].wake);
    pthread_mutex_unlock(&mutex_);
    for (int i = 0; i < count; i++) {
        pthread_join(workers_[i].thread, nullptr);
        pthread_cond_destroy(&workers_[i].wake);
    }
    count_ = 0;
}
