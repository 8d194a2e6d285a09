"""What is exported: a checkpoint with its tokenizer, and the sample pairs as they are encoded for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from raskrank import gate
from raskrank.checkpoint import Checkpoint
from raskrank.encoding import EncodedPair, PairEncoder
from raskrank.errors import ExportError, InputError
from raskrank.reference_tokenizer import PROBES, ReferenceEncoder
from raskrank.texts import positive
from raskrank_export.job import Job
from raskrank_export.source import ResolvedSource, resolve
from raskrank_export.source import read as read_source
from raskrank_export.tokenizer import read_tokenizer
from raskrank_export.trim import Trimmed, trim_vocabulary


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A checkpoint, and the sample pairs in order: `encoded` by the engine, `expected` by transformers itself."""

    source: ResolvedSource
    checkpoint: Checkpoint
    tokenizer_json: bytes
    tokenizer: Tokenizer
    encoder: PairEncoder
    encoded: Sequence[EncodedPair]
    expected: Sequence[EncodedPair]


def read(job: Job) -> Subject:
    """Download or find the checkpoint, and encode the samples. Raises as `resolve` does, and where the two encode otherwise."""
    options = job.options
    with job.clock.step("read checkpoint"):
        accepted, label = options.accepted_license, options.relevant_label
        source = resolve(options.model, revision=options.revision, accepted_license=accepted, relevant_label=label)
        checkpoint = read_source(source, accepted_license=accepted, relevant_label=label)
        tokenizer_json, tokenizer = read_tokenizer(checkpoint)
        asked = source.export_length if options.max_length is None else options.max_length
        encoder = _encoder(tokenizer, asked, checkpoint)
        encoded = encoder.encode(options.pairs)
        return Subject(
            source=source,
            checkpoint=checkpoint,
            tokenizer_json=tokenizer_json,
            tokenizer=tokenizer,
            encoder=encoder,
            encoded=encoded,
            expected=_reference_encodings(checkpoint, encoder, options.pairs, encoded),
        )


def trim(job: Job, subject: Subject) -> Trimmed | None:
    """The tokenizer with what the corpus uses; None if there is no corpus."""
    if not job.options.corpus:
        return None
    with job.clock.step("trim vocabulary"):
        return trim_vocabulary(
            subject.tokenizer_json,
            subject.tokenizer,
            job.options.corpus,
            pad_id=subject.checkpoint.pad_id,
            form=job.options.corpus_form,
        )


def with_vocabulary(job: Job, subject: Subject, trimmed: Trimmed) -> Subject:
    """The same with the trimmed tokenizer, which may spell some samples otherwise."""
    checkpoint, kept = subject.checkpoint, len(trimmed.kept)
    encoder = PairEncoder(trimmed.tokenizer, subject.encoder.max_length)
    dropped = (checkpoint.vocab_size - kept) * checkpoint.numbers.get("embedding_size", checkpoint.hidden_size)
    return replace(
        subject,
        checkpoint=replace(checkpoint, vocab_size=kept, parameters=checkpoint.parameters - dropped),
        tokenizer_json=trimmed.tokenizer_json,
        tokenizer=trimmed.tokenizer,
        encoder=encoder,
        encoded=encoder.encode(job.options.pairs),
    )


def _reference_encodings(
    checkpoint: Checkpoint, encoder: PairEncoder, pairs: Sequence[tuple[str, str]], encoded: Sequence[EncodedPair]
) -> list[EncodedPair]:
    """What transformers itself gives for the pairs, once it is what the engine gives, and known to the model."""
    reference = ReferenceEncoder(checkpoint, encoder)
    reference.check(PROBES, encoder.encode(PROBES))
    expected = reference.check(pairs, encoded)
    if unfamiliar := gate.unfamiliar(reference.unknown_share(expected)):
        raise ExportError(
            f"{checkpoint.folder}: {unfamiliar}. Give samples in a language that it reads, with samples= or --samples"
        )
    return expected


def _encoder(tokenizer: Tokenizer, asked: int | None, checkpoint: Checkpoint) -> PairEncoder:
    encoder = PairEncoder(tokenizer, checkpoint.max_length)
    if asked is None:
        return encoder
    least, most = encoder.max_length - encoder.budget + 2, checkpoint.max_length  # a token of each text beside the specials
    if not least <= positive(asked, "max_length") <= most:
        raise InputError(f"max_length: expected {least} to {most} tokens for this checkpoint, got {asked}")
    return PairEncoder(tokenizer, asked)
