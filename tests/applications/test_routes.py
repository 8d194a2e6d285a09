"""Both ways to a graph on one checkpoint of every family: optimum beside transformers 4, in .venv, and PyTorch's exporter here.

What is made here is held to PyTorch and to transformers' own class. What optimum made there of the same checkpoint is compared
with it: the same layout, and logits no further apart than the fp32 gate allows a graph and PyTorch.
"""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxscript
import pytest
import sentence_transformers
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

from builders import NORWEGIAN, PAIRS, REIMPLEMENTED, Family, native_checkpoint
from checkpoints import follow
from conftest import Tiny
from exporting import loose_export, passes
from modernbert import modernbert_checkpoint
from paths import ROOT
from published import JINA, tiny_published_checkpoint
from raskrank import CheckpointError, Reranker
from raskrank.bundle import read_manifest
from raskrank.checkpoint import read_checkpoint
from raskrank.encoding import PairEncoder
from raskrank.manifest import MODEL
from raskrank_export import ExportReport
from raskrank_export.written import WRITERS

FAMILIES: tuple[Family, ...] = get_args(Family)
JINA_2 = "jina-reranker-v2"
# Folded into one logit in the traced model, and in the graph that is written.
FOLDED = ("bert, two labels", "modernbert, two labels")
CASES = (*FAMILIES, JINA_2, *FOLDED)
# transformers has no class for the others; that of jina-reranker-v2 has other names for its tensors.
OWN = [case for case in CASES if case not in (*REIMPLEMENTED, JINA_2, "ettin")]
LABELS: dict[str, Any] = {"id2label": {"0": "no", "1": "relevant"}, "label2id": {"no": 0, "relevant": 1}}
TEXTS = [*PAIRS, (NORWEGIAN[0], " ".join(NORWEGIAN)), ("", "")]
EXACT = 1e-4  # the same sums in another order

OTHER = ROOT / ".venv" / "bin" / "python"
THERE = """
import gc, json, sys
import optimum.exporters.onnx
from raskrank_export import Thresholds, export, tracing

assert tracing.route() == "optimum", tracing.route()
gc.freeze()  # as tests/conftest.py
loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)
for checkpoint, output, options in json.loads(sys.argv[1]):
    export(checkpoint, output, precision="fp32", thresholds=loose, **options)
"""


class Cases:
    """A checkpoint for each of CASES, and what is exported of it here, when first asked for."""

    def __init__(self, tiny: Tiny, root: Path) -> None:
        self.tiny, self.root = tiny, root
        made: dict[str, Callable[[Path], Path]] = {
            JINA_2: lambda folder: tiny_published_checkpoint(folder, JINA),
            FOLDED[0]: lambda folder: native_checkpoint(folder, "bert", labels=2, config_updates=LABELS),
            FOLDED[1]: lambda folder: modernbert_checkpoint(folder, **LABELS),
        }
        self.checkpoints = {case: make(root / case / "checkpoint") for case, make in made.items()}
        self.checkpoints |= {family: tiny.checkpoint(family) for family in FAMILIES}

    def options(self, case: str) -> dict[str, str]:
        return {"accept_license": "cc-by-nc-4.0"} if case == JINA_2 else {}

    def there(self, case: str) -> Path:
        return self.root / case / "there"

    @functools.cache  # noqa: B019  one instance
    def here(self, case: str) -> ExportReport:
        folder = self.root / case / "here"
        return loose_export(self.tiny, folder, checkpoint=self.checkpoints[case], precision="fp32", **self.options(case))

    def logits(self, case: str) -> Any:
        with Reranker.load(self.here(case).output, backend="onnx") as reranker:
            return reranker.score_pairs(TEXTS, raw_scores=True)


@pytest.fixture(scope="module")
def cases(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    root = tmp_path_factory.mktemp("routes")
    for case in CASES:
        (root / case).mkdir()
    return Cases(tiny, root)


@pytest.fixture(scope="module", autouse=True)
def other_route(cases: Cases) -> Iterator[Callable[[], None]]:
    """Begins at once, while the first tests export here. Gives what waits for its end."""
    if not OTHER.exists():
        skip = pytest.fail if os.environ.get("RASKRANK_APPLICATIONS") == "require" else pytest.skip
        yield lambda: skip(f"needs {OTHER}, with transformers 4: make test")
        return
    samples = {"samples": str(cases.tiny.samples)}
    asked = [(str(cases.checkpoints[case]), str(cases.there(case)), samples | cases.options(case)) for case in CASES]
    command = [str(OTHER), "-c", THERE, json.dumps(asked)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:

        @functools.cache
        def finished() -> None:
            said, _ = process.communicate(timeout=200)
            assert process.returncode == 0, said

        yield finished
        process.kill()


@pytest.mark.parametrize("case", CASES)
def test_a_family_is_exported_and_scores_as_pytorch_does(cases: Cases, case: str) -> None:
    report = cases.here(case)
    manifest = report.manifest
    expected: Mapping[str, int] = passes(2)  # of a traced graph
    if manifest.architecture.startswith("ModernBert"):
        expected = {"drop_mask": 4, "merge_projections": 4, "hoist_first_token": 1, "local_attention": 2}
    elif manifest.architecture in WRITERS:
        expected = {"drop_mask": 2, "merge_projections": 2, "hoist_first_token": 1}
    assert (report.left, manifest.recipe.passes) == ((), expected)
    assert report.fp32_parity.fp32_error <= manifest.parity["thresholds"]["max_fp32_error"] == 10
    opened = onnx.load(str(Path(report.output) / MODEL), load_external_data=False)
    assert [value.name for value in opened.graph.input] == list(manifest.inputs)
    label = manifest.source.relevant_label
    assert label == ("relevant" if case in FOLDED else None)
    with Reranker.load(backend="torch", checkpoint=cases.checkpoints[case]) as reference:
        expected_logits = reference.score_pairs(TEXTS, raw_scores=True)
    np.testing.assert_allclose(cases.logits(case), expected_logits, rtol=0, atol=10 * manifest.parity["fp32"]["rounding"])


@pytest.mark.parametrize("case", OWN)
def test_it_scores_as_transformers_own_class_does(cases: Cases, case: str) -> None:
    checkpoint = read_checkpoint(cases.checkpoints[case])
    auto: Any = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(checkpoint.folder, attn_implementation="eager").eval()
    encoder = PairEncoder(Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json")), checkpoint.max_length)
    expected = []
    for pair in encoder.encode(TEXTS):
        feeds = {"input_ids": torch.from_numpy(pair.input_ids)[None]}
        if checkpoint.type_vocab_size > 1:
            feeds["token_type_ids"] = torch.from_numpy(pair.token_type_ids)[None]
        with torch.inference_mode():
            logits = model(**feeds, attention_mask=torch.ones_like(feeds["input_ids"])).logits
        expected.append(float(logits[0, 1] - logits[0, 0]) if case in FOLDED else float(logits[0, 0]))
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(cases.logits(case), expected, rtol=0, atol=EXACT)


def test_a_head_in_modules_scores_as_sentence_transformers_does(cases: Cases) -> None:
    theirs = sentence_transformers.CrossEncoder(str(cases.checkpoints["ettin"]), device="cpu", local_files_only=True)
    expected = theirs.predict(TEXTS, batch_size=1, show_progress_bar=False)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(cases.logits("ettin"), expected, rtol=0, atol=EXACT)


def test_what_a_message_suggests_for_pickled_modules_works(cases: Cases, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(cases.checkpoints["ettin"], tmp_path / "ettin"))
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(CheckpointError, match="Only safetensors are read") as refused:
        read_checkpoint(folder)
    made, expected = read_checkpoint(follow(str(refused.value), tmp_path)), read_checkpoint(cases.checkpoints["ettin"])
    assert (made.head, made.activation, made.max_length) == (expected.head, expected.activation, expected.max_length)


@pytest.mark.parametrize("case", CASES)
def test_the_other_route_gives_a_bundle_that_scores_the_same(cases: Cases, other_route: Callable[[], None], case: str) -> None:
    other_route()
    here, (there, _) = cases.here(case).manifest, read_manifest(cases.there(case))
    assert (here.versions["onnxscript"], "onnxscript" in there.versions) == (onnxscript.__version__, False)
    assert [int(manifest.versions["transformers"].partition(".")[0]) for manifest in (here, there)] == [5, 4]
    for name in ("source", "architecture", "parameters", "inputs", "activation", "max_length", "pad_id"):
        assert getattr(here, name) == getattr(there, name), name
    ours, theirs = (manifest.recipe.passes | {"drop_mask": 0} for manifest in (here, there))  # one is traced without a mask
    assert ours == theirs
    with Reranker.load(cases.there(case), backend="onnx") as reranker:
        expected = reranker.score_pairs(TEXTS, raw_scores=True)
    allowed = 10 * min(manifest.parity["fp32"]["rounding"] for manifest in (here, there))
    np.testing.assert_allclose(cases.logits(case), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize("case", CASES)
def test_a_graph_that_is_written_is_the_same_graph(cases: Cases, other_route: Callable[[], None], case: str) -> None:
    other_route()
    folders = Path(cases.here(case).output), cases.there(case)
    graphs = [onnx.load(str(folder / MODEL), load_external_data=False).graph for folder in folders]
    ours, theirs = ([(node.op_type, [*node.input], [*node.output]) for node in graph.node] for graph in graphs)
    # One that is traced is spelled otherwise, or this comparison would see nothing.
    assert (ours == theirs) == (cases.here(case).manifest.architecture in WRITERS)
