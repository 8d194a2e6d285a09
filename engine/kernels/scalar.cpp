#include "scalar.hpp"

#include "encoder.hpp"

const Engine SCALAR = engine<Scalar>("scalar");
