#include "engine.hpp"

#if defined(__AVX2__)
#include "avx2.hpp"
#include "encoder.hpp"

static const Engine made = engine<Avx2>("avx2");
const Engine* const AVX2 = &made;
#else
const Engine* const AVX2 = nullptr;
#endif
