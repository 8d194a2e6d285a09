#include "engine.hpp"

#if defined(__AVX512BF16__)
#include "avx512.hpp"
#include "encoder.hpp"

static const Engine made = engine<Avx512Bf16>("avx512bf16");
const Engine* const AVX512_BF16 = &made;
#else
const Engine* const AVX512_BF16 = nullptr;
#endif
