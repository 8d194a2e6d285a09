#include "engine.hpp"

#if defined(__x86_64__)
#include <cpuid.h>

namespace {

bool in_leaf_7(unsigned subleaf, int reg, int bit) {
    unsigned r[4] = {};
    return __get_cpuid_count(7, subleaf, &r[0], &r[1], &r[2], &r[3]) && (r[reg] >> bit & 1);
}

// The registers whose contents the operating system keeps for each thread.
bool keeps(unsigned long wanted) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return false;  // OSXSAVE
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & wanted) == wanted;
}

constexpr unsigned long AVX_STATE = 0x6, AVX512_STATE = 0xe6, TILE_STATE = 0x60000;

}  // namespace

bool has_avx2() {
    unsigned a, b, c = 0, d;
    return keeps(AVX_STATE) && __get_cpuid(1, &a, &b, &c, &d) && (c >> 12 & 1) && in_leaf_7(0, 1, 5);  // FMA, AVX2
}

bool has_avx_vnni() { return has_avx2() && in_leaf_7(1, 0, 4); }

bool has_avx512() {  // F, DQ, BW, VL, VNNI
    return has_avx2() && keeps(AVX512_STATE) && in_leaf_7(0, 1, 16) && in_leaf_7(0, 1, 17) && in_leaf_7(0, 1, 30) &&
           in_leaf_7(0, 1, 31) && in_leaf_7(0, 2, 11);
}

namespace {

bool has_bf16() { return has_avx512() && in_leaf_7(1, 0, 5); }

}  // namespace

bool has_avx512_bf16() {  // not on Intel's CPUs: products of bf16 are slower there than those of fp32
    unsigned a, b, c, d;
    return has_bf16() && __get_cpuid(0, &a, &b, &c, &d) && c != signature_INTEL_ecx;
}

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

bool has_amx() {  // TILE, INT8, BF16, conversions to bf16, and the kernel's permission, which holds for the whole process
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18;
    return has_bf16() && in_leaf_7(0, 3, 24) && in_leaf_7(0, 3, 25) && in_leaf_7(0, 3, 22) && keeps(TILE_STATE) &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}
#else
bool has_amx() { return false; }
#endif

#else
bool has_avx2() { return false; }
bool has_avx_vnni() { return false; }
bool has_avx512() { return false; }
bool has_avx512_bf16() { return false; }
bool has_amx() { return false; }
#endif
