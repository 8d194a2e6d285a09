"""The files that peers run, made with their own exporters from a checkpoint, kept under build/bench/peers."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.harness import environments
from benchmarks.harness.calls import Call
from benchmarks.harness.contender import Export
from benchmarks.harness.models import ROOT, WORK
from raskrank.samples import as_pairs, read_samples

DEADLINE = 1800  # seconds; calibrating bge's size takes minutes
CALIBRATION_PAIRS = 300  # what NNCF takes of a data set


def make(export: Export, checkpoint: Path) -> str | None:
    """Make an export, and the one it comes after, unless it is there for these weights. What went wrong, or None."""
    if export.after is not None and (reason := make(export.after, checkpoint)):
        return reason
    if reason := environments.problem(export.environment):
        return reason
    stamp, digest = export.folder / "made-from", _digest(checkpoint)
    if stamp.is_file() and stamp.read_text("ascii") == digest:
        return None
    shutil.rmtree(export.folder, ignore_errors=True)
    export.folder.mkdir(parents=True)
    options = json.dumps({"folder": str(export.folder), **export.options})
    command = [str(environments.python(export.environment)), "-m", "benchmarks.harness.calls", *Call.of(export.make), options]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(WORK / "hub")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, env=offline, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return f"the {export.folder.name} export was not done after {DEADLINE} s"
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"the {export.folder.name} export failed: {words}"
    stamp.write_text(digest, "ascii")
    return None


def calibration_file() -> Path:
    """Pairs to calibrate static int8 with, as JSONL: the exporter's samples."""
    pairs = [(query, document) for query, document in as_pairs(read_samples()) if document.strip()]
    rows = [{"text": f"{query} {document}", "query": query, "document": document} for query, document in pairs]
    file = WORK / "calibration.jsonl"
    WORK.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:CALIBRATION_PAIRS]), "utf-8")
    return file


def _digest(checkpoint: Path) -> str:
    with (checkpoint / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
