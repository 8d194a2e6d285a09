"""The files that peers run, made with their own exporters from a checkpoint, kept under build/bench/peers."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import environments
from models import WORK, checkpoint
from raskrank import cpu
from raskrank.samples import as_pairs, read_samples

EXPORTS = Path(__file__).with_name("exports.py")
DEADLINE = 1800  # seconds; calibrating bge's size takes minutes
CALIBRATION_PAIRS = 300  # what NNCF takes of a data set
# FlashRank knows its own downloads only: the name of one that is a BERT, and of its file.
FLASHRANK_NAME, FLASHRANK_FILE = "ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx"


Kind = Literal["onnx", "openvino"]


def preset() -> str:
    """sentence-transformers' int8 preset for this CPU."""
    sets = cpu.instruction_sets()
    return next((name for name in ("avx512_vnni", "avx2") if name in sets), "arm64")


def int8_file() -> str:
    """The name that sentence-transformers gives the int8 file of that preset."""
    return f"model_{'quint8' if preset() == 'avx2' else 'qint8'}_{preset()}.onnx"


def folder(model: str, kind: Kind) -> Path:
    """Where the peers' files of a checkpoint are; `make` makes them."""
    return WORK / "peers" / checkpoint(model).name / (f"onnx-{preset()}" if kind == "onnx" else kind)


def make(model: str, kind: Kind) -> str | None:
    """Make the peers' files with their own exporters, unless they are there for these weights. What went wrong, or None."""
    environment = "torch" if kind == "onnx" else "openvino"
    if reason := environments.problem(environment):
        return reason
    source, target = checkpoint(model), folder(model, kind)
    stamp, digest = target / "made-from", _digest(source)
    if stamp.is_file() and stamp.read_text("ascii") == digest:
        return None
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    texts = target.with_suffix(".jsonl")
    texts.write_text(calibration(), "utf-8")
    argument = preset() if kind == "onnx" else str(texts)
    command = [str(environments.python(environment)), str(EXPORTS), kind, str(source), str(target), argument]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(WORK / "hub")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, env=offline)
    except subprocess.TimeoutExpired:
        return f"the {kind} export was not done after {DEADLINE} s"
    if done.returncode:
        return f"the {kind} export failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
    if kind == "onnx":
        _imitate_flashrank(target)
    stamp.write_text(digest, "ascii")
    return None


def calibration() -> str:
    """Pairs to calibrate static int8 with, as JSONL: the exporter's samples."""
    pairs = [(query, document) for query, document in as_pairs(read_samples()) if document.strip()]
    rows = [{"text": f"{query} {document}", "query": query, "document": document} for query, document in pairs]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:CALIBRATION_PAIRS])


def _imitate_flashrank(target: Path) -> None:
    """A folder such as FlashRank downloads, with the int8 file of sentence-transformers under the name it looks for."""
    folder = target / FLASHRANK_NAME
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (target / name).is_file():
            shutil.copy(target / name, folder)
    (folder / FLASHRANK_FILE).hardlink_to(target / "onnx" / int8_file())


def _digest(source: Path) -> str:
    with (source / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
