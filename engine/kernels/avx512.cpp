#include "engine.hpp"

#if defined(__AVX512VNNI__)
#include "avx512.hpp"
#include "encoder.hpp"

static const Engine made = engine<Avx512>("avx512");
const Engine* const AVX512 = &made;
#else
const Engine* const AVX512 = nullptr;
#endif
