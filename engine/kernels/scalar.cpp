#include "scalar.hpp"

#include "encoder.hpp"

namespace {

struct ScalarTiles : Scalar {
    static constexpr bool TILES = true, PAIRS = true;
    using Tiles = EmulatedTiles;
    static F pair(F first, F second) {
        return map([&](int i) {
            std::uint16_t halves[2] = {half(first.v[i]), half(second.v[i])};
            float both;
            std::memcpy(&both, halves, 4);
            return both;
        });
    }
    static void pack(float* to, F a) {
        std::uint16_t halves[16];
        for (int i = 0; i < 16; i++) halves[i] = half(a.v[i]);
        std::memcpy(to, halves, sizeof halves);
    }

private:
    static std::uint16_t half(float x) {
        std::uint32_t bits;
        std::memcpy(&bits, bf16(set(x)).v, 4);
        return std::uint16_t(bits >> 16);
    }
};

}  // namespace

const Engine SCALAR = engine<Scalar>("scalar");
const Engine SCALAR_TILES = engine<ScalarTiles>("scalar-tiles");
