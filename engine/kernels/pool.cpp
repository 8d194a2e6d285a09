#include "pool.hpp"

#include <limits.h>
#include <signal.h>
#include <unistd.h>

namespace {

constexpr long STACK = 1 << 18;  // tiles and scores live in the room of a call

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

}  // namespace

// A forked child has none of the threads, and whatever state its parent's other threads left the locks in.
void Pool::renew_after_fork() {
    if (process_ == getpid()) return;
    if (process_ != 0) {
        pthread_mutex_init(&mutex_, nullptr);
        pthread_cond_init(&wake_, nullptr);
        pthread_cond_init(&done_, nullptr);
        count_ = 0, reserved_ = false;
    }
    process_ = getpid();
}

int Pool::reserve(int wanted) {
    if (wanted <= 1) return 1;
    renew_after_fork();
    pthread_mutex_lock(&mutex_);
    int size = 1;
    if (!reserved_) {
        reserved_ = true;
        for (; count_ < wanted - 1; count_++) {
            Worker& worker = workers_[count_];
            worker.pool = this, worker.me = count_ + 1, worker.seen = round_;
            if (!start(&worker.thread, serve, &worker)) break;
        }
        size = count_ + 1 < wanted ? count_ + 1 : wanted;
        if (size == 1) reserved_ = false;
    }
    pthread_mutex_unlock(&mutex_);
    return size;
}

void Pool::release() {
    pthread_mutex_lock(&mutex_);
    reserved_ = false;
    pthread_mutex_unlock(&mutex_);
}

void Pool::run(Work work, void* context, int size) {
    pthread_mutex_lock(&mutex_);
    work_ = work, context_ = context, size_ = size, left_ = size - 1;
    round_++;
    pthread_cond_broadcast(&wake_);
    pthread_mutex_unlock(&mutex_);
    work(context, 0);
    pthread_mutex_lock(&mutex_);
    while (left_ != 0) pthread_cond_wait(&done_, &mutex_);
    pthread_mutex_unlock(&mutex_);
}

void* Pool::serve(void* argument) {
    const Worker& worker = *static_cast<Worker*>(argument);
    Pool& pool = *worker.pool;
    pthread_mutex_lock(&pool.mutex_);
    for (unsigned seen = worker.seen;;) {
        while (pool.round_ == seen && !pool.closed_) pthread_cond_wait(&pool.wake_, &pool.mutex_);
        if (pool.closed_) break;
        seen = pool.round_;
        if (worker.me >= pool.size_) continue;
        const Work work = pool.work_;
        void* const context = pool.context_;
        pthread_mutex_unlock(&pool.mutex_);
        work(context, worker.me);
        pthread_mutex_lock(&pool.mutex_);
        if (--pool.left_ == 0) pthread_cond_signal(&pool.done_);
    }
    pthread_mutex_unlock(&pool.mutex_);
    return nullptr;
}

void Pool::close() {
    renew_after_fork();
    pthread_mutex_lock(&mutex_);
    closed_ = true;
    pthread_cond_broadcast(&wake_);
    const int count = count_;
    pthread_mutex_unlock(&mutex_);
    for (int i = 0; i < count; i++) pthread_join(workers_[i].thread, nullptr);
    count_ = 0;
}
