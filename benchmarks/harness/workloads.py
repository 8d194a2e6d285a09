"""Queries and passages to measure on."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from benchmarks.harness.models import SHARED
from raskrank.samples import read_samples

Kind = Literal["short", "mixed", "long"]

QUERY = "Hvor mange innbyggere har Tromsø kommune, og hvordan har folketallet endret seg?"
SHORT_QUERY = "Folketallet i Tromsø"
SHORT_CHARS = 40  # so that a short pair has at most 32 tokens, also in an English vocabulary
PAIR_TOKENS = 128
SEED = 20261124


@dataclass(frozen=True)
class Workload:
    """A query with `count` passages, measured `rounds` times; `usual`: part of a run in which nothing else is asked for."""

    name: str
    title: str
    count: int
    kind: Kind
    rounds: int
    usual: bool = True


WORKLOADS = (
    Workload("pair", f"one pair of {PAIR_TOKENS} tokens", 1, "long", 30),
    Workload("mixed-10", "10 passages of mixed length", 10, "mixed", 10),
    Workload("short-100", "100 short passages, at most 32 tokens with the query", 100, "short", 5),
    Workload("mixed-100", "100 passages of mixed length", 100, "mixed", 5),
    Workload("long-20", "20 passages at the model's limit", 20, "long", 3),
    Workload("long-100", "100 passages at the model's limit", 100, "long", 2, usual=False),
    Workload("mixed-1000", "1,000 passages of mixed length", 1000, "mixed", 2, usual=False),
)
PAIR, MAIN = "pair", "mixed-100"


def texts(workload: Workload, tokenizer: Tokenizer) -> tuple[str, list[str]]:
    """The query and the passages. The tokenizer, with no truncation, counts the tokens of the single pair."""
    if workload.name == PAIR:
        return QUERY, [_cut(passages(1, "long")[0], tokenizer)]
    return query(workload.kind), passages(workload.count, workload.kind)


def query(kind: Kind) -> str:
    return SHORT_QUERY if kind == "short" else QUERY


def passages(count: int, kind: Kind = "mixed") -> list[str]:
    """Norwegian passages: "short" (40 characters), "mixed" (5 to 300 words, log-normal around 74) or "long" (400 words).

    Cut and joined from NorQuAD's validation passages if ../shared is there, else from the exporter's Norwegian samples.
    """
    words, rng, result = _words(), random.Random(SEED), []
    for _ in range(count):
        length = _length(rng, kind)
        start = rng.randrange(len(words) - length)
        text = " ".join(words[start : start + length])
        result.append(text[:SHORT_CHARS].strip() if kind == "short" else text)
    return result


def source() -> str:
    return "NorQuAD validation" if _norquad().is_file() else "the exporter's samples"


def _length(rng: random.Random, kind: Kind) -> int:
    if kind == "short":
        return rng.randint(2, 8)
    return min(300, max(5, round(rng.lognormvariate(4.3, 0.6)))) if kind == "mixed" else 400


def _cut(passage: str, tokenizer: Tokenizer) -> str:
    """A beginning that makes a pair of PAIR_TOKENS tokens with the query."""
    end = tokenizer.encode(QUERY, passage).offsets[PAIR_TOKENS - 1][1]  # of the token that the closing one will replace
    while len(tokenizer.encode(QUERY, passage[:end])) > PAIR_TOKENS:
        end -= 1
    return passage[:end]


def _norquad() -> Path:
    return SHARED / "norquad" / "validation" / "passages.jsonl"


def _words() -> list[str]:
    if _norquad().is_file():
        lines = _norquad().read_text("utf-8").splitlines()
        found = [json.loads(line)["text"] for line in lines]
    else:
        found = [document for sample in read_samples() for document in sample.documents]
    return " ".join(found).split()
