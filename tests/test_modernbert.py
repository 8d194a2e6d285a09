"""ModernBERT with transformers' head and with sentence-transformers' modules: read, computed, made into graphs, refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from builders import PAIRS, Family, write_json
from checkpoints import check_refused, drop_tensors, edit_json
from conftest import LOOSE, Tiny
from modernbert import CLASSIFIER, as_transformers_5, edit_module, modernbert_checkpoint, modular_checkpoint
from published import GTE, MODERNBERT, MODERNBERT_PARAMETERS
from raskrank import Reranker
from raskrank.checkpoint import Checkpoint, read_checkpoint
from raskrank.checkpoint.modernbert import classifier_tensors, encoder_tensors
from raskrank.checkpoint.modules import Dense, Head, Norm
from raskrank.checkpoint.registry import known, known_models
from raskrank.encoding import EncodedPair
from raskrank.errors import CheckpointError, Incompatible, NotACrossEncoder, ParityError
from raskrank.gate import MIN_ROUNDING
from raskrank.torch_backend import TorchBackend, quiet
from raskrank_export import export
from raskrank_export.graph import LeanGraph, make_graph, save
from raskrank_export.progress import Silent
from raskrank_export.rounding import fp32_rounding
from raskrank_export.written import WRITERS, modernbert
from raskrank_export.written.writer import GraphWriter

# One block, its neighbours, several; with a window of 16 tokens and blocks of 16, whole up to 64.
LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 79, 80, 81, 127, 128)
EXACT = 2e-5  # the same sums in another order, of logits of up to 8
PASSES = {"drop_mask": 4, "merge_projections": 4, "hoist_first_token": 1, "local_attention": 2}
BIASED = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True}


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Callable[[Family], Path]:
    """A copy of a tiny checkpoint, to change."""
    return lambda family: Path(shutil.copytree(tiny.checkpoint(family), tmp_path / family))


def ids_of(length: int, pairs: int = 3) -> Any:
    return np.random.default_rng(length).integers(0, 500, (pairs, length))


def run(model: onnx.ModelProto | Path, ids: Any, *outputs: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run([*outputs] or None, {"input_ids": ids})[0]


def graph_of(folder: Path) -> tuple[TorchBackend, LeanGraph]:
    """The reference, and what is written of it beside the checkpoint."""
    checkpoint = read_checkpoint(folder)
    return TorchBackend(checkpoint), make_graph(TorchBackend(checkpoint), checkpoint, folder.with_name("scratch"))


# What a folder says


def test_both_spellings_of_a_config_are_one(folder: Callable[[Family], Path]) -> None:
    four = folder("modernbert")
    expected = read_checkpoint(four)
    written = json.loads((four / "config.json").read_text("utf-8"))
    write_json(four / "config.json", as_transformers_5(written))
    assert read_checkpoint(four) == expected
    assert (expected.config["global_rope_theta"], expected.config["local_rope_theta"]) == (160000.0, 10000.0)
    edit_json(four / "config.json", {"rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 5e5}, "sliding_attention": {"rope_theta": 7e4}
    }})  # fmt: skip
    other = read_checkpoint(four)
    assert (other.config["global_rope_theta"], other.config["local_rope_theta"]) == (5e5, 7e4)


def test_defaults_are_those_of_transformers(folder: Callable[[Family], Path]) -> None:
    with quiet():
        from transformers import ModernBertConfig
    default = ModernBertConfig()
    checkpoint = folder("modernbert")
    config = read_checkpoint(checkpoint).config
    removed = {key: ... for key in config if key not in ("num_labels", "vocab_size", "pad_token_id", "hidden_size")}
    sizes = {key: getattr(default, key) for key in ("num_hidden_layers", "num_attention_heads", "intermediate_size")}
    edit_json(checkpoint / "config.json", removed)
    from raskrank.checkpoint import read_configuration

    edit_json(checkpoint / "config.json", {"hidden_size": 768})
    found = read_configuration(checkpoint).config
    for key in removed:
        assert found[key] == getattr(default, key), key
    assert sizes.items() <= found.items()


def test_the_head_is_read_from_its_modules(tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint("ettin"))
    assert checkpoint.architecture == "ModernBertModel"
    assert (checkpoint.activation, checkpoint.max_length) == ("identity", 128)
    assert checkpoint.head == Head(
        pooling="cls",
        modules=(
            Dense(folder="2_Dense", inputs=64, outputs=64, bias=False, activation="gelu"),
            Norm(folder="3_LayerNorm", size=64),
            Dense(folder="4_Dense", inputs=64, outputs=1, bias=True, activation="identity"),
        ),
    )
    model = TorchBackend(checkpoint).model
    assert checkpoint.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("missing", ["model_type", "architectures"])
def test_one_name_of_the_encoder_is_enough(folder: Callable[[Family], Path], tiny: Tiny, tmp_path: Path, missing: str) -> None:
    ettin = folder("ettin")
    expected = read_checkpoint(ettin)
    edit_json(ettin / "config.json", {missing: ...})
    assert read_checkpoint(ettin) == expected
    export(ettin, tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE, precision="fp32")
    with Reranker.load(tmp_path / "bundle") as found, Reranker.load(tiny.bundle("ettin", "fp32")) as whole:
        np.testing.assert_array_equal(found.score_pairs(PAIRS), whole.score_pairs(PAIRS))


def test_the_key_of_absolute_positions_is_not_read_without_a_model_type_either(folder: Callable[[Family], Path]) -> None:
    modern = folder("modernbert")
    edit_json(modern / "config.json", {"model_type": ..., "position_embedding_type": "sans_pos"})
    assert read_checkpoint(modern).model_type == "modernbert"


def test_the_encoders_module_may_allow_fewer_tokens(folder: Callable[[Family], Path]) -> None:
    ettin = folder("ettin")
    edit_json(ettin / "sentence_bert_config.json", {"max_seq_length": 77})
    assert read_checkpoint(ettin).max_length == 77


def test_older_names_of_pooling_are_read(folder: Callable[[Family], Path]) -> None:
    ettin = folder("ettin")
    modes = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    write_json(ettin / "1_Pooling" / "config.json", {"word_embedding_dimension": 64} | modes)
    head = read_checkpoint(ettin).head
    assert head is not None
    assert head.pooling == "mean"


# What it computes


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_reference_is_transformers_own_class(tmp_path: Path, pooling: str) -> None:
    checkpoint = modernbert_checkpoint(tmp_path, classifier_pooling=pooling)
    import torch

    with quiet():
        from transformers import ModernBertForSequenceClassification
    own = ModernBertForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    backend = TorchBackend(read_checkpoint(checkpoint))
    for length in LENGTHS:
        ids = ids_of(length)
        with torch.inference_mode():
            expected = own(input_ids=torch.from_numpy(ids), attention_mask=torch.ones(ids.shape)).logits[:, 0].numpy()
        np.testing.assert_allclose(backend.logits(ids, ids), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_reference_of_modules_is_what_sentence_transformers_computes(tmp_path: Path, pooling: str) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    if not hasattr(sentence_transformers, "base"):
        pytest.skip("sentence-transformers before 5.4 has no cross-encoders of modules")
    checkpoint = modular_checkpoint(tmp_path / "ettin", pooling=pooling, max_position_embeddings=512)
    same = Path(shutil.copytree(checkpoint, tmp_path / "as-transformers-4"))
    four = {"local_rope_theta": 160000.0, "global_rope_theta": 160000.0, "global_attn_every_n_layers": 3}
    edit_json(same / "config.json", four | {"rope_parameters": ..., "layer_types": ...})  # 4 ignores 5's spelling
    edit_json(same / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    theirs = sentence_transformers.CrossEncoder(str(same), device="cpu", local_files_only=True)
    expected = theirs.predict(list(PAIRS), batch_size=1, show_progress_bar=False)
    assert np.ptp(expected) > 1
    with Reranker.load(backend="torch", checkpoint=checkpoint) as reranker:
        np.testing.assert_allclose(reranker.score_pairs(PAIRS), expected, rtol=0, atol=EXACT)


def test_what_fp32_rounds_is_measured(tiny: Tiny) -> None:
    # Not with attention that misreads its mask in float64, which gave differences of whole logits.
    families: tuple[Family, ...] = ("modernbert", "ettin")
    for family in families:
        checkpoint = read_checkpoint(tiny.checkpoint(family))
        backend, lengths = TorchBackend(checkpoint), (5, 40, 100)
        encoded = [EncodedPair(ids_of(length, 1)[0], np.zeros(length, np.int64), False) for length in lengths]
        logits = np.array([backend.logits(pair.input_ids[None], pair.token_type_ids[None])[0] for pair in encoded])
        assert MIN_ROUNDING <= fp32_rounding(checkpoint, encoded, logits, Silent()) < EXACT


# Its graph


@pytest.mark.parametrize(
    ("changes", "layers", "first_alone", "in_blocks"),
    [
        ({}, 4, 1, 2),
        ({"classifier_pooling": "mean"}, 4, 0, 2),
        ({"num_hidden_layers": 3}, 3, 1, 1),  # the last layer is local: its one query needs no blocks
        ({"num_hidden_layers": 3, "classifier_pooling": "mean", "hidden_activation": "silu"}, 3, 0, 2),
        ({"num_hidden_layers": 2, "local_attention": 1}, 2, 1, 0),
        ({"num_hidden_layers": 1, "classifier_activation": "relu"}, 1, 1, 0),
        ({"global_attn_every_n_layers": 1, "hidden_activation": "gelu_pytorch_tanh"}, 4, 1, 0),
        ({"local_attention": 2, "hidden_activation": "quick_gelu", "classifier_activation": "tanh"}, 4, 1, 2),
        ({"local_attention": 7, "hidden_activation": "sigmoid"}, 4, 1, 2),
        ({"local_attention": 40, "norm_eps": 1e-3}, 4, 1, 2),
        ({"local_attention": 41, "hidden_activation": "relu"}, 4, 1, 2),
        (BIASED, 4, 1, 2),
        (BIASED | {"num_hidden_layers": 3}, 3, 1, 1),
    ],
    ids=["cls", "mean", "local", "local-mean", "itself", "one", "global", "narrow", "odd", "wide", "wide-odd", "biased",
         "biased-local"],
)  # fmt: skip
def test_the_graph_is_exact_and_lean(
    tmp_path: Path, changes: dict[str, Any], layers: int, first_alone: int, in_blocks: int
) -> None:
    backend, lean = graph_of(modernbert_checkpoint(tmp_path / "checkpoint", **changes))
    everywhere = {"drop_mask": layers, "merge_projections": layers, "hoist_first_token": first_alone}
    assert lean.passes == everywhere | ({"local_attention": in_blocks} if in_blocks else {})
    assert [name.partition(":")[0] for name in lean.left] == ([] if first_alone else ["hoist_first_token"])
    assert lean.inputs == ("input_ids",)
    assert isinstance(lean.kernels, str)
    assert_exact(backend, lean.model)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_graph_of_modules_is_exact(tmp_path: Path, pooling: str) -> None:
    backend, lean = graph_of(modular_checkpoint(tmp_path / "checkpoint", pooling=pooling))
    assert lean.passes["hoist_first_token"] == (pooling == "cls")
    assert_exact(backend, lean.model)


def assert_exact(backend: TorchBackend, model: onnx.ModelProto) -> None:
    """Of every length what the reference says, and of a pair among others the same bits as of the pair alone."""
    onnx.checker.check_model(model)
    for length in LENGTHS:
        ids = ids_of(length)
        found = run(model, ids)[:, 0]
        np.testing.assert_allclose(found, backend.logits(ids, ids), rtol=0, atol=EXACT)
        alone = np.concatenate([run(model, ids[row : row + 1])[:, 0] for row in range(len(ids))])
        assert found.tobytes() == alone.tobytes()


@pytest.mark.slow
def test_long_texts_are_exact(tmp_path: Path) -> None:
    # As the smallest Ettin.
    sizes: dict[str, Any] = {"num_hidden_layers": 7, "hidden_size": 256, "intermediate_size": 384, "local_attention": 128}
    backend, lean = graph_of(modernbert_checkpoint(tmp_path / "checkpoint", max_position_embeddings=8192, **sizes))
    (tmp_path / "lean").mkdir()
    save(lean.model, tmp_path / "lean")
    for length in (256, 257, 2048, 8191, 8192):
        ids = ids_of(length, 1)
        found = run(tmp_path / "lean" / "model.onnx", ids)[:, 0]
        np.testing.assert_allclose(found, backend.logits(ids, ids), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_published_width_is_exported(tiny: Tiny, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {key: value for key, value in MODERNBERT[GTE].items() if key != "vocab_size"}
    checkpoint = modernbert_checkpoint(tmp_path / "gte", **sizes, vocab_size=50368, local_attention=128)
    report = export(checkpoint, tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE, max_length=2048)
    assert report.manifest.parameters == 149_605_633
    assert report.manifest.recipe.passes == PASSES | {"drop_mask": 22, "merge_projections": 22, "local_attention": 14}
    assert report.fp32_parity.max_logit_difference < 1e-4
    assert report.bundle_bytes < 1.06 * report.manifest.parameters


def test_local_attention_is_computed_in_blocks(tmp_path: Path) -> None:
    _, lean = graph_of(modernbert_checkpoint(tmp_path / "checkpoint"))
    mask = next(node.input[5] for node in lean.model.graph.node if node.op_type == "MultiHeadAttention" and len(node.input) > 5)
    lean.model.graph.output.append(onnx.helper.make_tensor_value_info(mask, onnx.TensorProto.FLOAT, None))
    # Pairs times blocks, 1, queries of a block, keys that they meet: whole up to 64 tokens, then 16 queries and 32 keys.
    for length, shape in ((64, (3, 1, 64, 64)), (65, (15, 1, 16, 32)), (128, (24, 1, 16, 32))):
        assert run(lean.model, ids_of(length), mask).shape == shape


@pytest.mark.parametrize(("layers", "rows"), [(4, 100), (3, 9)])
def test_the_last_layer_computes_what_the_first_token_sees(tmp_path: Path, layers: int, rows: int) -> None:
    # A global layer's keys are all tokens; a local one's, with a window of 16, itself and 8 more.
    _, lean = graph_of(modernbert_checkpoint(tmp_path / "checkpoint", num_hidden_layers=layers))
    last = [node for node in lean.model.graph.node if node.op_type == "MultiHeadAttention"][-1]
    query, key = last.input[:2]
    lean.model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in (query, key)
    )
    assert [run(lean.model, ids_of(100), name).shape[1] for name in (query, key)] == [1, rows]


# Exported


@pytest.mark.parametrize("family", ["modernbert", "ettin"])
def test_exported_ranked_and_verified(tiny: Tiny, family: Any, tmp_path: Path) -> None:
    report = export(tiny.checkpoint(family), tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE)
    manifest = report.manifest
    assert (manifest.precision, manifest.recipe.scheme, manifest.encoder) == ("int8", "row", None)
    assert manifest.recipe.passes == PASSES
    assert report.fp32_parity.max_logit_difference < EXACT
    assert report.climb is not None
    assert (report.climb.passed.products, report.climb.passed.embeddings) == (17, 1)  # 4 each, and the last query's own
    assert "for onnxruntime, not for our own kernels" in str(report)
    parity = 0.0
    with Reranker.load(tmp_path / "bundle") as reranker:
        found = reranker.verify([("Hvem kan Python?", "En utvikler i Oslo"), ("Kva er ein båt?", "Bil")])
        parity = found.max_logit_difference
    assert parity < 1


def test_mean_pooling_is_exported_and_what_no_pass_matched_is_told(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = modernbert_checkpoint(tmp_path / "checkpoint", classifier_pooling="mean")
    report = export(checkpoint, tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE, precision="fp32")
    assert report.fp32_parity.max_logit_difference < EXACT
    told = " ".join(str(report).split())
    assert "not optimized, so a little slower, with the same scores: hoist_first_token: no choice of the first token" in told


def test_the_digest_of_the_weights_is_of_the_modules_too(folder: Callable[[Family], Path], tiny: Tiny, tmp_path: Path) -> None:
    ettin = folder("ettin")
    export(ettin, tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE, precision="fp32")
    file = ettin / "4_Dense" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with (
        pytest.raises(Incompatible, match=r"its weights are not those that the bundle .* was made from"),
        Reranker.load(tmp_path / "bundle") as reranker,
    ):
        reranker.verify([("a", "b")])


@pytest.mark.parametrize(
    "wrong", [{"local_rope_theta": 160000.0}, {"global_attn_every_n_layers": 2}, {"local_attention": 8}], ids=str
)
def test_a_graph_of_another_layout_fails_the_gate(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, float]
) -> None:
    def spoiled(writer: GraphWriter, checkpoint: Checkpoint) -> str:
        return modernbert.write(writer, replace(checkpoint, config={**checkpoint.config, **wrong}))

    monkeypatch.setitem(WRITERS, CLASSIFIER, spoiled)
    with pytest.raises(ParityError, match="Nothing was written"):
        export(tiny.checkpoint("modernbert"), tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE, precision="fp32")
    assert not (tmp_path / "bundle").exists()


# Refused


def test_another_layout_that_says_it_is_modernbert_is_refused(folder: Callable[[Family], Path], tiny: Tiny) -> None:
    bert = folder("bert")
    config = json.loads((tiny.checkpoint("modernbert") / "config.json").read_text("utf-8"))
    write_json(bert / "config.json", config)
    with pytest.raises(CheckpointError, match="the weights"):
        read_checkpoint(bert)
    modern = folder("modernbert")
    shutil.copyfile(tiny.checkpoint("bert") / "config.json", modern / "config.json")
    with pytest.raises(CheckpointError, match="the weights"):
        read_checkpoint(modern)


def test_a_head_that_is_missing_is_told(folder: Callable[[Family], Path]) -> None:
    modern = folder("modernbert")
    drop_tensors(modern / "model.safetensors", ["head.dense.weight"])
    with pytest.raises(NotACrossEncoder, match=r"no classification head \(head\.dense\.weight is missing\)"):
        read_checkpoint(modern)


def test_biases_that_the_config_leaves_out_are_refused(tmp_path: Path) -> None:
    folder = modernbert_checkpoint(tmp_path, config_updates={"attention_bias": False}, **BIASED)
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.attn\.Wo\.bias and 7 more tensors are not part of"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        (
            {"layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"]},
            "layer_types must name 4",
        ),
        ({"layer_types": ["full_attention"]}, "layer_types must name 4 layers"),
        ({"layer_types": "full_attention"}, "layer_types must name 4 layers"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers must be an integer of at least 1"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters must have 'full_attention'"),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e4, "rope_type": "yarn"},
                    "sliding_attention": {"rope_theta": 1e4},
                }
            },
            "of rope_type 'default'",
        ),
        ({"rope_parameters": []}, "rope_parameters must be an object"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is set"),
        ({"is_causal": True}, "is_causal is set"),
        ({"global_rope_theta": "1e4"}, "global_rope_theta must be a number above 1"),
        ({"local_attention": 0}, "local_attention must be an integer of at least 1"),
        ({"norm_eps": 0}, "norm_eps must lie between 0 and 1"),
        ({"norm_bias": 1}, "norm_bias must be true or false"),
        ({"hidden_activation": "mish"}, "hidden_activation 'mish' is not supported"),
        ({"classifier_pooling": "max"}, "classifier_pooling must be 'cls' or 'mean'"),
        ({"num_attention_heads": 64}, "heads of an odd width"),
        ({"id2label": {"0": "a", "1": "b"}}, "the head has 2 labels"),
        ({"architectures": ["ModernBertForMaskedLM"]}, "an encoder without a classification head"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "remote code, which is never run"),
    ],
)
def test_configs_that_are_refused(folder: Callable[[Family], Path], updates: dict[str, Any], message: str) -> None:
    modern = folder("modernbert")
    edit_json(modern / "config.json", updates)
    check_refused(modern, message)


@pytest.mark.parametrize(
    ("module", "values", "message"),
    [
        ("1_Pooling", {"pooling_mode": "lasttoken"}, "pooling_mode 'lasttoken' is not supported"),
        ("1_Pooling", {"pooling_mode": ["cls", "mean"]}, "pooling_mode .* is not supported"),
        ("1_Pooling", {"embedding_dimension": 63}, "embedding_dimension must be 64 here, got 63"),
        ("2_Dense", {"in_features": 32}, "in_features must be 64 here"),
        ("2_Dense", {"out_features": 0}, "out_features must be an integer of at least 1"),
        ("2_Dense", {"bias": "no"}, "bias must be true or false"),
        ("2_Dense", {"activation_function": "own.Activation"}, "activation_function 'own.Activation' is not supported"),
        ("2_Dense", {"use_residual": True}, "use_residual is set"),
        ("2_Dense", {"module_input_name": "token_embeddings"}, "module_input_name must be 'sentence_embedding'"),
        ("2_Dense", {"module_output_name": "scores"}, "3_LayerNorm comes after the module that gives the scores"),
        ("3_LayerNorm", {"dimension": 8}, "dimension must be 64 here"),
        ("4_Dense", {"out_features": 2}, "its modules give 2 values"),
        ("4_Dense", {"module_output_name": None}, "under the name 'sentence_embedding'"),
        ("2_Dense", {"bias": True}, r"2_Dense/linear\.bias is missing"),
        ("4_Dense", {"bias": False}, r"4_Dense/linear\.bias and 0 more tensors are not part of the modules layout"),
    ],
)
def test_modules_that_are_refused(folder: Callable[[Family], Path], module: str, values: dict[str, Any], message: str) -> None:
    ettin = folder("ettin")
    edit_module(ettin, module, **values)
    check_refused(ettin, message)


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (3, {"type": "sentence_transformers.sentence_transformer.modules.normalize.Normalize"}, "lists Normalize"),
        (2, {"type": "own_code.Dense"}, r"lists own_code\.Dense: it would need code of its own"),
        (2, {"path": "../elsewhere"}, "'../elsewhere' is not the name of a folder"),
        (4, {"path": "5_Dense"}, "has no config.json"),
    ],
)
def test_chains_that_are_refused(folder: Callable[[Family], Path], index: int, changes: dict[str, str], message: str) -> None:
    ettin = folder("ettin")
    modules = json.loads((ettin / "modules.json").read_text("utf-8"))
    modules[index] |= changes
    write_json(ettin / "modules.json", modules)
    check_refused(ettin, message)


def test_pickled_modules_are_refused_with_the_way_out(folder: Callable[[Family], Path]) -> None:
    ettin = folder("ettin")
    (ettin / "2_Dense" / "model.safetensors").rename(ettin / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"is missing\. Only safetensors are read.*CrossEncoder\(.*save_pretrained\("):
        read_checkpoint(ettin)


def test_what_was_not_saved_as_a_cross_encoder_is_a_bi_encoder(folder: Callable[[Family], Path]) -> None:
    ettin = folder("ettin")
    for card in ({"model_type": "SentenceTransformer"}, {}):
        write_json(ettin / "config_sentence_transformers.json", card)
        with pytest.raises(NotACrossEncoder, match="is a bi-encoder"):
            read_checkpoint(ettin)


def test_modules_on_another_encoder_are_refused(folder: Callable[[Family], Path], tiny: Tiny) -> None:
    ettin = folder("ettin")
    shutil.copyfile(tiny.checkpoint("bert") / "config.json", ettin / "config.json")
    check_refused(ettin, r"with a head in modules\.json is not supported\. Supported are ModernBertModel")


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert' does not fit ModernBertModel; expected 'modernbert'"),
        ({"model_type": ..., "architectures": ...}, r"model_type None with a head in modules\.json is not supported"),
        ({"model_type": "bert", "architectures": ...}, r"model_type 'bert' with a head in modules\.json is not supported"),
        ({"architectures": [CLASSIFIER]}, rf"{CLASSIFIER} with a head in modules\.json is not supported"),
    ],
)
def test_what_is_not_named_as_that_encoder_is_refused(
    folder: Callable[[Family], Path], updates: dict[str, object], message: str
) -> None:
    ettin = folder("ettin")
    edit_json(ettin / "config.json", updates)
    check_refused(ettin, message)


def test_options_of_the_encoders_module_that_change_texts_are_refused(folder: Callable[[Family], Path]) -> None:
    ettin = folder("ettin")
    edit_json(ettin / "sentence_bert_config.json", {"do_lower_case": True})
    with pytest.raises(CheckpointError, match=r"do_lower_case is set.*Set it to false, and give texts in lower case"):
        read_checkpoint(ettin)


# As published


@pytest.mark.parametrize("model", MODERNBERT)
def test_the_published_sizes_have_the_published_parameters(model: str) -> None:
    config = dict(MODERNBERT[model]) | dict.fromkeys(BIASED, False) | {"num_labels": 1}
    tensors = classifier_tensors if model == GTE else encoder_tensors  # the hub counts an Ettin's encoder alone
    count = sum(int(np.prod(shape)) for _, shape in tensors(config)) / 1e6
    if (published := MODERNBERT_PARAMETERS.get(model)) is not None:
        assert round(count, len(str(published).partition(".")[2])) == published
    facts = known(model)
    assert facts is not None
    assert facts.max_length == (8192 if model == GTE else config["max_position_embeddings"])


def test_every_known_modernbert_has_its_shape_here() -> None:
    assert {model.id for model in known_models() if "modernbert" in model.id or "ettin" in model.id} == set(MODERNBERT)


@pytest.mark.parametrize("model", [GTE, "cross-encoder/ettin-reranker-17m-v1"])
def test_a_model_of_that_name_is_exported_as_what_it_is(offline_hub: Path, tiny: Tiny, tmp_path: Path, model: str) -> None:
    facts = known(model)
    assert facts is not None
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = offline_hub / f"models--{model.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    builder = modernbert_checkpoint if model == GTE else modular_checkpoint
    builder(home / "snapshots" / commit, max_position_embeddings=facts.max_length)
    report = export(model, tmp_path / "bundle", samples=tiny.samples, thresholds=LOOSE)
    manifest = report.manifest
    assert manifest.architecture == (CLASSIFIER if model == GTE else "ModernBertModel")
    assert (manifest.source.model, manifest.source.license, manifest.source.languages) == (model, "apache-2.0", ("en",))
    assert (manifest.activation, manifest.max_length) == (facts.activation, facts.export_length)
    with Reranker.load(tmp_path / "bundle") as reranker:
        assert len(reranker.rank("Hvem kan Python?", ["Kari kan Python.", "Ein båt", ""])) == 3
