"""The embedded model: it is what its checkpoint exports to, and int8 ranks as fp32 does."""

import json
import math
import re
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

import bundles
from paths import NANO_CHECKPOINT, ROOT, shared
from raskrank import Reranker, kernels
from raskrank.backend import Float32Array
from raskrank.bundle import read_manifest
from raskrank.checkpoint import read_checkpoint
from raskrank.encoding import PairEncoder
from raskrank.manifest import MODEL, TOKENIZER, WEIGHTS, Precision
from raskrank.measure.fresh import fresh_process
from raskrank.parity import compare
from raskrank.torch_backend import TorchBackend
from raskrank_export import ExportReport, export

BUNDLE = ROOT / "engine" / "raskrank" / "nano"
# (query, document, PyTorch's logit in fp32). To regenerate, run this file: python tests/test_nano.py
GOLDEN = (
    ("Hvem kan programmere i Python?", "Utvikler med åtte års erfaring i Python og PostgreSQL.", 4.200186),
    ("Hvem kan programmere i Python?", "Sykepleier i turnus, autorisert siden 2014.", -5.345672),
    ("sykepleier nattvakt Tromsø", "Vi søker sykepleier til faste nattvakter ved sykehjemmet i Tromsø.", 6.376879),
    ("Kva er hovudstaden i Noreg?", "Oslo er hovudstaden i Noreg og har om lag 700 000 innbyggjarar.", 11.113655),
    ("Who has a forklift licence?", "Warehouse worker, forklift licence T1–T4, five years at a cold store.", 6.118784),
    ("Who has a forklift licence?", "Lagermedarbeider med truckførerbevis 🙂", -2.826142),
    ("Hvor mange innbyggere har Oslo?", "", -4.7225),
    ("Hvor mange innbyggere har Oslo?", "Oslo hadde 717 710 innbyggere ved inngangen til 2024. " * 40, -0.016643),
)
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
QUESTIONS, CANDIDATES = 100, 20
# What a manifest says of a bundle wherever it was made.
DESCRIBED = (
    *("name", "source", "architecture", "parameters", "hidden_size", "max_length", "vocab_size", "pad_id", "inputs"),
    *("activation", "precision", "recipe", "vocabulary"),
)
IMPORTS = "import numpy, onnxruntime, tokenizers, time; print(time.time())"


class Exports:
    """Exports of nano's checkpoint, as the committed bundle was made: from the repository's root, with every default."""

    def __init__(self, root: Path) -> None:
        self.reports: dict[Precision, ExportReport] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            for precision in PRECISIONS:
                self.reports[precision] = export("./export/nano", root / precision, precision=precision)

    def folder(self, precision: Precision) -> Path:
        return Path(self.reports[precision].output)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("nano"))


def test_the_committed_bundle_is_what_the_checkpoint_exports_to(exports: Exports) -> None:
    """But for the last digits of what this CPU computes, and for what other versions of the libraries do otherwise."""
    committed, _ = read_manifest(BUNDLE)
    made_folder = exports.folder("int8")
    made, _ = read_manifest(made_folder)
    for field in DESCRIBED:
        assert getattr(made, field) == getattr(committed, field), field
    unmeasured = set[str]() if kernels.unavailable() is None else {"native"}
    assert made.parity.keys() == committed.parity.keys() - unmeasured
    for name in {"fp32", "int8", "native"} - unmeasured:
        assert made.parity[name] == pytest.approx(committed.parity[name], abs=0.02), name
    assert made.self_test.logit == pytest.approx(committed.self_test.logit, abs=made.self_test.tolerance)
    others = sorted(name for name, number in committed.versions.items() if version(name) != number)
    if not others:
        one, other = (onnx.load(str(folder / MODEL), load_external_data=False).graph for folder in (BUNDLE, made_folder))
        assert [(node.op_type, *node.input) for node in one.node] == [(node.op_type, *node.input) for node in other.node]
        weights, again = (np.fromfile(folder / WEIGHTS, np.uint8) for folder in (BUNDLE, made_folder))
        assert len(weights) == len(again)
        assert np.count_nonzero(weights != again) < len(weights) / 1000
        assert (BUNDLE / TOKENIZER).read_bytes() == (made_folder / TOKENIZER).read_bytes()
    pairs = [(query, document) for query, document, _ in GOLDEN]
    with Reranker.load(BUNDLE) as old, Reranker.load(made_folder) as new:
        np.testing.assert_allclose(new.score_pairs(pairs), old.score_pairs(pairs), atol=0.02, err_msg=str(others))


def test_the_committed_bundle_lies_within_the_default_thresholds() -> None:
    manifest, _ = read_manifest(BUNDLE)
    assert manifest.parity["samples"] == "default"
    limits = manifest.parity["thresholds"]
    for found in (manifest.parity["int8"], manifest.parity["native"]):
        assert found["pairs"] == 422
        assert found["tau"] >= max(limits["min_tau"], 0.995)
        assert found["top1"] >= max(limits["min_top1"], 0.995)
        assert found["max_drift"] <= limits["max_drift"]


def test_quantizing_shrinks_the_weights(exports: Exports) -> None:
    sizes = {name: (exports.folder(name) / "model.onnx.data").stat().st_size for name in exports.reports}
    assert sizes["int8"] < 0.28 * sizes["fp32"]
    assert exports.reports["int8"].parity.max_logit_difference < 0.5  # of logits with a spread of 4.8
    assert exports.reports["fp32"].parity.max_logit_difference < 2e-5


def logits_of(folder: Path, pairs: list[tuple[str, str]], scratch: Path) -> Float32Array:
    """The logits of a bundle: the scores of a copy whose manifest says that nothing is applied to them."""
    copy = bundles.edit(bundles.copy_bundle(folder, scratch / f"{folder.name}-logits"), activation="identity")
    with Reranker.load(copy) as reranker:
        return reranker.score_pairs(pairs)


def test_golden_logits(exports: Exports, tmp_path: Path) -> None:
    pairs = [(query, document) for query, document, _ in GOLDEN]
    expected = np.array([logit for _, _, logit in GOLDEN])
    # 1e-5 for sums in another order, at a spread of 6. int8: measured 0.2 at most on 422 pairs.
    np.testing.assert_allclose(logits_of(exports.folder("fp32"), pairs, tmp_path), expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits_of(exports.folder("int8"), pairs, tmp_path), expected, rtol=0, atol=0.3)
    np.testing.assert_allclose(logits_of(BUNDLE, pairs, tmp_path), expected, rtol=0, atol=0.3)


def test_golden_order() -> None:
    with Reranker.load() as reranker:
        for first, second in ((0, 1), (4, 5)):
            assert GOLDEN[first][0] == GOLDEN[second][0]
            hits = reranker.rank(GOLDEN[first][0], [GOLDEN[second][1], GOLDEN[first][1]])
            assert [hit.index for hit in hits] == [1, 0]


def norquad_pairs() -> list[tuple[str, str]]:
    """100 questions of the validation split, each with the 20 passages that share most of its rarer words."""
    folder = shared("data", "norquad", "validation")
    passages, questions = (
        [json.loads(line)["text"] for line in (folder / name).read_text("utf-8").splitlines()]
        for name in ("passages.jsonl", "queries.jsonl")
    )
    words = [set(re.findall(r"\w+", passage.lower())) for passage in passages]
    counts = Counter(word for passage in words for word in passage)
    pairs = []
    for question in questions[:: len(questions) // QUESTIONS][:QUESTIONS]:
        asked = set(re.findall(r"\w+", question.lower())) & set(counts)
        overlap = [sum(math.log(len(passages) / counts[word]) for word in asked & passage) for passage in words]
        best = sorted(range(len(passages)), key=lambda index: -overlap[index])[:CANDIDATES]
        pairs += [(question, passages[index]) for index in best]
    return pairs


def test_fidelity_on_norquad(exports: Exports, tmp_path: Path) -> None:
    pairs = norquad_pairs()
    assert len(pairs) == QUESTIONS * CANDIDATES
    expected, found = (logits_of(folder, pairs, tmp_path) for folder in (exports.folder("fp32"), BUNDLE))
    parity = compare(pairs, ("onnx fp32", expected), ("onnx int8", found))
    assert parity.logit_spread > 1
    assert parity.tau >= 0.98, parity
    assert parity.top1 >= 0.98, parity


def test_the_first_score_of_a_fresh_process_takes_little_longer_than_to_import_onnxruntime() -> None:
    """In turns, and the least of each: whatever else the machine does can only make one slower."""
    fresh, imports = list[float](), list[float]()
    for _ in range(5):
        fresh.append(fresh_process(None, threads=1, texts=["Oslo"], query="Hovedstad?").first_score_s)
        start = time.time()
        imported = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60, check=True)
        imports.append(float(imported.stdout) - start)
    assert min(fresh) < 2.5 * min(imports), (fresh, imports)


if __name__ == "__main__":
    backend = TorchBackend(read_checkpoint(NANO_CHECKPOINT))
    encoder = PairEncoder(Tokenizer.from_file(str(NANO_CHECKPOINT / "tokenizer.json")), 512)
    for pair in encoder.encode([(query, document) for query, document, _ in GOLDEN]):
        print(f"{backend.logits(pair.input_ids[None], pair.token_type_ids[None])[0]:.6f}")  # noqa: T201
