"""Cross-encoder reranking on ordinary CPUs.

from raskrank import Reranker

reranker = Reranker.load()
for hit in reranker.rank("Hvem kan Python?", documents, top_k=5):
    print(hit.index, hit.score)
"""

import logging
import os

# onnxruntime 1.29 and later start telemetry when imported: a thread, files below HOME and TMPDIR, a look-up of the collector's
# host. Only this prevents it, set before whatever part of Raskrank imports it first. What the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from raskrank.process.interpreter import require_main

require_main()

from raskrank.cascade import Cascade
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
from raskrank.gate import Verification
from raskrank.info import Info
from raskrank.parity import Parity
from raskrank.ranking import Ranked, Ranking
from raskrank.reranker import Reranker
from raskrank.texts import Limits
from raskrank.windows import Windows

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Cascade",
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
    "Ranking",
    "RaskrankError",
    "RaskrankWarning",
    "Reranker",
    "Verification",
    "Windows",
    "__version__",
]

# In a traceback, a repr or a pickle they are what they are imported as.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = "raskrank"

logging.getLogger("raskrank").addHandler(logging.NullHandler())
