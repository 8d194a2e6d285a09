"""Cross-encoder reranking on ordinary CPUs.

from raskrank import Reranker

reranker = Reranker.load()
for hit in reranker.rank("Hvem kan Python?", documents, top_k=5):
    print(hit.index, hit.score)
"""

import logging

from raskrank.errors import (
    BundleError,
    Corrupt,
    ExportError,
    ForkError,
    Incompatible,
    InferenceError,
    InputError,
    LimitError,
    MissingFile,
    NonFiniteScore,
    NotACrossEncoder,
    ParityError,
    RaskrankError,
)
from raskrank.info import Info
from raskrank.parity import Parity
from raskrank.reranker import Ranked, Reranker
from raskrank.texts import Limits

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Corrupt",
    "ExportError",
    "ForkError",
    "Incompatible",
    "InferenceError",
    "Info",
    "InputError",
    "LimitError",
    "Limits",
    "MissingFile",
    "NonFiniteScore",
    "NotACrossEncoder",
    "Parity",
    "ParityError",
    "Ranked",
    "RaskrankError",
    "Reranker",
    "__version__",
]

logging.getLogger("raskrank").addHandler(logging.NullHandler())
