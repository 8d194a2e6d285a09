#include "engine.hpp"

#if defined(__AVX512BF16__)
#include "avx512.hpp"
#include "encoder.hpp"

namespace {

struct Amx : Avx512Bf16 {
    static constexpr bool TILES = true;
    using Tiles = AmxTiles;
};

}  // namespace

static const Engine made = engine<Amx>("amx");
const Engine* const AMX = &made;
#else
const Engine* const AMX = nullptr;
#endif
