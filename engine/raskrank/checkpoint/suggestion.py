"""What to use instead of a model that is refused."""

import re
from pathlib import Path

from raskrank.checkpoint.files import read_json
from raskrank.errors import CheckpointError

SUGGESTION = (
    "Use a cross-encoder, such as BAAI/bge-reranker-base; for many languages, Norwegian among them, "
    "BAAI/bge-reranker-v2-m3 or the small cross-encoder/mmarco-mMiniLMv2-L12-H384-v1."
)
# Who exports others' models. Their files are not downloaded, so that a hub model's name has to tell.
EXPORTERS = ("xenova/", "onnx-community/")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def unsupported(what: str) -> CheckpointError:
    """The error for a form that is not computed here. what: where it stands and what it is, as a sentence."""
    return CheckpointError(f"{what} {SUGGESTION}")


def original(folder: Path) -> str:
    """How to export the model that a folder's ONNX files were made from, as far as its config.json names it."""
    stated = read_json(folder / "config.json").get("_name_or_path")
    if isinstance(stated, str) and _HUB_ID.fullmatch(stated):
        return f"export the model that config.json says it was made from, raskrank export {stated}"
    return "export the model that it was made from"
