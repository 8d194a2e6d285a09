"""Graph passes: each a small rewrite that is exact in fp32 and returns how many layers it changed."""

from collections.abc import Callable

import onnx

from raskrank_export.passes.drop_mask import drop_mask
from raskrank_export.passes.hoist_first_token import hoist_first_token
from raskrank_export.passes.merge_projections import merge_projections

# In this order: the hoist needs the query's product apart from those of key and value.
PASSES: tuple[Callable[[onnx.ModelProto], int], ...] = (drop_mask, hoist_first_token, merge_projections)
