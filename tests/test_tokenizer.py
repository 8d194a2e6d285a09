"""The tokenizer of a checkpoint: accepted where it fits the model and is the one that transformers uses."""

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from tokenizers import Tokenizer, normalizers, processors

from builders import PAIRS, Family, write_json
from conftest import Tiny
from paths import NANO_CHECKPOINT, shared
from processes import run_script
from raskrank import Incompatible, Reranker
from raskrank.bundle import MAX_SMALL_BYTES
from raskrank.checkpoint import Checkpoint, read_checkpoint
from raskrank.encoding import PairEncoder
from raskrank.errors import CheckpointError
from raskrank.reference_tokenizer import PROBES, ReferenceEncoder
from raskrank.samples import as_pairs, read_samples
from raskrank.tokenizer import load_encoder
from raskrank_export import export
from raskrank_export import tokenizer as exporters

EDGE_PAIRS = [("", ""), ("", "a"), ("a", "")]
FAMILIES: tuple[Family, ...] = get_args(Family)


def read_tokenizer(checkpoint: Checkpoint, pairs: Sequence[tuple[str, str]]) -> tuple[bytes, Tokenizer]:
    """As an export does: read it, and hold what the engine makes of the pairs against transformers."""
    data, tokenizer = exporters.read_tokenizer(checkpoint)
    encoder = PairEncoder(tokenizer, checkpoint.max_length)
    ReferenceEncoder(checkpoint, encoder).check([*EDGE_PAIRS, *pairs], encoder.encode([*EDGE_PAIRS, *pairs]))
    return data, tokenizer


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Callable[[Family], Path]:
    """A copy of a tiny checkpoint to spoil."""

    def copied(family: Family) -> Path:
        return Path(shutil.copytree(tiny.checkpoint(family), tmp_path / "checkpoint"))

    return copied


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text("utf-8"))
    change(value)
    write_json(file, value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_good_tokenizer_comes_with_its_bytes(tiny: Tiny, family: Family) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint(family))
    data, tokenizer = read_tokenizer(checkpoint, PAIRS)
    assert data == (checkpoint.folder / "tokenizer.json").read_bytes()
    assert (tokenizer.truncation, tokenizer.padding) == (None, None)
    assert tokenizer.encode("", "").ids


def test_saved_truncation_and_padding_are_left_out(copy: Callable[[Family], Path]) -> None:
    folder = copy("bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    _, read = read_tokenizer(read_checkpoint(folder), PAIRS)
    lengths = {len(read.encode(*pair).ids) for pair in PAIRS}
    assert len(lengths) > 1
    assert max(lengths) > 16


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b'{"version": "1.0", "model": {"type": "Unheard"}}'])
def test_no_tokenizer_at_all(copy: Callable[[Family], Path], content: bytes) -> None:
    folder = copy("bert")
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot use its tokenizer\.json"):
        read_tokenizer(read_checkpoint(folder), PAIRS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_tokenizer_is_refused(copy: Callable[[Family], Path], family: Family) -> None:
    # Without its post-processor it gives an empty text no token, and onnxruntime a number for nothing.
    folder = copy(family)
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(post_processor=None))
    with pytest.raises(CheckpointError, match="two empty texts give no token at all; the tokenizer lacks its post-processor"):
        read_tokenizer(read_checkpoint(folder), PAIRS)


def test_an_id_without_a_row_is_refused(tiny: Tiny) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint("bert"))
    size = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json")).get_vocab_size()
    read_tokenizer(replace(checkpoint, vocab_size=size), PAIRS)
    with pytest.raises(CheckpointError, match=rf"token id {size - 1} has no row in the embedding of {size - 1} rows"):
        read_tokenizer(replace(checkpoint, vocab_size=size - 1), PAIRS)


def test_an_added_token_without_a_row_is_refused(tiny: Tiny, copy: Callable[[Family], Path]) -> None:
    folder = copy("xlm-roberta")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=rf"token id {size} has no row in the embedding of {size} rows"):
        read_tokenizer(read_checkpoint(folder), PAIRS)


def test_lower_casing_that_disagrees_is_refused(copy: Callable[[Family], Path]) -> None:
    # transformers' BertTokenizerFast follows tokenizer_config.json, against what tokenizer.json says.
    folder = copy("bert")
    edit(folder / "tokenizer_config.json", lambda config: config.update(do_lower_case=False))
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json and tokenizer_config\.json disagree: .*gives other ids for \d+ of 15 pairs"
    ):
        read_tokenizer(read_checkpoint(folder), PAIRS)


def test_accents_that_disagree_are_refused(copy: Callable[[Family], Path]) -> None:
    folder = copy("bert")
    edit(folder / "tokenizer_config.json", lambda config: config.update(strip_accents=True))
    with pytest.raises(CheckpointError, match=r"disagree: .*save the tokenizer again"):
        read_tokenizer(read_checkpoint(folder), [("Kjøp é", "pâté")])


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {"tokenize_chinese_chars": False}),
        ("mpnet", {"strip_accents": True}),
        ("roberta", {"add_prefix_space": True}),
        ("modernbert", {"add_prefix_space": True}),
    ],
)
def test_options_that_disagree_are_refused_beside_any_transformers(
    copy: Callable[[Family], Path], family: Family, options: dict[str, object]
) -> None:
    folder = copy(family)
    edit(folder / "tokenizer_config.json", lambda config: config.update(options))
    with pytest.raises(CheckpointError, match=r"disagree: transformers' \w+TokenizerFast gives other ids"):
        read_tokenizer(read_checkpoint(folder), [("Kjøp é 東京", "pâté")])


def composed(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), tokenizer.normalizer or normalizers.NFKC()])


def unclean(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False, clean_text=False)


def short_words(tokenizer: Tokenizer) -> None:
    tokenizer.model.max_input_chars_per_word = 5


def older_template(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))


@pytest.mark.parametrize(
    ("family", "change"),
    [
        *((family, composed) for family in ("bert", "electra", "distilbert", "mpnet", "roberta")),
        *((family, change) for family in ("bert", "mpnet") for change in (unclean, short_words)),
        ("bert", older_template),
    ],
)
def test_tokenizer_json_is_read_as_it_is(
    copy: Callable[[Family], Path], family: Family, change: Callable[[Tokenizer], None]
) -> None:
    # The classes of transformers 5 build theirs anew from the pieces, and without these.
    folder = copy(family)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    before = [tokenizer.encode(*pair).ids for pair in PROBES]
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    _, read = read_tokenizer(read_checkpoint(folder), [*PAIRS, *PROBES])
    assert read.to_str() == tokenizer.to_str()
    assert change is older_template or [read.encode(*pair).ids for pair in PROBES] != before


def test_a_tokenizer_config_that_transformers_cannot_read(copy: Callable[[Family], Path]) -> None:
    folder = copy("bert")
    edit(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder={"x": {}}))
    with pytest.raises(CheckpointError, match="transformers cannot load this tokenizer"):
        read_tokenizer(read_checkpoint(folder), PAIRS)


@pytest.mark.parametrize("name", ["Evil", "EvilTokenizer", "EvilTokenizerFast", "", "BertJapaneseTokenizer", 7])
def test_code_that_the_config_names_is_not_run(copy: Callable[[Family], Path], name: object) -> None:
    folder = copy("bert")
    edit(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class=name))
    marker = folder / "ran"
    (folder / "tokenization_evil.py").write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(CheckpointError, match=r"none of transformers' own .* for this model it would be BertTokenizer"):
        read_tokenizer(read_checkpoint(folder), PAIRS)
    assert not marker.exists()


# What a RoBERTa or DistilBERT class, or a list of inputs without them, does to a model that was trained with token types.
WITHOUT_TYPES: dict[str, dict[str, object]] = {
    "RobertaTokenizer": {"tokenizer_class": "RobertaTokenizer"},
    "DistilBertTokenizer": {"tokenizer_class": "DistilBertTokenizer"},
    "model_input_names": {"model_input_names": ["input_ids", "attention_mask"]},
}


@pytest.mark.parametrize("case", WITHOUT_TYPES)
def test_token_types_that_transformers_does_not_pass_are_an_error_by_name(
    tiny: Tiny, copy: Callable[[Family], Path], case: str, tmp_path: Path
) -> None:
    # Scored by the engine's own encoder alone, PyTorch and ONNX would agree, on scores that transformers does not give.
    folder = copy("bert")
    edit(folder / "tokenizer_config.json", lambda config: config.update(WITHOUT_TYPES[case]))
    says = r"tokenizer\.json and tokenizer_config\.json disagree: .*passes other token types to the model for \d+ of \d+ pairs"
    with pytest.raises(CheckpointError, match=says):
        export(str(folder), tmp_path / "bundle", samples=tiny.samples)
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(CheckpointError, match=says):
        Reranker.load(backend="torch", checkpoint=folder)
    with (
        Reranker.load(tiny.bundle("bert", "fp32"), checkpoint=folder) as reranker,
        pytest.raises(CheckpointError, match=says),
    ):
        reranker.verify(PAIRS)
    # What the message says mends it.
    stated = {"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    edit(folder / "tokenizer_config.json", lambda config: config.update(stated))
    read_tokenizer(read_checkpoint(folder), PAIRS)


def test_types_do_not_matter_to_a_model_that_has_none(copy: Callable[[Family], Path]) -> None:
    folder = copy("xlm-roberta")
    edit(folder / "tokenizer_config.json", lambda config: config.update(model_input_names=["input_ids", "token_type_ids"]))
    read_tokenizer(read_checkpoint(folder), PAIRS)


@pytest.mark.parametrize("max_length", [8, 20, 61, 128])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_cuts_long_pairs_as_the_engine_does(tiny: Tiny, family: Family, max_length: int) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint(family))
    _, tokenizer = exporters.read_tokenizer(checkpoint)
    encoder = PairEncoder(tokenizer, max_length)
    sentences = [text for pair in PAIRS for text in pair]
    pairs = [(" ".join(sentences[:query]), " ".join(sentences[:document])) for query in range(9) for document in range(9)]
    ours = encoder.encode(pairs)
    theirs = ReferenceEncoder(checkpoint, encoder).check(pairs, ours)
    assert [pair.truncated for pair in theirs] == [pair.truncated for pair in ours]
    assert {pair.truncated for pair in theirs} == {True, False}
    assert max(len(pair.input_ids) for pair in theirs) == max_length


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_reads_as_far_into_a_text_without_boundaries_as_the_engine_does(tiny: Tiny, family: Family) -> None:
    checkpoint = read_checkpoint(tiny.checkpoint(family))
    _, tokenizer = exporters.read_tokenizer(checkpoint)
    encoder = PairEncoder(tokenizer, 64)
    unbroken = "b" * (encoder.most_chars - 3) + "xyz" + "å" * 10_000
    pairs = [("a", unbroken), (unbroken, "a"), (unbroken, unbroken), ("a", "a " * encoder.most_chars)]
    ours = encoder.encode(pairs)
    theirs = ReferenceEncoder(checkpoint, encoder).check(pairs, ours)
    assert all(pair.truncated for pair in ours)
    assert sum(len(pair.input_ids) for pair in theirs) == sum(len(pair.input_ids) for pair in ours)


def test_a_checkpoint_whose_bundle_would_be_refused_is_refused(copy: Callable[[Family], Path]) -> None:
    folder = copy("bert")
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    edit(folder / "tokenizer.json", lambda file: file.update(normalizer={"type": "Sequence", "normalizers": [step] * 9}))
    with pytest.raises(CheckpointError, match="makes texts more than 64 times as long"):
        exporters.read_tokenizer(read_checkpoint(folder))


def test_without_tokenizer_config(copy: Callable[[Family], Path]) -> None:
    folder = copy("xlm-roberta")
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").unlink()
    read_tokenizer(read_checkpoint(folder), PAIRS)


# Tokenizers that were really published

LARGEST = 250_002


def checkpoint_of(folder: Path) -> Checkpoint:
    """What `read_tokenizer` reads of a checkpoint, for a folder without weights."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return Checkpoint(
        folder=folder,
        architecture="",
        model_type=config["model_type"],
        layout="transformers",
        config={},
        numbers={},
        hidden_act="gelu",
        epsilon=1e-12,
        relevant=None,
        layers=1,
        heads=1,
        hidden_size=1,
        vocab_size=config["vocab_size"],
        type_vocab_size=1,
        max_length=512,
        pad_id=0,
        activation="sigmoid",
        parameters=0,
        license=None,
        languages=(),
    )


@pytest.mark.parametrize("name", ["bge-reranker-base-BAAI", "mmarco-mMiniLMv2-L12-H384-v1", "ms-marco-MiniLM-L-6-v2"])
def test_published_tokenizers_agree(name: str) -> None:
    checkpoint = checkpoint_of(shared("data", "tokenizers", name))
    _, tokenizer = read_tokenizer(checkpoint, as_pairs(read_samples()))
    assert tokenizer.get_vocab_size() <= checkpoint.vocab_size <= LARGEST


def test_nano_agrees() -> None:
    _, tokenizer = read_tokenizer(read_checkpoint(NANO_CHECKPOINT), as_pairs(read_samples()))
    assert tokenizer.get_vocab_size() == 12_000


# Tokenizers of a bundle that ask for too much. In a process of its own: what memory cannot be had for ends the process.

REFUSED = """
    import resource, sys
    from pathlib import Path
    from raskrank import Incompatible
    from raskrank.tokenizer import load_encoder

    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    try:
        load_encoder(Path(sys.argv[1]).read_bytes(), 128, 10**9, Path("bundle"), parallel=True)
    except Incompatible as error:
        print(error)
"""


def a_table_of_4_gigabytes(tokenizer: dict[str, Any]) -> None:
    claim = base64.b64encode(b"\xff\xff\xff\xff" + b"x" * 62).decode()
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": claim}


def a_letter_that_doubles_34_times(tokenizer: dict[str, Any]) -> None:
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [double] * 34}


def nothing_that_becomes_much(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": "b*"}, "content": "a" * 100_000}


def much_before_each_text(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"] = {"type": "Prepend", "prepend": "a" * 10_000_000}


def steps_without_end(tokenizer: dict[str, Any]) -> None:
    inner = {"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 1000}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [inner] * 100}


def a_hundred_thousand_added_tokens(tokenizer: dict[str, Any]) -> None:
    first = len(tokenizer["model"]["vocab"])
    tokenizer["added_tokens"] += [
        dict(tokenizer["added_tokens"][-1], id=first + number, content=f"t{number}", special=False, normalized=True)
        for number in range(100_000)
    ]


@pytest.mark.skipif(os.name == "nt", reason="limits memory as Unix does")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (a_table_of_4_gigabytes, "a precompiled_charsmap of 88 characters that claims 4294967295 bytes"),
        (a_letter_that_doubles_34_times, "more than 64 times as long"),
        (nothing_that_becomes_much, "more than 64 times as long"),
        (much_before_each_text, "more than 64 times as long"),
        (steps_without_end, "in more than 64 steps"),
        (a_hundred_thousand_added_tokens, "has about 1000[01]\\d added tokens, at most 10000 are read"),
    ],
)
def test_a_tokenizer_that_would_take_all_memory_or_minutes_is_refused(
    tiny: Tiny, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    values = json.loads((tiny.checkpoint("bert") / "tokenizer.json").read_text("utf-8"))
    change(values)
    write_json(tmp_path / "tokenizer.json", values)
    found = run_script(tmp_path, REFUSED, str(tmp_path / "tokenizer.json"), deadline=30).stdout
    assert re.search(f"^bundle: .*{message}", found), found


@pytest.mark.parametrize(
    "damage", [b'"precompiled_charsmap"', b'"precompiled_charsmap":"A', b'"precompiled_charsmap":"!!!!!!!!"']
)
def test_a_table_that_is_cut_is_for_the_parser_to_refuse(damage: bytes) -> None:
    with pytest.raises(Incompatible, match=r"cannot use its tokenizer\.json"):
        load_encoder(b'{"normalizer": {' + damage, 128, 10, Path("bundle"), parallel=True)


@pytest.mark.parametrize(
    "name", ["bge-reranker-base-BAAI", "mmarco-mMiniLMv2-L12-H384-v1", "jina-reranker-v2-base-multilingual"]
)
def test_published_tokenizers_are_within_the_limits(name: str) -> None:
    file = shared("data", "tokenizers", name, "tokenizer.json")
    load_encoder(file.read_bytes(), 512, LARGEST, file.parent, parallel=True)
    assert file.stat().st_size < MAX_SMALL_BYTES["tokenizer.json"] / 3
