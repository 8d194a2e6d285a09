"""Files of a checkpoint: what is missing or of another kind, what a message suggests, and weights."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import Family, write_json
from checkpoints import IDENTITY, drop_tensors, follow, read_weights, write_weights
from raskrank.checkpoint.config import read_checkpoint
from raskrank.checkpoint.conversion import Origin
from raskrank.checkpoint.weights import MAX_HEADER_BYTES
from raskrank.errors import CheckpointError, NotACrossEncoder
from raskrank.torch_backend import load_model

FAMILIES: tuple[Family, ...] = ("bert", "roberta", "xlm-roberta")


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("bert", ["classifier.weight", "classifier.bias"]),
        ("bert", ["bert.pooler.dense.weight"]),
        ("roberta", ["classifier.out_proj.weight"]),
        ("xlm-roberta", ["classifier.dense.weight"]),
    ],
)
def test_weights_without_the_head_are_refused(copy: Callable[..., Path], family: Family, names: list[str]) -> None:
    folder = copy(family)
    drop_tensors(folder / "model.safetensors", names)
    with pytest.raises(NotACrossEncoder, match=f"no classification head .{names[0]} is missing"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"has no config\.json"),
        (
            "tokenizer.json",
            r"no tokenizer\.json, nor vocab\.txt\. Where you trust it.*python -c .*raskrank export \./bert-converted OUTPUT$",
        ),
        ("model.safetensors", r"no model\.safetensors\. Only safetensors.*raskrank export \./bert-converted OUTPUT$"),
    ],
)
def test_missing_file_is_refused(copy: Callable[..., Path], name: str, message: str) -> None:
    folder = copy()
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_folder_must_be_a_folder(copy: Callable[..., Path]) -> None:
    folder = copy()
    for path in (folder / "absent", folder / "config.json"):
        with pytest.raises(CheckpointError, match="is not a folder"):
            read_checkpoint(path)


@pytest.mark.parametrize("name", ["model.pt", "tf_model.h5", "flax_model.msgpack"])
def test_weights_of_another_kind_are_refused(copy: Callable[..., Path], name: str) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=f"only {name}.*pickles can run code.*Ask whoever made it for safetensors"):
        read_checkpoint(folder)


@pytest.mark.parametrize("place", ["folder with a quote' and a space", "hub"])
def test_what_a_message_suggests_for_pickles_works(
    copy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    import torch
    from safetensors.torch import load_file

    sound = copy(sbert_ce_default_activation_function=IDENTITY)
    expected = read_checkpoint(sound)
    folder, origin = tmp_path / place, None
    if place == "hub":
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        home, commit = tmp_path / "cache" / "models--owner--model", "0123456789abcdef0123456789abcdef01234567"
        folder, origin = home / "snapshots" / commit, Origin("owner/model", "v1")
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "v1").write_text(commit)
    shutil.copytree(sound, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors, only pytorch_model\.bin") as refused:
        read_checkpoint(folder, origin)
    work = tmp_path / "work"
    work.mkdir()
    made = read_checkpoint(follow(str(refused.value), work))
    assert (made.parameters, made.activation, made.license) == (expected.parameters, "identity", "cc-by-nc-4.0")


def test_what_a_message_suggests_for_a_vocabulary_of_another_kind_works(copy: Callable[..., Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder, bert = copy("roberta"), copy("bert")
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (folder / name).unlink()
    tokenizer = Tokenizer.from_file(str(bert / "tokenizer.json"))
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), "utf-8")
    shutil.copyfile(bert / "tokenizer_config.json", folder / "tokenizer_config.json")
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json, nor vocab\.json and merges\.txt") as refused:
        read_checkpoint(folder)
    made = follow(str(refused.value), tmp_path)
    assert read_checkpoint(made).layers == 2
    text = "Hvem kan Python på øya?"
    assert Tokenizer.from_file(str(made / "tokenizer.json")).encode(text).ids == tokenizer.encode(text).ids


def test_an_adapter_is_refused_by_name(copy: Callable[..., Path]) -> None:
    # With peft installed, transformers would load the model that the adapter names, from anywhere.
    folder = copy()
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "/somewhere/else"})
    with pytest.raises(CheckpointError, match=r"has adapter_config\.json.*Merge the adapter"):
        read_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="Merge the adapter"):
        read_checkpoint(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_older_names_of_layer_norm_are_read(copy: Callable[..., Path], family: Family) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = copy(family)
    before = read_checkpoint(folder)
    expected = load_model(before).state_dict()
    weights = load_file(folder / "model.safetensors")
    older = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): t for name, t in weights.items()}
    assert len(older.keys() - weights.keys()) == 10
    save_file(older, folder / "model.safetensors", metadata={"format": "pt"})
    found = load_model(read_checkpoint(folder)).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert read_checkpoint(folder).parameters == before.parameters


def test_both_names_of_layer_norm_at_once_are_refused(copy: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy()
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"bert.embeddings.LayerNorm.gamma": weights["classifier.weight"].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"LayerNorm\.gamma or beta beside"):
        read_checkpoint(folder)


def test_names_that_no_file_system_allows_are_refused(copy: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        read_checkpoint(Path("x" * 5000))
    folder = copy()
    weight_map = shard(folder) | {"classifier.weight": "x" * 5000 + ".safetensors"}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match="cannot be read: File name too long") as raised:
        read_checkpoint(folder)
    assert len(str(raised.value)) < 1000


def test_half_precision_and_integer_buffers_pass(copy: Callable[..., Path]) -> None:
    # Old checkpoints keep position_ids, int64, beside their parameters.
    import torch
    from safetensors.torch import load_file, save_file

    path = copy() / "model.safetensors"
    expected = read_checkpoint(path.parent).parameters
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(tensors | {"bert.embeddings.position_ids": torch.arange(64)[None]}, path)
    assert read_checkpoint(path.parent).parameters == expected


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3"])
def test_quantized_weights_are_refused(copy: Callable[..., Path], dtype: str) -> None:
    path = copy() / "model.safetensors"
    header, data = read_weights(path)
    header["bert.encoder.layer.1.output.dense.weight"]["dtype"] = dtype
    write_weights(path, header, data)
    with pytest.raises(CheckpointError, match=f"is {dtype}.*not a quantized one"):
        read_checkpoint(path.parent)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"<!DOCTYPE html><html>Not found</html>",
        (2**63).to_bytes(8, "little"),
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * 100,
        (100).to_bytes(8, "little") + b"{}",
    ],
    ids=["empty", "short", "html", "huge", "above the cap", "header cut"],
)
def test_no_safetensors_file_is_refused(copy: Callable[..., Path], content: bytes) -> None:
    path = copy() / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path.parent)


def test_header_above_the_cap_is_refused(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    header, data = read_weights(path)
    write_weights(path, header | {"__metadata__": {"x": "x" * MAX_HEADER_BYTES}}, data)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path.parent)


def test_lfs_pointer_is_named(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n")
    with pytest.raises(CheckpointError, match=r"Git LFS pointer.*git lfs pull"):
        read_checkpoint(path.parent)


def test_cut_weights_are_refused(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is cut off"):
        read_checkpoint(path.parent)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]},
        {"dtype": 32, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0], "data_offsets": [8, 4]},
    ],
)
def test_broken_header_is_refused(copy: Callable[..., Path], entry: object) -> None:
    path = copy() / "model.safetensors"
    header, data = read_weights(path)
    write_weights(path, header | {"classifier.bias": entry}, data)
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        read_checkpoint(path.parent)


def test_header_that_is_no_object_is_refused(copy: Callable[..., Path]) -> None:
    path = copy() / "model.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(CheckpointError, match="not an object"):
        read_checkpoint(path.parent)


def shard(folder: Path) -> dict[str, str]:
    """Split model.safetensors in two, as large models are published; returns the weight map."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    weight_map: dict[str, str] = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return weight_map


def test_shards_are_read_together(copy: Callable[..., Path]) -> None:
    folder = copy("xlm-roberta")
    expected = read_checkpoint(folder).parameters
    shard(folder)
    assert read_checkpoint(folder).parameters == expected


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "x.bin", "x.safetensors\n", 3])
def test_shards_beside_the_index_only(copy: Callable[..., Path], name: object) -> None:
    folder = copy()
    weight_map = shard(folder)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map | {"classifier.weight": name}})
    with pytest.raises(CheckpointError, match="is not the name of a file beside it"):
        read_checkpoint(folder)


def test_missing_shard_is_named(copy: Callable[..., Path]) -> None:
    folder = copy()
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        read_checkpoint(folder)


def test_index_that_names_the_wrong_shard_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy()
    weight_map = shard(folder)
    wrong = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} - {weight_map["classifier.weight"]}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map | {"classifier.weight": wrong.pop()}})
    with pytest.raises(CheckpointError, match=r"does not hold classifier\.weight"):
        read_checkpoint(folder)


@pytest.mark.parametrize("weight_map", [None, {}, []])
def test_index_without_a_map_is_refused(copy: Callable[..., Path], weight_map: object) -> None:
    folder = copy()
    shard(folder)
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match="no weight_map"):
        read_checkpoint(folder)
