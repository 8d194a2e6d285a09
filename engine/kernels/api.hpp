// The C ABI, which kernels.py calls. Errors are negative numbers; nothing is thrown across it, and nothing is kept but what the
// caller made.
#pragma once
#include "model.hpp"

enum Error { BAD_CALL = -1, BAD_ID = -2, NO_MEMORY = -3 };

#define EXPORT __attribute__((visibility("default")))
extern "C" {

// What the sizes of the caller's structures make of it: 1000 sizeof(rk_model) + sizeof(rk_layer).
EXPORT int rk_layout();

// 1 where this CPU runs the engine of that name.
EXPORT int rk_usable(const char* engine);

// A handle, or null for want of memory, of the engine, or of a shape that the kernels know. The model's arrays must outlive it.
EXPORT void* rk_create(const rk_model* model, const char* engine);

// ids, types: (pairs, length). logits: (pairs). threads: that share the call, fewer where the system starts no more.
// ticks: (STAGES), to which the caller's own are added, or null. Returns 0 or an Error.
EXPORT int rk_logits(void* handle, const i64* ids, const i64* types, i32 pairs, i32 length, float* logits, i32 threads,
                     std::uint64_t* ticks);

// A call that `threads` share is about to come: they wake up and fetch weights meanwhile.
EXPORT void rk_expect(void* handle, i32 threads);

// No call may be under way.
EXPORT void rk_destroy(void* handle);

}  // extern "C"
#undef EXPORT
