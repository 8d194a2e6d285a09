"""docs/models.md: what it says of known models is what is known of them, and its numbers are measured."""

import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import raskrank
from benchmarks.studies import tokens
from paths import ROOT, shared
from raskrank.checkpoint.registry import KnownModel, known_models

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
NORWEGIAN = PAGE.partition("## Which one for Norwegian?")[2].partition("\n## ")[0]


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.id)
def test_a_known_model_has_a_row_with_its_license(model: KnownModel) -> None:
    rows = [line for line in PAGE.partition("\n## Exporting")[0].splitlines() if line.startswith("|") and model.id in line]
    assert len(rows) == 1
    assert model.license.lower() in rows[0].lower()


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.id)
def test_a_known_model_has_a_row_on_norwegian_with_its_time(model: KnownModel) -> None:
    (row,) = re.findall(rf"^\| {re.escape(model.id.partition('/')[2])} \|.*$", NORWEGIAN, re.MULTILINE)
    _, _, license, _, _, _, _, seconds, _ = (cell.strip() for cell in row.split("|"))
    assert license.lower() == model.license
    assert float(seconds) > 0


@pytest.mark.parametrize(
    ("row", "folder"),
    [
        ("bge-reranker-base", "bge-reranker-base-BAAI"),
        ("jina-reranker-v2-base-multilingual", "jina-reranker-v2-base-multilingual"),
        ("mmarco-mMiniLMv2-L12-H384-v1", "mmarco-mMiniLMv2-L12-H384-v1"),
        ("ms-marco-MiniLM-L-6-v2", "ms-marco-MiniLM-L-6-v2"),
        ("the embedded model", ""),
    ],
)
def test_the_tokens_of_a_norwegian_word_are_measured(row: str, folder: str) -> None:
    sample = tokens.texts(shared("data", "norquad", "validation"))[::5]
    home = shared("data", "tokenizers", folder) if folder else Path(raskrank.__file__).parent / "nano"
    found = tokens.tokens_per_word(Tokenizer.from_file(str(home / "tokenizer.json")), sample)
    (line,) = re.findall(rf"^\| {row}.*$", NORWEGIAN, re.MULTILINE)
    assert float(line.split("|")[5]) == pytest.approx(found, rel=0.03)  # a fifth of the texts
