"""A tokenizer as it is found: a vocabulary without tokenizer.json, and a tokenizer.json that cuts, pads or adds."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from builders import ENGLISH, NORWEGIAN, PAIRS, Family
from checkpoints import edit_json
from conftest import Tiny
from exporting import loose_export
from raskrank import Reranker
from raskrank.checkpoint import read_checkpoint
from raskrank.errors import CheckpointError
from raskrank.reference_tokenizer import PROBES, tokenizer_json

TEXTS = (
    *NORWEGIAN,
    *ENGLISH,
    *(text for pair in PROBES for text in pair),
    "",
    "Å å A\u030a  tab\tline\n",
    "ﬁn e\u0301 東京 🙂",
)
SLOW: dict[Family, str] = {
    "bert": "BertTokenizer",
    "electra": "ElectraTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "albert": "AlbertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "new": "XLMRobertaTokenizer",
    "jina-bert": "RobertaTokenizer",
}
PIECES: dict[Family, str] = {
    "xlm-roberta": "sentencepiece.bpe.model",
    "camembert": "sentencepiece.bpe.model",
    "albert": "spiece.model",
    "deberta-v2": "spm.model",
    "new": "sentencepiece.bpe.model",
}
# Of the model's own pieces, before what the class puts in front of them or behind.
CONTROL: dict[Family, tuple[str, ...]] = {
    "xlm-roberta": ("<unk>", "<s>", "</s>"),
    "camembert": ("<unk>", "<s>", "</s>"),
    "albert": ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
    "deberta-v2": ("[PAD]", "[CLS]", "[SEP]", "[UNK]"),
    "new": ("<unk>", "<s>", "</s>"),
}


_UNKNOWN = ("<unk>", "[UNK]")


def leave_vocabulary(folder: Path, family: Family) -> Path:
    """Put the files that came before tokenizer.json in its place."""
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "tokenizer.json").unlink()
    if family in ("roberta", "jina-bert"):
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
        merges = [" ".join(pair) for pair in model["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    elif family in PIECES:
        pieces = [
            (piece, score) for piece, score in model["vocab"] if not (piece.startswith(("<", "[")) and piece[-1] in ">]D")
        ]
        (folder / PIECES[family]).write_bytes(sentencepiece_model(pieces, CONTROL[family]))
    else:
        pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), "utf-8")
    return folder


def sentencepiece_model(pieces: list[tuple[str, float]], control: tuple[str, ...]) -> bytes:
    """A unigram model as the library sentencepiece writes one."""
    library: Any = importlib.import_module("transformers.convert_slow_tokenizer")
    proto = library.import_protobuf().ModelProto()
    for name in control:
        kind = 2 if name in _UNKNOWN else 4 if name == "[MASK]" else 3  # unknown, user defined, control
        proto.pieces.add(piece=name, score=0.0, type=kind)
    for name, score in pieces:
        proto.pieces.add(piece=name, score=score)
    ids = {name: control.index(name) if name in control else -1 for name in ("<s>", "</s>", "<pad>")}
    ids["<unk>"] = next(index for index, name in enumerate(control) if name in _UNKNOWN)
    spec = proto.trainer_spec
    spec.model_type, spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id = 1, ids["<unk>"], ids["<s>"], ids["</s>"], ids["<pad>"]
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = proto.normalizer_spec.remove_extra_whitespaces = True
    content: bytes = proto.SerializeToString()
    return content


def slow(folder: Path, family: Family) -> Any:
    """transformers' tokenizer in Python, which nothing is converted for."""
    import transformers

    return getattr(transformers, SLOW[family]).from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("family", SLOW)
def test_a_vocabulary_gives_the_tokens_that_tokenizer_json_gave(copy: Callable[..., Path], family: Family) -> None:
    folder = copy(family)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    leave_vocabulary(folder, family)
    found = Tokenizer.from_str(tokenizer_json(read_checkpoint(folder)).decode())
    assert found.get_vocab_size() == whole.get_vocab_size()
    # The pieces here come without the rules by which the tokenizer of the tests normalizes what is no plain text.
    texts = TEXTS if family not in PIECES else (*NORWEGIAN, *ENGLISH)
    for query, document in (*PAIRS, *zip(texts, reversed(texts), strict=True)):
        one, other = found.encode(query, document), whole.encode(query, document)
        assert one.ids == other.ids, (query, document)
        assert family == "mpnet" or one.type_ids == other.type_ids  # MPNet has no embedding for them
    if family not in PIECES:  # those of transformers in Python need sentencepiece, which ends the process beside protobuf 7
        expected = slow(folder, family)
        for text in (*NORWEGIAN, *ENGLISH):
            assert found.encode(text, add_special_tokens=False).ids == expected.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("family", [*SLOW])
def test_a_checkpoint_with_a_vocabulary_alone_is_exported_and_verified(
    copy: Callable[..., Path], tiny: Tiny, family: Family, tmp_path: Path
) -> None:
    whole = copy(family)
    loose_export(tiny, tmp_path / "whole", checkpoint=whole, precision="fp32")
    loose_export(tiny, tmp_path / "made", checkpoint=leave_vocabulary(whole, family), precision="fp32")
    with Reranker.load(tmp_path / "whole") as one, Reranker.load(tmp_path / "made") as other:
        np.testing.assert_array_equal(other.score_pairs(PAIRS), one.score_pairs(PAIRS))
        assert other.verify(list(PAIRS)).max_logit_difference < 1e-4
    with Reranker.load(backend="torch", checkpoint=whole) as reference:
        np.testing.assert_allclose(reference.score_pairs(PAIRS), one_of(tmp_path / "made"), atol=1e-5)


def one_of(bundle: Path) -> Any:
    with Reranker.load(bundle) as reranker:
        return reranker.score_pairs(PAIRS)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_half_of_a_vocabulary_is_none(copy: Callable[..., Path], family: Family) -> None:
    folder = leave_vocabulary(copy(family), family)
    (folder / ("vocab.txt" if family == "bert" else "merges.txt")).unlink()
    with pytest.raises(
        CheckpointError, match=r"has no tokenizer\.json, nor vocab\.(txt|json and merges\.txt)\. Where you trust"
    ):
        read_checkpoint(folder)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_what_a_tokenizer_cuts_and_pads_by_itself_changes_nothing(
    copy: Callable[..., Path], tiny: Tiny, family: Family, tmp_path: Path
) -> None:
    folder = copy(family)
    loose_export(tiny, tmp_path / "plain", checkpoint=folder, precision="fp32")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(16, strategy="only_second")
    tokenizer.enable_padding(length=40, direction="left", pad_id=1)
    tokenizer.save(str(folder / "tokenizer.json"))
    edit_json(folder / "tokenizer_config.json", {"padding_side": "left"})
    loose_export(tiny, tmp_path / "cut", checkpoint=folder, precision="fp32")
    np.testing.assert_array_equal(one_of(tmp_path / "cut"), one_of(tmp_path / "plain"))


def test_added_tokens_are_tokens(copy: Callable[..., Path], tiny: Tiny, tmp_path: Path) -> None:
    folder = copy("bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain = tokenizer.encode("siste buss i Oslo", add_special_tokens=False).ids
    tokenizer.add_tokens([AddedToken("buss i", normalized=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has no row in the embedding"):
        loose_export(tiny, tmp_path / "too-many", checkpoint=folder)
    _widen(folder)
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=folder, precision="fp32")
    added = Tokenizer.from_file(str(tmp_path / "bundle" / "tokenizer.json"))
    assert len(added.encode("siste buss i Oslo", add_special_tokens=False).ids) < len(plain)
    assert report.manifest.vocab_size == added.get_vocab_size()
    with Reranker.load(tmp_path / "bundle") as reranker:
        assert reranker.verify([("siste buss i Oslo", "buss i Oslo"), *PAIRS]).max_logit_difference < 1e-4


def _widen(folder: Path) -> None:
    """Give the embedding a row more."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    weights[name] = torch.cat([weights[name], weights[name][-1:] + 1])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", {"vocab_size": len(weights[name])})
