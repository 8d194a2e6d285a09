"""What transformers makes of tokenizer_config.json that no sample shows: it is refused, or changes nothing."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models

from builders import Family, unigram_tokenizer, write_json
from checkpoints import edit_json
from conftest import Tiny
from raskrank.checkpoint import read_checkpoint
from raskrank.encoding import PairEncoder
from raskrank.errors import CheckpointError
from raskrank.reference_tokenizer import ReferenceEncoder
from raskrank.tokenizer_parts import differing_parts

PLAIN = [("Hvem?", "Oslo")]
MASK: dict[Family, str] = {"bert": "[MASK]", "roberta": "<mask>", "xlm-roberta": "<mask>"}
FAMILIES: tuple[Family, ...] = ("bert", "roberta", "xlm-roberta")
OPTIONS: list[dict[str, Any]] = [
    {"split_special_tokens": True},
    {"do_lower_case": False},
    {"strip_accents": True},
    {"tokenize_chinese_chars": False},
    {"add_prefix_space": True},
    {"trim_offsets": False},
    {"additional_special_tokens": ["[NEW]"]},
    {"additional_special_tokens": ["Oslo"]},
    {"extra_special_tokens": {"image_token": "[IMAGE]"}},
    {"eos_token": "[EOS]"},
    {"bos_token": "[BOS]"},
    {"mask_token": None},
    {"added_tokens_decoder": {"4": {"content": "[MASK]", "lstrip": True, "special": True, "normalized": False}}},
    {"added_tokens_decoder": {"4": {"content": "<mask>", "rstrip": True, "special": True, "normalized": False}}},
    {"added_tokens_decoder": {"9": {"content": "Oslo"}}},
    {"clean_text": False},
    {"clean_up_tokenization_spaces": False},
    {"legacy": True},
    {"padding_side": "left"},
    {"from_slow": True},
    {"model_max_length": 12},
    {"max_length": 12, "truncation": True, "stride": 2},
]


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a tiny checkpoint, with keys of its tokenizer_config.json replaced."""

    def make(family: Family, **updates: object) -> Path:
        folder = Path(shutil.copytree(tiny.checkpoint(family), tmp_path / "checkpoint"))
        file = folder / "tokenizer_config.json"
        write_json(file, json.loads(file.read_text("utf-8")) | updates)
        return folder

    return make


def check(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """What an export asks of a tokenizer. Raises CheckpointError."""
    checkpoint = read_checkpoint(folder)
    encoder = PairEncoder(Tokenizer.from_file(str(folder / "tokenizer.json")), checkpoint.max_length)
    ReferenceEncoder(checkpoint, encoder).check(pairs, encoder.encode(pairs))


@pytest.mark.parametrize("options", OPTIONS, ids=json.dumps)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_option_of_the_tokenizer_is_ignored(copy: Callable[..., Path], family: Family, options: dict[str, Any]) -> None:
    folder, mask = copy(family, **options), MASK[family]
    try:
        check(folder, PLAIN)
    except CheckpointError:
        return
    # What passed gives the same ids for texts that no sample is like.
    texts = [f"a {mask} b", "[NEW]", "[IMAGE] Oslo", "Oslo", "[SEP]</s>", "東京 weather", "É ø", " a", "[EOS][BOS]", "  "]
    check(folder, [(text, other) for text in texts for other in (mask, "Oslo")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_special_tokens": True}, "split_special_tokens is True"),
        ({"additional_special_tokens": ["[NEW]"]}, r"BertTokenizer(Fast)? has other added tokens, .*save the tokenizer again"),
        ({"tokenize_chinese_chars": False}, r"BertTokenizer(Fast)? has other normalizer, "),
    ],
    ids=json.dumps,
)
def test_what_the_samples_do_not_show_is_refused_by_name(
    copy: Callable[..., Path], options: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        check(copy("bert", **options), PLAIN)


def test_a_tokenizer_that_cuts_at_the_start_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy("bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64, direction="left")
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r'cuts texts at their start.*set "truncation_side" to "right"'):
        check(folder, PLAIN)
    edit_json(folder / "tokenizer_config.json", {"truncation_side": "right"})
    check(folder, PLAIN)


@pytest.mark.parametrize("options", [{"do_lower_case": False}, {"tokenize_chinese_chars": False}], ids=json.dumps)
def test_saving_the_tokenizer_again_mends_what_disagrees_as_the_message_says(
    copy: Callable[..., Path], options: dict[str, object]
) -> None:
    folder = copy("bert", **options)
    with pytest.raises(CheckpointError, match=r"AutoTokenizer\.from_pretrained\(\.\.\.\)\.save_pretrained\(\.\.\.\)$"):
        check(folder, PLAIN)
    auto: Any = transformers.AutoTokenizer
    auto.from_pretrained(folder).save_pretrained(folder)
    check(folder, [*PLAIN, ("Hvem kan Python?", "東京 weather")])


def test_equal_tokenizers_have_no_differing_parts() -> None:
    assert differing_parts(unigram_tokenizer(), unigram_tokenizer()) == []
    other = unigram_tokenizer()
    other.normalizer = other.post_processor = None
    assert differing_parts(unigram_tokenizer(), other) == ["normalizer", "post_processor"]


def test_a_large_vocabulary_brings_no_false_warning(copy: Callable[..., Path]) -> None:
    # transformers 4.57 takes any tokenizer of more than 100,000 pieces, saved by itself, for a broken Mistral's.
    folder = copy("xlm-roberta")
    small = json.loads(unigram_tokenizer().to_str())
    vocabulary = [(piece, score) for piece, score in small["model"]["vocab"]]
    tokenizer = unigram_tokenizer()
    tokenizer.model = models.Unigram([*vocabulary, *((f"zq{n}", -20.0) for n in range(100_001))], unk_id=3)
    tokenizer.save(str(folder / "tokenizer.json"))
    said = list[str]()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener()
    log = logging.getLogger("transformers")
    log.addHandler(listener)
    try:
        transformers.XLMRobertaTokenizerFast.from_pretrained(folder)
        assert any("incorrect regex pattern" in message for message in said)
        said.clear()
        check(folder, PLAIN)
    finally:
        log.removeHandler(listener)
    assert said == []
