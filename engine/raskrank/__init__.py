"""Cross-encoder reranking on ordinary CPUs.

from raskrank import Reranker

reranker = Reranker.load()
for hit in reranker.rank("Hvem kan Python?", documents, top_k=5):
    print(hit.index, hit.score)
"""

import logging

from raskrank.interpreter import require_main

require_main()

from raskrank.errors import (
    BundleError,
    CheckpointError,
    ClosedError,
    Corrupt,
    ExportError,
    ForkError,
    Incompatible,
    InferenceError,
    InputError,
    LimitError,
    MissingExtra,
    MissingFile,
    NonFiniteScore,
    NotACrossEncoder,
    ParityError,
    RaskrankError,
    RaskrankWarning,
)
from raskrank.info import Info
from raskrank.parity import Parity
from raskrank.reranker import Ranked, Reranker
from raskrank.texts import Limits

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "CheckpointError",
    "ClosedError",
    "Corrupt",
    "ExportError",
    "ForkError",
    "Incompatible",
    "InferenceError",
    "Info",
    "InputError",
    "LimitError",
    "Limits",
    "MissingExtra",
    "MissingFile",
    "NonFiniteScore",
    "NotACrossEncoder",
    "Parity",
    "ParityError",
    "Ranked",
    "RaskrankError",
    "RaskrankWarning",
    "Reranker",
    "__version__",
]

logging.getLogger("raskrank").addHandler(logging.NullHandler())
