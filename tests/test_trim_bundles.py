"""Bundles of a trimmed vocabulary: the scores of a text whose pieces are all kept are the same, bit for bit."""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from builders import ENGLISH, NORWEGIAN
from conftest import LOOSE, Tiny
from paths import NANO_CHECKPOINT
from raskrank import Reranker
from raskrank.activation import sigmoid
from raskrank.bundle import read_manifest
from raskrank.cli.main import main
from raskrank.errors import ExportError, InputError, ParityError, RaskrankWarning
from raskrank.manifest import WEIGHTS, CorpusFile
from raskrank.settings import bundle_path
from raskrank_export import ExportReport, Thresholds, export, tracing
from raskrank_export.trim import trim_vocabulary


class Bundles(NamedTuple):
    whole: Path
    trimmed: Path
    report: ExportReport


SAME = st.lists(st.sampled_from(sorted({word for text in NORWEGIAN for word in text.split()})), max_size=40).map(" ".join)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "norsk.txt"
    file.write_text("\n".join(NORWEGIAN), "utf-8")
    return file


@pytest.fixture(scope="module", params=["bert", "xlm-roberta", "nano"])
def bundles(request: pytest.FixtureRequest, tiny: Tiny, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The same model, untrimmed and trimmed on Norwegian, int8."""
    root = tmp_path_factory.mktemp("trimmed")
    whole = bundle_path(None) if request.param == "nano" else tiny.bundle(request.param)
    checkpoint = NANO_CHECKPOINT if request.param == "nano" else tiny.checkpoint(request.param)
    if request.param == "nano" and tracing.route() != "optimum":  # that made the embedded bundle; sizes are compared, too
        whole = Path(export(str(checkpoint), root / "whole", samples=tiny.samples, thresholds=LOOSE).output)
    folder = root / "bundle"
    report = export(str(checkpoint), folder, samples=tiny.samples, trim_vocab=[corpus], thresholds=LOOSE)
    return Bundles(whole, folder, report)


def test_scores_are_bit_equal(bundles: Bundles) -> None:
    with Reranker.load(bundles.whole) as whole, Reranker.load(bundles.trimmed) as trimmed:

        @settings(max_examples=30, deadline=None)
        @given(query=SAME, documents=st.lists(SAME, min_size=1, max_size=4))
        @example(query=NORWEGIAN[0], documents=[*NORWEGIAN, " ".join(NORWEGIAN), ""])
        def check(query: str, documents: list[str]) -> None:
            assert trimmed.score(query, documents).tobytes() == whole.score(query, documents).tobytes()

        check()
        assert trimmed.info().unknown_texts == 0


def test_what_the_bundle_says(bundles: Bundles, corpus: Path) -> None:
    (whole, _), (manifest, _) = read_manifest(bundles.whole), read_manifest(bundles.trimmed)
    assert bundles.report.manifest == manifest
    found = manifest.vocabulary
    assert whole.vocabulary is None
    assert found is not None
    assert (found.of, found.kept) == (whole.vocab_size, manifest.vocab_size)
    assert found.corpus == (CorpusFile(name="norsk.txt", sha256=hashlib.sha256(corpus.read_bytes()).hexdigest()),)
    assert (found.coverage.texts, found.coverage.held_back) == (len(NORWEGIAN), 3)
    assert manifest.pad_id == whole.pad_id
    assert manifest.parameters == whole.parameters - (found.of - found.kept) * whole.hidden_size
    smaller = (found.of - found.kept) * whole.hidden_size // 64 * (64 + 4)  # int8 rows, and a scale for each group
    sizes = [folder.joinpath(WEIGHTS).stat().st_size for folder in (bundles.whole, bundles.trimmed)]
    assert sizes[0] - sizes[1] == pytest.approx(smaller, abs=256)  # of alignment
    assert f"vocabulary trimmed to {found.kept} of {found.of} pieces; of 3 held-back texts" in str(bundles.report)
    # The samples are English too: what is spelled otherwise there has been weighed.
    assert manifest.parity["trimmed"]["pairs"] == manifest.parity["int8"]["pairs"] == 12
    assert manifest.parity["trimmed"]["max_logit_difference"] > 1e-3 > manifest.parity["fp32"]["max_logit_difference"]


def test_pytorch_reads_with_the_tokenizer_of_the_checkpoint(bundles: Bundles) -> None:
    pairs = [(ENGLISH[0], document) for document in (*ENGLISH[:6], *NORWEGIAN[:6])]
    with Reranker.load(bundles.trimmed) as trimmed, Reranker.load(bundles.trimmed, backend="torch") as torch:
        parity = trimmed.verify(pairs)
        expected = torch.score_pairs(pairs)
        assert (torch.info().kept_pieces, torch.info().unknown_texts) == (None, None)
        activate = sigmoid if read_manifest(bundles.trimmed)[0].activation == "sigmoid" else np.asarray
    # PyTorch's own sums may differ from one load to the next.
    np.testing.assert_allclose(activate(parity.reference_logits), expected, rtol=0, atol=1e-5)


def test_texts_with_unknown_pieces_are_counted(bundles: Bundles) -> None:
    pieces = bundles.report.manifest.vocab_size
    with Reranker.load(bundles.trimmed) as reranker:
        assert (reranker.info().kept_pieces, reranker.info().unknown_texts) == (pieces, 0)
        reranker.score("Hvem kan \U0001242b?", ["Python", "\U0001242b og Python \U0001242b", "\U0001242b", ""])
        assert reranker.info().unknown_texts == 3
        reranker.rank("Python", [])
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(reranker.score, "Python", ["\U0001242b", "Oslo"]) for _ in range(40)]:
                done.result()
        assert reranker.info().unknown_texts == 43
        assert "unknown texts" in str(reranker.info())
    with Reranker.load(bundles.whole) as reranker:
        reranker.score("\U0001242b", ["\U0001242b"])
        assert (reranker.info().kept_pieces, reranker.info().unknown_texts) == (None, None)
        assert "unknown texts" not in str(reranker.info())


def test_a_rescue_reads_with_the_tokenizer_of_the_checkpoint(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Reranker.load(bundles.trimmed, fallback="torch") as reranker,
        Reranker.load(bundles.trimmed, backend="torch") as torch,
    ):
        monkeypatch.setattr(reranker._loaded.backend, "logits", lambda ids, *_, **__: np.full(len(ids), np.nan, np.float32))
        documents = ENGLISH[:6]
        expected = torch.score(ENGLISH[0], documents)
        with pytest.warns(RaskrankWarning, match="6 of 6 logits were not finite"):
            scores = reranker.score(ENGLISH[0], documents)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_a_trimmed_fp32_bundle_and_its_gate(
    tiny: Tiny, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, source = tmp_path / "bundle", str(tiny.checkpoint("bert"))
    strict = Thresholds(min_tau=-1, min_top1=0, max_drift=1e-6, max_mean_drift=1)
    with pytest.raises(ParityError, match=r"onnx fp32, trimmed against .* trim the vocabulary on more text"):
        export(source, output, precision="fp32", samples=tiny.samples, trim_vocab=[corpus], thresholds=strict)
    assert not output.exists()
    report = export(source, output, precision="fp32", samples=tiny.samples, trim_vocab=[corpus], thresholds=LOOSE)
    assert report.parity is not report.fp32_parity
    with Reranker.load(tiny.bundle("bert", "fp32")) as whole, Reranker.load(output) as trimmed:
        assert trimmed.score(NORWEGIAN[0], NORWEGIAN).tobytes() == whole.score(NORWEGIAN[0], NORWEGIAN).tobytes()
    # Held to the order, too: the logits of texts that are spelled otherwise differ by more than fp32 may.
    assert main(["verify", "--bundle", str(output), "--pairs", str(tiny.samples)]) == 0
    assert "passed: min_tau -1" in capsys.readouterr().out


def test_what_export_refuses(tiny: Tiny, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(InputError, match="trim_vocab: expected a sequence of files, got str; put it in a list"):
        export(str(tiny.checkpoint("bert")), output, trim_vocab=str(corpus))
    with pytest.raises(InputError, match="absent: cannot be read: No such file"):
        export(str(tiny.checkpoint("bert")), output, trim_vocab=[corpus, tmp_path / "absent"])
    with pytest.raises(ExportError, match="BPE"):
        export(str(tiny.checkpoint("roberta")), output, trim_vocab=[corpus])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no option on the command line allows anything."""
    defaults = replace(Thresholds(), min_top1=0, max_mean_drift=1)
    monkeypatch.setattr("raskrank_export.Thresholds", lambda **values: replace(defaults, **values))


@pytest.mark.usefixtures("loose")
def test_the_command_line(tiny: Tiny, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, samples = str(tmp_path / "bundle"), str(tiny.samples)
    options = ["--samples", samples, "--min-tau", "-1", "--max-drift", "1", "--trim-vocab", str(corpus), str(corpus)]
    assert main(["export", str(tiny.checkpoint("xlm-roberta")), output, *options]) == 0
    assert "vocabulary trimmed to" in capsys.readouterr().out
    assert main(["info", "--bundle", output]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^kept pieces +\d+$", shown, re.MULTILINE)
    assert re.search(r"^unknown texts +0$", shown, re.MULTILINE)


@pytest.mark.usefixtures("loose")
def test_a_corpus_whose_texts_stand_in_a_field_of_their_own(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("nr;tekst\n" + "".join(f"{number};{text}\n" for number, text in enumerate(NORWEGIAN * 3)), "utf-8")
    command = ["export", str(tiny.checkpoint("xlm-roberta")), str(tmp_path / "bundle"), "--precision", "fp32"]
    command += ["--samples", str(tiny.samples), "--min-tau", "-1", "--max-drift", "1", "--trim-vocab", str(corpus)]
    assert main(command) == 2
    assert "say which one with --field NAME" in capsys.readouterr().err
    assert main([*command, "--field", "tekst", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["manifest"]["vocabulary"]
    lines = tmp_path / "corpus.txt"
    lines.write_text("".join(f"{text}\n" for text in NORWEGIAN * 3), "utf-8")
    data = (tiny.checkpoint("xlm-roberta") / "tokenizer.json").read_bytes()
    expected = trim_vocabulary(data, Tokenizer.from_buffer(data), [lines], pad_id=1).vocabulary
    assert kept["kept"] == expected.kept
