#include "engine.hpp"

const Engine* const AMX = nullptr;
