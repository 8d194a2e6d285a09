"""The encoders that stand for published code: what their papers say of positions, gates and biases, checked by hand."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import Family, tiny_checkpoint
from checkpoints import check_refused, edit_json
from conftest import Tiny
from exporting import loose_export
from raskrank import Reranker
from raskrank.checkpoint import read_checkpoint
from raskrank.errors import CheckpointError
from raskrank.reimplemented import build
from raskrank.reimplemented.gte import rotations, turned
from raskrank.reimplemented.jina_bert import slopes
from raskrank.torch_backend import TorchBackend, load_model
from raskrank_export.written import jina_bert

OWN: tuple[Family, ...] = ("new", "jina-bert")
CONFIG: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 6,
    "layer_norm_eps": 1e-12,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_labels": 1,
    "rope_factor": 8.0,
    "rope_theta": 20000.0,
    "type_vocab_size": 2,
    "vocab_size": 30,
}
IDS = torch.tensor([[3, 14, 15, 9, 2, 6]])


def seeded(architecture: str) -> Any:
    model = build(architecture, CONFIG).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return model


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    random = torch.Generator().manual_seed(1)
    query, key = (torch.randn(1, 1, 1, 16, generator=random, dtype=torch.float64) for _ in range(2))
    cosine, sine = (table.double() for table in rotations(300, 16, 20000.0, 8.0))

    def score(i: int, j: int) -> float:
        both = (turned(vector, cosine[None, place], sine[None, place]) for vector, place in ((query, i), (key, j)))
        one, other = both
        return float((one * other).sum())

    near, far = score(5, 2), score(200, 17)
    assert score(105, 102) == pytest.approx(near, abs=1e-5)
    assert score(284, 101) == pytest.approx(far, abs=1e-5)
    assert abs(near - far) > 0.01
    assert score(0, 0) == pytest.approx(float((query * key).sum()))  # the first position is not turned


def test_positions_are_stretched_as_the_article_says() -> None:
    # The slowest pair turns slower by the factor itself, the fastest by its smallest part; without one nothing changes.
    width, theta, factor = 64, 20000.0, 8.0
    plain, stretched = (torch.atan2(*rotations(2, width, theta, by)[::-1])[1].double() for by in (1.0, factor))
    assert float(plain[0]) == pytest.approx(1, abs=1e-6)
    assert float(plain[-1]) == pytest.approx(theta ** (-(width - 2) / width), rel=1e-5)
    assert float(plain[-1] / stretched[-1]) == pytest.approx(factor, rel=1e-4)
    assert float(plain[0] / stretched[0]) == pytest.approx(factor ** (2 / width), rel=1e-4)


def test_slopes_are_those_of_the_paper() -> None:
    assert slopes(8) == [2.0**-power for power in range(1, 9)]
    assert slopes(12) == pytest.approx([2.0**-power for power in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    assert len(slopes(1)) == 1


def test_scores_fall_with_the_distance_in_both_directions() -> None:
    model = seeded("JinaBertForSequenceClassification")
    attention = model.bert.encoder["layer"][0].attention["self"]
    with torch.no_grad():
        attention.query.weight.zero_(), attention.query.bias.zero_()  # so that the biases alone decide
        attention.value.weight.copy_(torch.eye(8)), attention.value.bias.zero_()
    states = torch.eye(6, 8)[None]  # (B, L, H)
    places = torch.arange(6)
    bias = -torch.tensor(slopes(2))[:, None, None] * (places[:, None] - places).abs()
    found = attention(states, bias[None])[0, 2, :4]  # what the third token takes of the first four, of the first head
    weights = np.exp(-slopes(2)[0] * np.abs(2 - np.arange(6)))
    np.testing.assert_allclose(found.detach().numpy(), (weights / weights.sum())[:4], atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "up", "gate_first"),
    [
        ("NewForSequenceClassification", "new.encoder.layer.0.mlp.up_gate_proj", False),
        ("JinaBertForSequenceClassification", "bert.encoder.layer.0.mlp.gated_layers", True),
    ],
)
def test_the_gate_is_the_right_half(architecture: str, up: str, gate_first: bool) -> None:
    model = seeded(architecture)
    product = model.get_submodule(up)
    mlp = model.get_submodule(up.rpartition(".")[0])
    states = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(2))
    down = mlp.wo if gate_first else mlp.down_proj
    seen: list[torch.Tensor] = []
    down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    halves = product(states).detach().chunk(2, dim=-1)
    gate, rest = halves if gate_first else halves[::-1]
    with torch.no_grad():
        mlp(states)
    normal = 0.5 * (1 + torch.erf(gate / 2**0.5))  # of the Gelu that is exact
    torch.testing.assert_close(seen[0], gate * normal * rest, atol=1e-6, rtol=1e-5)
    swapped = rest * 0.5 * (1 + torch.erf(rest / 2**0.5)) * gate
    assert float((seen[0] - swapped).abs().max()) > 0.01  # the other order would show


@pytest.mark.parametrize("architecture", ["NewForSequenceClassification", "JinaBertForSequenceClassification"])
def test_padding_and_companions_do_not_show(architecture: str) -> None:
    model, types = seeded(architecture), torch.tensor([[0, 0, 0, 1, 1, 1]])
    with torch.no_grad():
        alone = model(IDS, torch.ones_like(IDS), types).logits
        padded_ids = torch.cat([IDS, torch.full((1, 3), 7)], dim=1)
        mask = torch.tensor([[1] * 6 + [0] * 3])
        both = model(
            torch.cat([padded_ids, padded_ids.flip(1)]),
            torch.cat([mask, torch.ones_like(mask)]),
            torch.cat([torch.cat([types, torch.ones(1, 3, dtype=torch.int64)], dim=1)] * 2),
        ).logits
        untyped = model(IDS, torch.ones_like(IDS)).logits
    assert both.shape == (2, 1)
    torch.testing.assert_close(both[0], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(IDS, torch.ones_like(IDS), torch.zeros_like(IDS)).logits, untyped)
    assert float((untyped - alone).abs().max()) > 1e-3  # types are read


@pytest.mark.parametrize("family", OWN)
def test_the_order_of_words_matters(tiny: Tiny, family: Family) -> None:
    # Without positions, and without a bias for the distance, any order would score alike.
    backend = TorchBackend(read_checkpoint(tiny.checkpoint(family)))
    ids = np.arange(10, 60)[None]
    moved = np.concatenate([ids[:, :1], ids[:, :0:-1]], axis=1)
    assert abs(float((backend.logits(ids, ids * 0) - backend.logits(moved, ids * 0))[0])) > 0.01


@pytest.mark.parametrize("family", OWN)
def test_the_graph_is_right_at_every_length(tiny: Tiny, family: Family) -> None:
    backend = TorchBackend(read_checkpoint(tiny.checkpoint(family)))
    random, found, expected = np.random.default_rng(0), [], []
    with Reranker.load(tiny.bundle(family, "fp32")) as reranker:
        for length in range(3, 129):
            ids = random.integers(4, 600, (2, length))  # (B, L)
            types = (np.arange(length) > length // 2).astype(np.int64) * (backend._token_types) + np.zeros_like(ids)
            found.append(reranker._loaded.backend.logits(ids, types))
            expected.append(backend.logits(ids, types))
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5)


def test_blocks_of_rows_give_what_all_rows_give(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # At 512 rows a block no tiny pair has two of them; at 7 there are blocks that the tokens fill and others that they do not.
    monkeypatch.setattr(jina_bert, "MOST_ROWS", 7)
    loose_export(tiny, tmp_path / "blocks", checkpoint=tiny.checkpoint("jina-bert"), precision="fp32")
    random = np.random.default_rng(3)
    with Reranker.load(tmp_path / "blocks") as blocks, Reranker.load(tiny.bundle("jina-bert", "fp32")) as whole:
        one, other = blocks._loaded.backend, whole._loaded.backend
        for length in (3, 6, 7, 8, 13, 14, 15, 22, 49, 50, 127, 128):
            ids = random.integers(4, 600, (3, length))  # (B, L)
            types = np.zeros_like(ids)
            together = one.logits(ids, types)
            np.testing.assert_allclose(together, other.logits(ids, types), rtol=0, atol=1e-5)
            assert b"".join(one.logits(ids[[row]], types[[row]]).tobytes() for row in range(3)) == together.tobytes()


@pytest.mark.parametrize("family", OWN)
def test_a_long_pair_scores_as_the_reference_does(tiny: Tiny, tmp_path: Path, family: Family) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint", family, positions=1500, layers=1)
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=folder, precision="fp32")
    assert report.manifest.max_length == 1500
    reference = TorchBackend(read_checkpoint(folder))
    with Reranker.load(tmp_path / "bundle") as reranker:
        for length in (511, 512, 513, 1024, 1025, 1500):
            ids = np.random.default_rng(length).integers(4, 600, (1, length))
            found = reranker._loaded.backend.logits(ids, ids * 0)
            assert found == pytest.approx(reference.logits(ids, ids * 0), abs=3e-5)


@pytest.mark.parametrize("family", OWN)
def test_half_precision_is_widened(copy: Callable[..., Path], family: Family) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy(family)
    stored = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in stored.items()}, folder / "model.safetensors")
    model = load_model(read_checkpoint(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {name: t.shape for name, t in stored.items()}


CODE = {"AutoModelForSequenceClassification": "modeling.NewForSequenceClassification"}


@pytest.mark.parametrize(
    ("family", "updates"),
    [
        ("new", {"auto_map": CODE | {"AutoModel": "evil.Model"}}),
        ("new", {"auto_map": {key: f"someone/else--{name}" for key, name in CODE.items()}}),
        ("new", {"auto_map": CODE | {"AutoTokenizer": "modeling.NewTokenizer"}}),
        ("new", {"auto_map": [*CODE]}),
        ("new", {"position_embedding_type": "absolute"}),
        ("new", {"architectures": ["NewModel"]}),
        ("new", {"model_type": "bert"}),
        ("jina-bert", {"auto_map": {"AutoModel": "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel"}}),
        ("jina-bert", {"position_embedding_type": "absolute"}),
        ("jina-bert", {"feed_forward_type": "original"}),
        ("jina-bert", {"attn_implementation": "owner/kernel"}),
        ("jina-bert", {"emb_pooler": "last"}),
    ],
)
def test_other_code_is_not_taken_for_this_one(copy: Callable[..., Path], family: Family, updates: dict[str, object]) -> None:
    with pytest.raises(CheckpointError):
        read_checkpoint(copy(family, **updates))


@pytest.mark.parametrize(
    ("family", "updates"),
    [
        ("new", {"auto_map": {key: f"Alibaba-NLP/new-impl--{name}" for key, name in CODE.items()}}),
        ("new", {"auto_map": ...}),
        ("new", {"position_embedding_type": ..., "unpad_inputs": True}),
        ("jina-bert", {"auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"}}),
        ("jina-bert", {"architectures": ["JinaBertForMaskedLM"], "id2label": ..., "label2id": ...}),
        ("jina-bert", {"attn_implementation": "torch", "emb_pooler": ...}),
    ],
)
def test_the_same_code_elsewhere_is(copy: Callable[..., Path], family: Family, updates: dict[str, object]) -> None:
    assert read_checkpoint(copy(family, **updates)).layout == {"new": "gte", "jina-bert": "jina-bert"}[family]


@pytest.mark.parametrize(
    ("family", "updates", "message"),
    [
        (
            "new",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling .* is not supported, only null or an object",
        ),
        ("new", {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.5}}, "rope_scaling"),
        ("new", {"rope_scaling": {"type": "ntk", "factor": 0.5}}, "factor of rope_scaling must be a number of at least 1"),
        ("new", {"rope_theta": ...}, "rope_theta must be a number of at least 1, got None"),
        ("new", {"rope_theta": True}, "rope_theta must be a number"),
        ("new", {"logn_attention_scale": True}, "logn_attention_scale True is not supported, only False"),
        ("new", {"layer_norm_type": "rms_norm"}, "layer_norm_type 'rms_norm'"),
        ("new", {"pack_qkv": False}, "pack_qkv False"),
        ("new", {"hidden_act": "relu"}, "hidden_act 'relu' is not supported, only 'gelu'"),
        ("new", {"num_attention_heads": 32}, "heads of an odd width"),
        ("jina-bert", {"hidden_act": "relu"}, "hidden_act 'relu' is not supported, only 'gelu'"),
        ("jina-bert", {"num_labels": 2, "id2label": ...}, "2 labels"),
    ],
)
def test_another_form_is_refused(copy: Callable[..., Path], family: Family, updates: dict[str, object], message: str) -> None:
    check_refused(copy(family, **updates), message)


@pytest.mark.parametrize("other", ["bert", "xlm-roberta", "deberta-v2", *OWN])
@pytest.mark.parametrize("family", OWN)
def test_no_other_weights_pass_for_these_nor_these_for_others(
    originals: Mapping[Family, Path], copy: Callable[..., Path], family: Family, other: Family
) -> None:
    if other == family:
        return
    for config, weights in ((family, other), (other, family)):
        folder = copy(config)
        shutil.copyfile(originals[weights] / "model.safetensors", folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"missing|do not fit"):
            read_checkpoint(folder)
        shutil.rmtree(folder)


def test_without_its_code_jina_is_no_bert(copy: Callable[..., Path]) -> None:
    # What advice on the web says of models that ask for remote code.
    folder = copy("jina-bert", auto_map=..., architectures=["BertForSequenceClassification"], attn_implementation=...)
    with pytest.raises(CheckpointError, match="position_embedding_type 'alibi' is not supported"):
        read_checkpoint(folder)
    edit_json(folder / "config.json", {"position_embedding_type": "absolute"})
    with pytest.raises(CheckpointError, match=r"position_embeddings\.weight is missing"):
        read_checkpoint(folder)


@pytest.mark.parametrize("family", OWN)
def test_a_tensor_too_many_means_another_model(copy: Callable[..., Path], family: Family) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy(family)
    weights = load_file(folder / "model.safetensors")
    base = "new" if family == "new" else "bert"
    extra = f"{base}.encoder.layer.0.attention.self.layer_norm_q.weight"
    save_file({**weights, extra: torch.ones(32)}, folder / "model.safetensors")
    check_refused(folder, r"layer_norm_q.* not part of the (gte|jina-bert) layout")
