"""A checkpoint's tokenizer, as the engine reads it."""

from tokenizers import Tokenizer

from raskrank.checkpoint import Checkpoint
from raskrank.errors import CheckpointError, Incompatible
from raskrank.manifest import TOKENIZER
from raskrank.reference_tokenizer import PROBES, tokenizer_json
from raskrank.tokenizer import read_tokenizer as tokenizer_of


def read_tokenizer(checkpoint: Checkpoint) -> tuple[bytes, Tokenizer]:
    """tokenizer.json's bytes, and the tokenizer; made by transformers where the checkpoint has its vocabulary alone.

    Raises CheckpointError if it does not fit the model.

    Whether transformers gives the same is for `ReferenceEncoder.check`.
    """
    file = checkpoint.folder / TOKENIZER
    data = tokenizer_json(checkpoint)
    try:
        tokenizer = tokenizer_of(data, checkpoint.folder)
    except Incompatible as error:
        raise CheckpointError(str(error)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= checkpoint.vocab_size:
        raise CheckpointError(f"{file}: token id {largest} has no row in the embedding of {checkpoint.vocab_size} rows")
    if not all(encoding.ids for encoding in tokenizer.encode_batch(list(PROBES))):
        raise CheckpointError(f"{file}: two empty texts give no token at all; the tokenizer lacks its post-processor")
    return data, tokenizer
