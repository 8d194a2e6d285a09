"""Quantizations that tests go through, and the operator of each."""

import pytest

from raskrank_export.quantize import EXACT, Quantization, Scheme

ROW, TENSOR, NBITS = Quantization(), Quantization(scheme="tensor"), Quantization(scheme="weights", levels=EXACT)
BLOCKS = Quantization(scheme="blocks", levels=EXACT)
RECIPES = pytest.mark.parametrize("recipe", [ROW, TENSOR, BLOCKS, NBITS], ids=lambda recipe: recipe.scheme)
PRODUCT: dict[Scheme, str] = {
    "row": "MatMulIntegerToFloat",
    "tensor": "DynamicQuantizeMatMul",
    "blocks": "MatMulNBits",
    "weights": "MatMulNBits",
}
