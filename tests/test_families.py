"""Every family of encoders: exported, gated, ranked and verified on its layout, and none in the place of another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest

from builders import NORWEGIAN, PAIRS, REIMPLEMENTED, ROBERTA_LIKE, Family, native_checkpoint, write_json
from checkpoints import edit_json
from conftest import MAKERS, Tiny
from exporting import loose_export
from processes import run_script
from published import JINA, tiny_published_checkpoint
from raskrank import Reranker
from raskrank.activation import sigmoid
from raskrank.checkpoint import read_checkpoint
from raskrank.checkpoint.families import FAMILIES, OF_MODEL_TYPE
from raskrank.errors import CheckpointError
from raskrank.torch_backend import load_model

KINDS: tuple[Family, ...] = tuple(family for family in get_args(Family) if family not in MAKERS)  # test_modernbert.py has those
# What our own kernels do not know of the others; they run CamemBERT, which is RoBERTa's encoder.
UNKNOWN: dict[Family, str] = {
    "mpnet": "its MultiHeadAttention is used otherwise than they know",  # positions are added to scores
    "albert": "its embedding is 32 wide and its layers 64",  # and its Gelu is tanh's
    "deberta-v2": "they do not know DebertaV2ForSequenceClassification",
    "new": "they do not know NewForSequenceClassification",
    "jina-bert": "they do not know JinaBertForSequenceClassification",
}


def test_the_builders_know_every_family() -> None:
    assert {family.model_type for family in FAMILIES} == {*KINDS, "modernbert"}


def published_logits(checkpoint: Path, pairs: list[tuple[str, str]], length: int) -> list[float]:
    """What transformers by itself gives, one pair a run, texts cut by its tokenizer. Where it has no class: the reference."""
    import torch
    import transformers

    auto: Any = transformers
    tokenizer = auto.AutoTokenizer.from_pretrained(checkpoint)
    found = read_checkpoint(checkpoint)
    if found.model_type in REIMPLEMENTED:
        model = load_model(found)
    else:
        model = auto.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    logits = []
    with torch.inference_mode():
        for query, document in pairs:
            # Said, since ALBERT's class of transformers 5 forgets the token types that it was trained with.
            options = {"max_length": length, "return_token_type_ids": found.type_vocab_size > 1, "return_tensors": "pt"}
            given = tokenizer([query], [document], truncation="longest_first", **options)
            logits.append(float(model(**given).logits[0, 0]))
    return logits


@pytest.mark.parametrize("family", KINDS)
def test_a_bundle_scores_as_transformers_does(tiny: Tiny, family: Family, tmp_path: Path) -> None:
    checkpoint = tiny.checkpoint(family)
    report = loose_export(tiny, tmp_path / "fp32", checkpoint=checkpoint, precision="fp32")
    assert report.fp32_parity.max_logit_difference < 1e-4
    assert report.fp32_parity.logit_spread > 0.1  # else the number above says little
    assert report.left == ()
    passes = report.manifest.recipe.passes
    assert (passes["hoist_first_token"], passes["merge_projections"]) == (1, 2)
    pairs = [*PAIRS, (NORWEGIAN[0], " ".join(NORWEGIAN)), ("", ""), ("", "a")]
    with Reranker.load(tmp_path / "fp32") as reranker:
        scores = reranker.score_pairs(pairs)
    expected = sigmoid(np.array(published_logits(checkpoint, pairs, 128), np.float32))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert expected.max() - expected.min() > 0.1


@pytest.mark.parametrize("family", KINDS)
def test_int8_ranks_verifies_and_says_what_runs_it(tiny: Tiny, family: Family, tmp_path: Path) -> None:
    report = loose_export(tiny, tmp_path / "int8", checkpoint=tiny.checkpoint(family))
    reason = UNKNOWN.get(family)
    assert (report.onnxruntime_alone is None) == (reason is None)
    assert (report.onnxruntime_alone or "").startswith(reason or "")
    assert report.manifest.recipe.scheme == ("group" if reason is None else "row")
    with Reranker.load(tmp_path / "int8") as reranker:
        hits = reranker.rank(NORWEGIAN[0], [NORWEGIAN[13], NORWEGIAN[1], ""])
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        parity = reranker.verify(list(PAIRS))
    assert parity.max_logit_difference < 1  # of logits that spread over 2, by weights that no training made even
    assert np.corrcoef(parity.reference_logits, parity.candidate_logits)[0, 1] > 0.9


def test_an_embedding_that_is_narrower_than_the_layers_leaves_electra_to_onnxruntime(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = native_checkpoint(tmp_path / "checkpoint", "electra", embedding=32)
    report = loose_export(tiny, tmp_path / "int8", checkpoint=checkpoint)
    assert report.onnxruntime_alone == "its embedding is 32 wide and its layers 64"
    assert report.manifest.recipe.scheme == "row"
    assert report.fp32_parity.max_logit_difference < 1e-4
    pairs = list(PAIRS[:6])
    with Reranker.load(tmp_path / "int8") as reranker:
        scores = reranker.score_pairs(pairs)
    expected = sigmoid(np.array(published_logits(checkpoint, pairs, 128), np.float32))
    np.testing.assert_allclose(scores, expected, atol=0.1)
    assert expected.max() - expected.min() > 0.5


def test_layers_that_share_their_weights_share_them_in_a_bundle(tiny: Tiny, tmp_path: Path) -> None:
    sizes = []
    for layers in (2, 4):
        folder = native_checkpoint(tmp_path / f"checkpoint-{layers}", "albert", layers=layers)
        loose_export(tiny, tmp_path / f"{layers}", checkpoint=folder)
        sizes.append((tmp_path / f"{layers}" / "model.onnx.data").stat().st_size)
    assert sizes[0] == sizes[1]


def test_mpnet_looks_its_distances_up(tiny: Tiny) -> None:
    # A logarithm that another machine rounds otherwise would put a distance of 16, 32 or 64 into another bucket.
    model = onnx.load(str(tiny.bundle("mpnet", "fp32") / "model.onnx"), load_external_data=False)
    assert not {"Log", "Less", "Abs"} & {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("dressed", [kind for kind in KINDS if kind not in REIMPLEMENTED])
@pytest.mark.parametrize("worn", [kind for kind in KINDS if kind not in REIMPLEMENTED])
def test_no_family_passes_for_another(copy: Callable[..., Path], dressed: Family, worn: Family) -> None:
    ours, theirs = OF_MODEL_TYPE[dressed], OF_MODEL_TYPE[worn]
    folder = copy(dressed)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    spelled = {theirs.spelled(name): config[ours.spelled(name)] for name in ours.spelling.keys() | theirs.spelling.keys()}
    edit_json(folder / "config.json", spelled | {"architectures": [theirs.architecture], "model_type": worn})
    if ours.tensors == theirs.tensors:
        assert read_checkpoint(folder).architecture == theirs.architecture
        return
    # DeBERTa's config has keys, and BERT's numbers, that the others cannot have.
    refused = r"is missing" if "deberta-v2" not in (dressed, worn) else r"is missing|is not supported|must be"
    with pytest.raises(CheckpointError, match=refused):
        read_checkpoint(folder)


def test_camembert_and_roberta_compute_the_same(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.checkpoint("camembert"), tmp_path / "relabelled"))
    edit_json(folder / "config.json", {"architectures": ["RobertaForSequenceClassification"], "model_type": "roberta"})
    found, expected = (published_logits(checkpoint, list(PAIRS), 128) for checkpoint in (folder, tiny.checkpoint("camembert")))
    assert found == pytest.approx(expected, abs=1e-5)
    assert read_checkpoint(folder).max_length == 128


@pytest.mark.parametrize("family", sorted(ROBERTA_LIKE))
def test_positions_before_the_first_token_are_not_counted(copy: Callable[..., Path], family: Family) -> None:
    folder = copy(family)
    edit_json(folder / "tokenizer_config.json", {"model_max_length": ...})
    assert read_checkpoint(folder).max_length == json.loads((folder / "config.json").read_text())["max_position_embeddings"] - 2


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"num_hidden_layers": 10**12}, r"must lie between num_hidden_groups, 1, and 100"),
        ({"num_hidden_groups": 3}, r"must lie between num_hidden_groups, 3, and 100"),
        ({"inner_group_num": 2}, r"albert_layers\.1.* is missing"),
        ({"embedding_size": 8}, r"word_embeddings\.weight has shape"),
    ],
)
def test_shared_layers_are_bounded(copy: Callable[..., Path], updates: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(copy("albert", **updates))


NO_CODE = """
    import gc, json, pickle, sys
    from pathlib import Path
    from raskrank import Reranker
    from raskrank_export import Thresholds, export
    import optimum.exporters.onnx, transformers  # what they import may unpickle, before there is a checkpoint

    samples, output, *checkpoints = sys.argv[1:]
    loose, broken = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1), []

    def hook(event, arguments):
        if event not in ("pickle.find_class", "open", "exec", "import"):
            return
        text = str(arguments[0])
        if event == "pickle.find_class":
            broken.append((event, text))
        inside = any(text.startswith(folder) for folder in checkpoints)
        if event == "open" and inside and not text.endswith((".json", ".safetensors", ".md")):
            broken.append((event, text))
        if event in ("exec", "import") and ("evil" in text or any(folder in text for folder in checkpoints)):
            broken.append((event, text))

    sys.addaudithook(hook)
    gc.freeze()  # exports collect garbage, and need not look for it in what is imported
    for number, checkpoint in enumerate(checkpoints):
        export(checkpoint, f"{output}/{number}", samples=samples, thresholds=loose, accept_license="cc-by-nc-4.0")
        with Reranker.load(f"{output}/{number}") as reranker:
            reranker.verify([("Hvem kan Python?", "Kari kan Python.")])
    assert not broken, broken
    assert "sentence_transformers" not in sys.modules
    pickle.loads(pickle.dumps(Path))
    assert broken  # the hook does hear
"""


def test_no_code_of_a_checkpoint_is_run_and_no_pickle_is_read(tiny: Tiny, tmp_path: Path) -> None:
    folders, jina = [], tiny_published_checkpoint(tmp_path / "published", JINA)  # whose tensors have other names
    for checkpoint in (*map(tiny.checkpoint, (*KINDS, *MAKERS)), jina):
        folder = Path(shutil.copytree(checkpoint, tmp_path / f"copy-{checkpoint.name}"))
        for part in (folder, folder / "2_Dense"):  # sentence-transformers' modules may bring code and pickles of their own
            part.mkdir(exist_ok=True)
            (part / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
            (part / "modeling_evil.py").write_text("raise SystemExit('run')")
        folders.append(str(folder))
    arguments = (str(tiny.samples), str(tmp_path), *folders)
    run_script(tmp_path, NO_CODE, *arguments, deadline=240, silent=False, warnings=())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", [*KINDS, "modernbert"])
def test_weights_of_any_float_type_in_shards(copy: Callable[..., Path], family: Family, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = copy(family)
    weights = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(weights), dict[str, str]()
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    checkpoint = read_checkpoint(folder)
    assert checkpoint.parameters == sum(tensor.numel() for tensor in weights.values())
    loaded = load_model(checkpoint).state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in weights.items())


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("family", ["camembert", "electra", "distilbert", "mpnet"])
def test_what_sentence_transformers_saves_scores_as_it_does(tiny: Tiny, family: Family, labels: int, tmp_path: Path) -> None:
    library: Any = pytest.importorskip("sentence_transformers")
    folder = native_checkpoint(tmp_path / "made", family, labels=labels)
    theirs = library.CrossEncoder(str(folder), device="cpu")
    theirs.save_pretrained(str(tmp_path / "saved"))
    label = "LABEL_1" if labels == 2 else None
    loose_export(tiny, tmp_path / "bundle", checkpoint=tmp_path / "saved", precision="fp32", relevant_label=label)
    scores = theirs.predict(list(PAIRS), apply_softmax=labels == 2, show_progress_bar=False)
    with Reranker.load(tmp_path / "bundle") as reranker:
        np.testing.assert_allclose(reranker.score_pairs(PAIRS), scores if labels == 1 else scores[:, 1], atol=1e-4)


@pytest.mark.parametrize("family", ["camembert", "electra", "distilbert", "mpnet", "albert"])
def test_a_smaller_vocabulary_scores_the_same(tiny: Tiny, family: Family, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(text for pair in PAIRS for text in pair) + "\n", "utf-8")
    checkpoint = tiny.checkpoint(family)
    report = loose_export(tiny, tmp_path / "small", checkpoint=checkpoint, precision="fp32", trim_vocab=[corpus])
    vocabulary = report.manifest.vocabulary
    assert vocabulary is not None
    assert vocabulary.kept < vocabulary.of
    width = json.loads((checkpoint / "config.json").read_text("utf-8")).get("embedding_size", report.manifest.hidden_size)
    assert read_checkpoint(checkpoint).parameters - report.manifest.parameters == (vocabulary.of - vocabulary.kept) * width
    with Reranker.load(tmp_path / "small") as small, Reranker.load(tiny.bundle(family, "fp32")) as whole:
        np.testing.assert_array_equal(small.score_pairs(PAIRS), whole.score_pairs(PAIRS))
