"""Every score is a finite number, whatever the text: every architecture, fp32 and int8, in onnxruntime and in PyTorch."""

import itertools
import json
import time
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import NORWEGIAN, Family
from conftest import LOOSE, Tiny
from paths import NANO_CHECKPOINT, shared
from published import JINA, tiny_published_checkpoint
from raskrank import Reranker
from raskrank_export import export

# bge, mmarco and ms-marco have the layouts of the first and the third; jina's is converted; nano is trained.
ARCHITECTURES = ("xlm-roberta", "roberta", "bert", "jina", "nano")
FAMILIES: tuple[Family, ...] = ("xlm-roberta", "roberta", "bert")
TOLERANCE = 1e-3  # between PyTorch and onnxruntime in fp32, of a score
REPEATS = 10_000
SECONDS = 2.0  # of the processor, for a pair of such texts; tens of milliseconds are usual
SAMPLE = 50  # one question in so many, where all would take minutes
CASES = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

NYNORSK = (
    "Kvar ligg den lengste fjorden i Noreg?",
    "Sognefjorden er 205 kilometer lang og skjer seg inn frå kysten nord for Bergen.",
    "Kven kan hjelpe meg med å søkje om barnehageplass?",
    "Kommunen tek imot søknader heile året, men hovudopptaket har frist 1. mars.",
    "Eg veit ikkje kvifor dei ikkje vil vere med på dugnaden.",
    "Ho har budd på ei øy utanfor Ålesund sidan ho var lita jente.",
    "Mjølka står i kjøleskåpet, og brødet låg på benken då eg gjekk.",
    "Veret vart så dårleg at ferja ikkje gjekk før neste føremiddag.",
)
MIXED = (
    "Vi søker en fullstack-utvikler med erfaring fra React, TypeScript og CI/CD i Azure.",
    "Kandidaten må snakke flytende norsk og English (C1 eller bedre) – gjerne også deutsch.",
    "Møtet er kl. 09:00–10:30, 3. etg., rom «Ørnen»; se https://example.no/møte?id=42&språk=nn",
    'def blåbær(ø: int) -> str:  # returnerer "æ" * ø\n\treturn "æ" * ø\n',
    "Sámi: Mun lean Kárášjogas eret. Áššit leat čilgejuvvon davvisámegillii.",
    "<p>Pris:&nbsp;1&#160;299,-&nbsp;kr <b>inkl. mva.</b></p>",
    "🇳🇴 Gratulerer med dagen! 🎉👩🏽‍💻 Hipp hipp hurra 🙌🏻",
    "Org.nr. 974 760 673 MVA, konto 1234.56.78903, tlf. +47 22 22 22 22",
    "ÆØÅ æøå ǼǾ Ǻǻ ÄÖ äö Éé Èè Êê Óó Òò Ôô Üü ß ŋ đ ŧ",
    "Поезд в Осло отправляется в 7:45, 列车七点四十五分出发, القطار إلى أوسلو",
)
SOFT_HYPHEN, ZERO_WIDTH = "\u00ad", "\u200b\u200c\u200d\u2060\ufeff"
BIDI = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
UNASSIGNED = "\ue000\uf8ff\U000f0000\U0010fffd\ufdd0\ufffe\uffff\U0001ffff\u0378\U000e0001\U000e0041\ufe0f\U000e0100\ufffd"
REPEATED = (
    *("Oslo ", "å", "a\u030a", "ø", "x", "1", "%", "漢", "🙂"),
    *("\u0301", "\u200d", SOFT_HYPHEN, " ", "\n", "\0", "\ue000"),
)
STRANGE = (
    "",
    *(unicodedata.normalize("NFD", text) for text in (NORWEGIAN[4], NORWEGIAN[9], MIXED[8])),
    "o\u0338 O\u0338 a\u030a A\u030a ae AE \u212b a\u030a\u0301 ø\u0301 æ\u0304",
    SOFT_HYPHEN.join(NORWEGIAN[11]),
    *(mark.join(NORWEGIAN[9]) for mark in ZERO_WIDTH),
    "".join(letter + mark for letter, mark in zip(NORWEGIAN[9], BIDI * 5, strict=False)),
    "".join(letter + "\u0300\u0301\u0302\u0303\u030a\u0335\u0338" for letter in NORWEGIAN[9]),
    *(SOFT_HYPHEN, ZERO_WIDTH, BIDI, CONTROLS, SPACES, UNASSIGNED),
    *("\0", "\x1b", "\x7f", "\x85", "\ufeff", "\u202e", "\u0301", "\ue000", "\U0010ffff"),
    f"\ufeff{NORWEGIAN[1]}\0{CONTROLS}{NORWEGIAN[3]}\x1b[31m",
    "[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s> <pad> <unk> <mask> ##a \u2581a",
)
LONG = tuple(text * REPEATS for text in REPEATED)
FRAGMENT = st.sampled_from([*NORWEGIAN, *NYNORSK, *MIXED, *STRANGE, *REPEATED]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)
TEXT = st.lists(st.tuples(FRAGMENT, st.sampled_from([1, 1, 1, 7, 600])), max_size=5).map(
    lambda parts: "".join(fragment * count for fragment, count in parts)
)


class Runs(NamedTuple):
    """One model in every way that it can run."""

    int8: Reranker
    fp32: Reranker
    torch: Reranker

    def check(self, pairs: list[tuple[str, str]]) -> None:
        """Scores are finite, else NonFiniteScore is raised; in fp32 they are PyTorch's."""
        int8, fp32, torch = (reranker.score_pairs(pairs) for reranker in self)
        for scores in (int8, fp32, torch):
            assert scores.shape == (len(pairs),)
            assert np.isfinite(scores).all()
        np.testing.assert_allclose(fp32, torch, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def runs(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    name: str = request.param
    if name in FAMILIES:
        checkpoint, int8, fp32 = tiny.checkpoint(name), tiny.bundle(name, "int8"), tiny.bundle(name, "fp32")
    else:
        folder = tmp_path_factory.mktemp(name)
        checkpoint = NANO_CHECKPOINT if name == "nano" else tiny_published_checkpoint(folder / "checkpoint", JINA)
        int8, fp32 = folder / "int8", folder / "fp32"
        accepted = "cc-by-nc-4.0" if name == "jina" else None
        export(str(checkpoint), int8, precision="int8", samples=tiny.samples, thresholds=LOOSE, accept_license=accepted)
        export(str(checkpoint), fp32, precision="fp32", samples=tiny.samples, thresholds=LOOSE, accept_license=accepted)
    with ExitStack() as stack:
        yield Runs(
            int8=stack.enter_context(Reranker.load(int8)),
            fp32=stack.enter_context(Reranker.load(fp32)),
            torch=stack.enter_context(Reranker.load(checkpoint=checkpoint, backend="torch")),
        )


def norquad(split: str, *, every: int) -> list[tuple[str, str]]:
    """Of every so manieth judgement: the question with its passage, and with one that does not answer it."""
    folder = shared("data", "norquad", split)
    queries, passages = _texts(folder / "queries.jsonl"), _texts(folder / "passages.jsonl")
    others, pairs = list(passages.values()), []
    for index, line in enumerate((folder / "qrels.tsv").read_text("utf-8").splitlines()[1::every]):
        query, passage, _ = line.split("\t")
        pairs += [(queries[query], passages[passage]), (queries[query], others[index * 7 % len(others)])]
    return pairs


def _texts(file: Path) -> dict[str, str]:
    items = map(json.loads, file.read_text("utf-8").splitlines())
    return {item["id"]: item["text"] for item in items}


def test_nynorsk_and_mixed_texts(runs: Runs) -> None:
    texts = [*NYNORSK, *MIXED, " ".join(NYNORSK * 12), " ".join(MIXED * 12)]
    runs.check([(query, document) for query in (NYNORSK[0], MIXED[0]) for document in texts])
    runs.check(list(itertools.pairwise(texts)))


def test_strange_unicode(runs: Runs) -> None:
    runs.check([(NORWEGIAN[0], text) for text in STRANGE])
    runs.check([(text, NORWEGIAN[1]) for text in STRANGE])
    runs.check([(text, text) for text in STRANGE])


def test_ten_thousand_repeats(runs: Runs) -> None:
    runs.check([(text, text) for text in LONG])
    for piece, text in zip(REPEATED, LONG, strict=True):
        start = time.process_time()
        runs.int8.score_pairs([(text, text)])
        assert time.process_time() - start < SECONDS, ascii(piece)


@settings(CASES, max_examples=10)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_any_text(runs: Runs, pairs: list[tuple[str, str]]) -> None:
    runs.check(pairs)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_some_of_norquad(runs: Runs, split: str) -> None:
    runs.check(norquad(split, every=SAMPLE))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_all_of_norquad(runs: Runs, split: str) -> None:
    runs.check(norquad(split, every=1))
