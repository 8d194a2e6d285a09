#include "scalar.hpp"

#include "encoder.hpp"

namespace {

struct ScalarTiles : Scalar {
    static constexpr bool TILES = true;
    using Tiles = EmulatedTiles;
};

}  // namespace

const Engine SCALAR = engine<Scalar>("scalar");
const Engine SCALAR_TILES = engine<ScalarTiles>("scalar-tiles");
