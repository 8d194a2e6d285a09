"""The exporter beside transformers 5 and the frameworks of today: bundles that score as those of the other route do.

`make test` has the other route, optimum's beside transformers 4; it made the committed bundle of the embedded model. The other
families are in test_routes.py.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxscript
import pytest
import sentence_transformers
from tokenizers import Tokenizer

from backends import needs_kernels
from builders import PAIRS, Family
from checkpoints import edit_json
from conftest import LOOSE, Tiny
from exporting import loose_export
from paths import NANO_CHECKPOINT, ROOT
from plain import check_plain
from raskrank import CheckpointError, Reranker
from raskrank.bundle import read_manifest
from raskrank.checkpoint import read_checkpoint
from raskrank.cli.main import main
from raskrank.contents import Contents
from raskrank.encoding import PairEncoder
from raskrank.kernel_model import PREFIX
from raskrank.manifest import MODEL, WEIGHTS, Precision
from raskrank.options import BackendName
from raskrank.reference_tokenizer import ReferenceEncoder
from raskrank.weights import weight_tensors
from raskrank_export import ExportReport, export, tracing

NANO_BUNDLE = ROOT / "engine" / "raskrank" / "nano"
# All run in our kernels, as they do when optimum has traced them.
NATIVE: tuple[Family, ...] = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")


@pytest.fixture(scope="module")
def nano_report(tmp_path_factory: pytest.TempPathFactory, few_samples: Path) -> ExportReport:
    return export(NANO_CHECKPOINT, tmp_path_factory.mktemp("nano") / "bundle", samples=few_samples)


def test_the_frameworks_and_the_exporter_are_in_one_environment() -> None:
    least = {"sentence-transformers": 6, "transformers": 5, "langchain-core": 1, "llama-index-core": 0}
    found = {package: int(version(package).partition(".")[0]) for package in least}
    assert all(found[package] >= major for package, major in least.items()), found
    assert (tracing.route(), tracing.makers()) == ("torch.onnx", ("onnxscript",))


def test_the_embedded_model_is_the_one_that_the_other_route_made(nano_report: ExportReport) -> None:
    ours, committed = (read_manifest(Path(folder))[0] for folder in (nano_report.output, NANO_BUNDLE))
    assert (ours.recipe.scheme, ours.encoder, ours.inputs) == ("group", committed.encoder, committed.inputs)
    assert nano_report.left == ()
    assert (ours.vocab_size, ours.max_length, ours.activation) == (
        committed.vocab_size,
        committed.max_length,
        committed.activation,
    )
    assert ours.versions["onnxscript"] == onnxscript.__version__
    found, expected = (
        weight_tensors((folder / MODEL).read_bytes(), folder, Contents(folder / WEIGHTS))
        for folder in (Path(nano_report.output), NANO_BUNDLE)
    )
    read = {name for name in found if name.startswith(PREFIX)}  # by the kernels: so equal scores
    assert read == {name for name in expected if name.startswith(PREFIX)}
    # Equal integers and scales, but where sums on another CPU end otherwise and another scale is a row's best.
    assert {name: found[name].shape for name in read} == {name: expected[name].shape for name in read}
    differing = sum(np.count_nonzero(found[name] != expected[name]) for name in read)
    assert differing < sum(expected[name].size for name in read) / 1000


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_kernels), "onnx"])
def test_the_embedded_model_scores_as_the_committed_bundle(nano_report: ExportReport, backend: BackendName) -> None:
    with (
        Reranker.load(nano_report.output, backend=backend) as ours,
        Reranker.load(NANO_BUNDLE, backend=backend) as committed,
    ):
        scores, expected = (reranker.score_pairs(PAIRS, raw_scores=True) for reranker in (ours, committed))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=0.02)  # logits; int8 itself is off by ten times as much


def test_verify_passes(nano_report: ExportReport, few_samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", nano_report.output, "--checkpoint", str(NANO_CHECKPOINT), "--pairs", str(few_samples)]
    assert main(["verify", *options]) == 0
    assert "passed" in capsys.readouterr().out


@needs_kernels
@pytest.mark.parametrize("family", NATIVE)
def test_known_encoders_run_in_our_kernels(tiny: Tiny, family: Family) -> None:
    manifest = read_manifest(tiny.bundle(family, "int8"))[0]
    assert (manifest.recipe.scheme, manifest.encoder is not None) == ("group", True)
    with Reranker.load(tiny.bundle(family, "int8")) as reranker:
        assert reranker.info().backend == "native"


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_kernels), "onnx"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("family", NATIVE)
def test_a_score_depends_on_its_pair_alone(tiny: Tiny, family: Family, precision: Precision, backend: BackendName) -> None:
    if (precision, backend) == ("fp32", "native"):
        pytest.skip("the kernels run int8 alone")
    pairs = [*PAIRS, *reversed(PAIRS), *PAIRS[:3]]
    with Reranker.load(tiny.bundle(family, precision), threads=2, backend=backend) as reranker:
        together = reranker.score_pairs(pairs)
        alone = [reranker.score(query, [document])[0] for query, document in pairs]
    np.testing.assert_array_equal(together, np.array(alone, np.float32))


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "ettin"])
def test_what_sentence_transformers_6_saves_scores_as_it_does(tiny: Tiny, family: Family, tmp_path: Path) -> None:
    theirs = sentence_transformers.CrossEncoder(str(tiny.checkpoint(family)), device="cpu", local_files_only=True)
    theirs.save_pretrained(str(tmp_path / "saved"))
    loose_export(tiny, tmp_path / "bundle", checkpoint=tmp_path / "saved", precision="fp32")
    expected = theirs.predict(list(PAIRS), batch_size=1, show_progress_bar=False)
    with Reranker.load(tmp_path / "bundle") as reranker:
        np.testing.assert_allclose(reranker.score_pairs(PAIRS), expected, rtol=0, atol=1e-4)


# What transformers 5 forgets


def reference_of(folder: Path) -> tuple[PairEncoder, ReferenceEncoder]:
    checkpoint = read_checkpoint(folder)
    encoder = PairEncoder(Tokenizer.from_file(str(folder / "tokenizer.json")), checkpoint.max_length)
    return encoder, ReferenceEncoder(checkpoint, encoder)


def test_the_reference_passes_the_token_types_that_a_generic_class_forgets() -> None:
    # Without them the logits of this model are off by up to 9.9, the same for PyTorch and ONNX.
    encoder, reference = reference_of(NANO_CHECKPOINT)
    found = reference.check(PAIRS, encoder.encode(PAIRS))
    assert all(set(pair.token_type_ids.tolist()) == {0, 1} for pair in found)


def test_a_folder_whose_class_passes_no_types_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in tiny.checkpoint("bert").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    edit_json(folder / "tokenizer_config.json", {"model_input_names": ["input_ids", "attention_mask"]})
    with pytest.raises(CheckpointError, match="passes other token types to the model"):
        export(folder, tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("family", NATIVE)
def test_the_reference_reads_tokenizer_json_as_it_is(tiny: Tiny, family: Family) -> None:
    # transformers 5 builds XLM-R's anew from its pieces, without the normalizer, and gives other ids for these.
    encoder, reference = reference_of(tiny.checkpoint(family))
    pairs = [(" x ", "ｆｕｌｌ"), ("a  b", "e\u0301 🙂"), ("Hvem?", "  Oslo  ")]
    reference.check(pairs, encoder.encode(pairs))


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "new", "jina-bert", "modernbert", "ettin"])
def test_a_plain_export_is_what_torch_makes(tiny: Tiny, family: Family, tmp_path: Path) -> None:
    assert check_plain(tiny, family, tmp_path / "plain").by.startswith(f"torch.onnx {version('torch')}")
