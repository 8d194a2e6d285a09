#include "engine.hpp"

#if defined(__AVX2__)
#include "avx2.hpp"
#include "encoder.hpp"

static const Engine made = engine<AvxVnni>("avxvnni");
const Engine* const AVX_VNNI = &made;
#else
const Engine* const AVX_VNNI = nullptr;
#endif
