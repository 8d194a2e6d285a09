"""What a bundle says of itself: one class reads and writes manifest.json, every value checked.

The file has a digest of itself, so that no changed bit goes unnoticed: the value of its key "digest" is the SHA-256 of the
file's bytes, in lower-case hexadecimal, where these 64 digits, which stand nowhere else in it, are replaced by 64 zeros.
"""

import hashlib
import json
import re
import reprlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from raskrank.activation import Activation
from raskrank.errors import Corrupt, Incompatible
from raskrank.strict_json import build, parse

MANIFEST, MODEL, WEIGHTS, TOKENIZER = "manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"
FILES = (MODEL, WEIGHTS, TOKENIZER)
FORMAT = (2, 0)  # (major, minor): a newer major format is refused; a newer minor one may have keys that are ignored
DIGEST = "digest"
UNSIGNED = "0" * 64  # in place of the digest while it is computed

Precision = Literal["int8", "fp32"]
HeadActivation = Literal["tanh", "gelu", "relu"]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes and lower-case hexadecimal SHA-256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint: hub id or folder as given to the export, commit on the hub, and what its model card states."""

    model: str
    revision: str | None
    license: str | None
    languages: tuple[str, ...]
    weights_sha256: str
    accepted_license: str | None  # a license that restricts use and was accepted at the export
    relevant_label: str | None  # of a checkpoint's two labels, the one whose share the score is; None where it has one


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the graph was made.

    scheme: "fp32", or where the ranges of int8 activations come from. groups: pairs of equal length may share a run, since
    none of them changes another's score. activation_max, weight_max: integers that stand for the largest magnitude; 0 in fp32.
    excluded_nodes: products left in fp32. instruction_set: the CPUs that the bundle is meant for, one of `cpu.TARGETS`.
    """

    scheme: str
    groups: bool
    activation_max: int
    weight_max: int
    per_channel: bool
    excluded_nodes: tuple[str, ...]
    instruction_set: str
    passes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The encoder of a bundle that our own kernels run, beside hidden_size and vocab_size of the manifest.

    intermediate: width of the feed-forward layers. epsilon: of every LayerNormalization. positions, types: rows of those
    embeddings; 0 types where the model has none, and adds nothing for them. position_offset: position of the first token.
    skipped_id: a token of this id, the padding, has the position `position_offset - 1` and is not counted; None where a token's
    position is its index and `position_offset`. head_activation: between the head's dense layer and the logit.
    """

    layers: int
    heads: int
    intermediate: int
    epsilon: float
    positions: int
    types: int
    position_offset: int
    skipped_id: int | None
    head_activation: HeadActivation


@dataclass(frozen=True, kw_only=True)
class CorpusFile:
    """A file that a vocabulary was trimmed on: its name without folders, and its lower-case hexadecimal SHA-256."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How well a trimmed vocabulary covers text that it was not made from: every tenth of the corpus's `texts` was held back,
    and measured against the pieces that the other nine use. whole_texts: share, 0 to 1, of the held-back texts all of whose
    pieces were kept; tokens: the same of their tokens. The bundle keeps the pieces of held-back texts too.
    """

    texts: int
    held_back: int
    whole_texts: float
    tokens: float


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What trimming left of a checkpoint's vocabulary: `kept` pieces `of` so many. unknown_id: the piece for what has none."""

    kept: int
    of: int
    unknown_id: int
    corpus: tuple[CorpusFile, ...]
    coverage: Coverage


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """A pair with the logit that this bundle gave when it was made; a load checks that it still does."""

    query: str
    document: str
    logit: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle says of itself. One class reads and writes it."""

    format: str
    name: str
    source: Source
    architecture: str
    parameters: int
    hidden_size: int
    max_length: int
    vocab_size: int
    pad_id: int
    inputs: tuple[str, ...]
    activation: Activation
    precision: Precision
    recipe: Recipe
    encoder: Encoder | None  # of a graph that our own kernels run
    files: dict[str, FileRecord]
    versions: dict[str, str]
    self_test: SelfTest
    parity: dict[str, Any]
    vocabulary: Vocabulary | None  # of a trimmed one

    def to_json(self) -> str:
        """The text of manifest.json, with its digest."""
        return sign(json.dumps({DIGEST: UNSIGNED} | asdict(self), ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raises Corrupt if the text is no manifest, Incompatible if it is one of a newer major format."""
        data = parse(text, MANIFEST)
        major, minor = _format(data)
        if major != FORMAT[0]:
            advice = "upgrade raskrank" if major > FORMAT[0] else "export the model again"
            raise Incompatible(f"{MANIFEST}: bundle format {major}.{minor}, this engine reads {FORMAT[0]}.x; {advice}")
        _check_digest(text, data.pop(DIGEST, None))
        manifest: Manifest = build(cls, data, MANIFEST, ignore_unknown=(major, minor) > FORMAT)
        if set(manifest.files) != set(FILES):
            raise Corrupt(f"{MANIFEST}: files are {reprlib.repr(sorted(manifest.files))}, expected {sorted(FILES)}")
        return manifest


def sign(text: str) -> str:
    """The text of a manifest whose digest is UNSIGNED, with the one that fits."""
    return text.replace(UNSIGNED, hashlib.sha256(text.encode()).hexdigest(), 1)


def _check_digest(text: str, stated: object) -> None:
    if not isinstance(stated, str) or not re.fullmatch("[0-9a-f]{64}", stated) or text.count(stated) != 1:
        raise Corrupt(f"{MANIFEST} has no digest of itself; export the model again")
    if hashlib.sha256(text.replace(stated, UNSIGNED).encode()).hexdigest() != stated:
        raise Corrupt(f"{MANIFEST} is not as the export wrote it: its digest of itself does not fit; export the model again")


def _format(data: object) -> tuple[int, int]:
    text = data.get("format") if isinstance(data, dict) else None
    major, dot, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(str(text)) < 12):
        raise Corrupt(f"{MANIFEST}: no format version such as {FORMAT[0]}.{FORMAT[1]}")
    return int(major), int(minor)
