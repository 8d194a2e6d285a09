"""Queries and passages to measure on."""

import json
import random
from pathlib import Path

from models import SHARED
from raskrank_export.samples import read_samples

QUERY = "Hvor mange innbyggere har Tromsø kommune, og hvordan har folketallet endret seg?"
SEED = 20261124


def passages(count: int, kind: str = "mixed") -> list[str]:
    """Norwegian passages: "short" (4 to 16 words), "mixed" (5 to 300 words, log-normal around 90) or "long" (400 words).

    Cut and joined from NorQuAD's validation passages if ../shared is there, else from the exporter's Norwegian samples.
    """
    words, rng, result = _words(), random.Random(SEED), []
    for _ in range(count):
        length = _length(rng, kind)
        start = rng.randrange(len(words) - length)
        result.append(" ".join(words[start : start + length]))
    return result


def _length(rng: random.Random, kind: str) -> int:
    if kind == "short":
        return rng.randint(4, 16)
    return min(300, max(5, round(rng.lognormvariate(4.3, 0.6)))) if kind == "mixed" else 400


def source() -> str:
    return "NorQuAD validation" if _norquad().is_file() else "the exporter's samples"


def _norquad() -> Path:
    return SHARED / "norquad" / "validation" / "passages.jsonl"


def _words() -> list[str]:
    if _norquad().is_file():
        lines = _norquad().read_text("utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
    else:
        texts = [document for sample in read_samples() for document in sample.documents]
    return " ".join(texts).split()
