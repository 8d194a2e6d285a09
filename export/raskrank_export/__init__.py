"""Turn a Hugging Face cross-encoder into a Raskrank bundle.

from raskrank_export import Thresholds, export

report = export("BAAI/bge-reranker-base", "./bundles/bge-reranker-base")
"""

from raskrank.extras import need_exporter

need_exporter("raskrank_export", "onnx")

from raskrank.documents import Form
from raskrank.gate import Thresholds
from raskrank_export.exporter import export
from raskrank_export.progress import Progress
from raskrank_export.report import ExportReport

__all__ = ["ExportReport", "Form", "Progress", "Thresholds", "export"]
