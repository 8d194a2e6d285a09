"""PyTorch beside a bundle: what it is verified against, and what rescues its scores."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raskrank import gate
from raskrank.backend import Backend, Float32Array
from raskrank.bundle import weights_sha256
from raskrank.checkpoint import Checkpoint, read_checkpoint
from raskrank.encoding import EncodedPair, PairEncoder
from raskrank.errors import Incompatible, InputError
from raskrank.manifest import Manifest
from raskrank.process import rayon
from raskrank.reference_tokenizer import PROBES, ReferenceEncoder, tokenizer_json
from raskrank.scored import Scored, best_window
from raskrank.tokenizer import load_encoder
from raskrank.windows import Windows

Advance = Callable[[int], None]


class Reference(NamedTuple):
    """PyTorch on a checkpoint, and its tokenizer, which a bundle may have only a part of: as the engine and as transformers
    runs it."""

    backend: Backend
    encoder: PairEncoder
    judge: ReferenceEncoder


class LazyReference:
    """The checkpoint that a bundle was made from, loaded when it is first needed. Thread-safe."""

    def __init__(self, manifest: Manifest | None, checkpoint: str | None) -> None:
        """checkpoint: its folder. Default: where the manifest says."""
        self._manifest, self._checkpoint = manifest, checkpoint
        self._loaded: Reference | None = None
        self._lock = threading.Lock()

    def score(self, pairs: Sequence[tuple[str, str]], windows: Windows | None) -> list[Scored]:
        """What PyTorch gives for what the engine's own encoder makes of the pairs, in order. windows: as `Request` has them."""
        reference = self._load()
        encoded = reference.encoder.encode_windows(pairs, windows)
        return [best_window(of_pair, _one_by_one(reference.backend, of_pair, None).tolist()) for of_pair in encoded]

    def expected_logits(self, pairs: Sequence[tuple[str, str]], encoder: PairEncoder, advance: Advance | None) -> Float32Array:
        """float32 (n): the logits that transformers and PyTorch give for the pairs, in order.

        encoder: the bundle's. Raises CheckpointError where it encodes otherwise than transformers, and InputError for pairs of
        words that the model does not know.
        """
        reference = self._load()
        # A trimmed vocabulary spells otherwise on purpose; then it is the whole one that must agree.
        whole = self._manifest is not None and self._manifest.vocabulary is None
        ours = encoder if whole else reference.encoder
        encoded = reference.judge.check(pairs, ours.encode(pairs))
        if unfamiliar := gate.unfamiliar(reference.judge.unknown_share(encoded)):
            raise InputError(f"pairs: {unfamiliar}; pass pairs in a language that the model reads (--pairs)")
        return _one_by_one(reference.backend, encoded, advance)

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded.backend.close()

    def _load(self) -> Reference:
        with self._lock:
            if self._loaded is None:
                if self._manifest is None:
                    raise InputError("there is no bundle, so there is no checkpoint that it was made from")
                checkpoint = checkpoint_of(self._manifest, self._checkpoint)
                self._loaded = reference_of(checkpoint, self._manifest.max_length)
            return self._loaded


def reference_of(checkpoint: Checkpoint, max_length: int) -> Reference:
    from raskrank.torch_backend import TorchBackend

    backend, data = TorchBackend(checkpoint), tokenizer_json(checkpoint)
    encoder = load_encoder(data, max_length, checkpoint.vocab_size, checkpoint.folder, parallel=rayon.usable())
    judge = ReferenceEncoder(checkpoint, encoder)
    judge.check(PROBES, encoder.encode(PROBES))
    return Reference(backend, encoder, judge)


def checkpoint_of(manifest: Manifest | None, folder: str | None) -> Checkpoint:
    """The checkpoint in `folder`, or where the manifest says."""
    from raskrank.torch_backend import local_checkpoint

    if manifest is None:
        return read_checkpoint(Path(folder or ""))
    source = manifest.source
    place = local_checkpoint(source.model, source.revision) if folder is None else Path(folder)
    checkpoint = read_checkpoint(place, relevant_label=source.relevant_label)
    if weights_sha256(checkpoint.folder) != source.weights_sha256:
        raise Incompatible(f"{checkpoint.folder}: its weights are not those that the bundle {manifest.name} was made from")
    return checkpoint


def _one_by_one(backend: Backend, encoded: Sequence[EncodedPair], advance: Advance | None) -> Float32Array:
    """float32 (n): the logit of each pair, in order."""
    logits = np.zeros(len(encoded), np.float32)
    for index, pair in enumerate(encoded):
        logits[index] = backend.logits(pair.input_ids[None], pair.token_type_ids[None])[0]
        if advance is not None:
            advance(1)
    return logits
