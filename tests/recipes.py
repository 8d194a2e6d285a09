"""Quantizations that tests go through, and the operator of each."""

import pytest

from raskrank_export.quantization import EXACT, GROUP, Quantization, Scheme

ROW, TENSOR, NBITS = Quantization(), Quantization(scheme="tensor"), Quantization(scheme="weights", levels=EXACT)
RECIPES = pytest.mark.parametrize("recipe", [ROW, TENSOR, GROUP, NBITS], ids=lambda recipe: recipe.scheme)
PRODUCT: dict[Scheme, str] = {
    "row": "MatMulIntegerToFloat",
    "tensor": "DynamicQuantizeMatMul",
    "group": "MatMulNBits",
    "weights": "MatMulNBits",
}
