"""A checkpoint's tokenizer, proven to be the one that transformers uses."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from raskrank.checkpoint import Checkpoint
from raskrank.errors import CheckpointError
from raskrank.manifest import TOKENIZER

FAST_CLASSES = {"bert": "BertTokenizerFast", "roberta": "RobertaTokenizerFast", "xlm-roberta": "XLMRobertaTokenizerFast"}
EDGE_PAIRS = (("", ""), ("", "a"), ("a", ""))


def read_tokenizer(checkpoint: Checkpoint, pairs: Sequence[tuple[str, str]]) -> tuple[bytes, Tokenizer]:
    """tokenizer.json's bytes, and the tokenizer.

    Raises CheckpointError if it does not fit the model or differs from transformers.

    pairs: on all of them, and on empty texts, transformers' fast tokenizer must give the same ids.
    """
    file = checkpoint.folder / TOKENIZER
    data = file.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # tokenizers raises Exception itself
        raise CheckpointError(f"{file}: not a tokenizer that tokenizers can read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= checkpoint.vocab_size:
        raise CheckpointError(f"{file}: token id {largest} has no row in the embedding of {checkpoint.vocab_size} rows")
    checked = [*EDGE_PAIRS, *pairs]
    found = [encoding.ids for encoding in tokenizer.encode_batch(checked)]
    if not all(found[: len(EDGE_PAIRS)]):
        raise CheckpointError(f"{file}: two empty texts give no token at all; the tokenizer lacks its post-processor")
    expected = _transformers_ids(checkpoint, checked)
    different = sum(ours != theirs for ours, theirs in zip(found, expected, strict=True))
    if different:
        raise CheckpointError(
            f"{file} and tokenizer_config.json disagree: transformers gives other ids for {different} of {len(checked)} "
            "pairs; save the tokenizer again with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    return data, tokenizer


def _transformers_ids(checkpoint: Checkpoint, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    import json

    import transformers

    config_file = checkpoint.folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text("utf-8")) if config_file.is_file() else {}
    generic = config.get("tokenizer_class") == "PreTrainedTokenizerFast"
    # The class is chosen from a fixed list, never by code that the folder brings.
    name = "PreTrainedTokenizerFast" if generic else FAST_CLASSES[checkpoint.model_type]
    try:
        fast = getattr(transformers, name).from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a strange tokenizer_config.json makes it raise
        raise CheckpointError(f"{checkpoint.folder}: transformers cannot load this tokenizer: {error}") from error
    ids: list[list[int]] = fast(
        [query for query, _ in pairs], [document for _, document in pairs], truncation=False, verbose=False
    )["input_ids"]
    return ids
