"""From the arguments of `Reranker.load` to what it needs to run."""

import logging
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from raskrank import cpu
from raskrank.activation import Activation
from raskrank.backend import Backend
from raskrank.bundle import opened_bundle, read_manifest, weights_sha256
from raskrank.checkpoint import Checkpoint, read_checkpoint, registry
from raskrank.checkpoint.files import read_whole
from raskrank.encoding import PairEncoder
from raskrank.errors import BundleError, Corrupt, Incompatible, InferenceError, InputError, RaskrankWarning
from raskrank.manifest import MODEL, TOKENIZER, WEIGHTS, Manifest
from raskrank.process import memory, rayon, threads
from raskrank.process.beside import beside
from raskrank.process.calls import loads
from raskrank.reference_tokenizer import PROBES, ReferenceEncoder
from raskrank.settings import Choice, absolute, choose
from raskrank.texts import Limits
from raskrank.tokenizer import load_encoder, tokenizing

logger = logging.getLogger("raskrank")

BackendName = Literal["onnx", "torch"]


def warn(message: str) -> None:
    """To the log, and to `warnings`, since a script without logging would not hear of it."""
    logger.warning(message)
    warnings.warn(message, RaskrankWarning, stacklevel=2)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `Reranker.load` was called with; with the Choice that came of it, enough to load the same in another process."""

    bundle: str | Path | Choice | None
    threads: int | None
    backend: BackendName
    fallback: Literal["torch"] | None
    checkpoint: str | None
    expected_sha256: str | None
    ignore_target: bool
    map_weights: bool
    limits: Limits

    def check(self) -> None:
        if self.threads is not None:
            threads.check(self.threads, "threads")
        if self.backend not in ("onnx", "torch"):
            raise InputError(f"backend: expected 'onnx' or 'torch', got {self.backend!r}")
        if self.fallback not in (None, "torch"):
            raise InputError(f"fallback: expected None or 'torch', got {self.fallback!r}")
        if not isinstance(self.expected_sha256, str | None):
            raise InputError(f"expected_sha256: expected str, got {type(self.expected_sha256).__name__}")
        if self.expected_sha256 is not None and not re.fullmatch("[0-9A-Fa-f]{64}", self.expected_sha256):
            raise InputError(f"expected_sha256: expected 64 hexadecimal digits, got {len(self.expected_sha256)} characters")
        if self.expected_sha256 is not None and self.checkpoint_alone:
            raise InputError("expected_sha256: it pins a bundle, and backend='torch' with a checkpoint alone reads none")
        for name in ("ignore_target", "map_weights"):
            if not isinstance(value := getattr(self, name), bool):
                raise InputError(f"{name}: expected bool, got {type(value).__name__}")
        if not isinstance(self.limits, Limits):
            raise InputError(f"limits: expected Limits, got {type(self.limits).__name__}")

    @property
    def checkpoint_alone(self) -> bool:
        return self.backend == "torch" and self.bundle is None and self.checkpoint is not None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A backend, the encoder that feeds it, and where both come from."""

    backend: Backend
    encoder: PairEncoder
    name: str
    activation: Activation
    reason: str  # why this backend
    threads_reason: str  # why so many threads
    license: str | None
    choice: Choice | None  # of the bundle; None is a checkpoint alone
    manifest: Manifest | None
    manifest_sha256: str | None


def load(options: Options) -> Loaded:
    """Load what the options ask for. Raises InputError, BundleError, CheckpointError or MissingExtra; ClosedError while Python
    exits, which waits for loads that are under way."""
    return loads.enter(lambda: _load(options))


def _load(options: Options) -> Loaded:
    options.check()
    memory.need(memory.for_load(cpu.usable_cpus()), "loading a model")
    choice = None if options.checkpoint_alone else choose(options.bundle)
    if choice is None or options.backend == "torch":
        return _load_torch(options, choice, "backend='torch' was asked for")
    try:
        return _load_onnx(options, choice)
    except (Corrupt, Incompatible) as error:
        # A pinned digest that differs may be an attack, which nothing may paper over.
        if options.fallback != "torch" or (options.expected_sha256 is not None and isinstance(error, Corrupt)):
            raise
        loaded = _load_torch(options, choice, f"fallback='torch', because the bundle cannot be used: {error}")
        warn(f"the bundle cannot be used, PyTorch takes its place: {error}")
        return loaded


class Reference(NamedTuple):
    """PyTorch on a checkpoint, and its tokenizer, which a bundle may have only a part of: as the engine and as transformers
    runs it."""

    backend: Backend
    encoder: PairEncoder
    judge: ReferenceEncoder


def load_reference(manifest: Manifest, checkpoint: str | None) -> Reference:
    """The checkpoint that a bundle was made from. Raises MissingExtra, CheckpointError or Incompatible; CheckpointError, too,
    where transformers encodes otherwise than the engine."""
    return _reference(_checkpoint(manifest, checkpoint), manifest.max_length)


def path_text(value: object, name: str) -> str | None:
    """`value` as a path of type str, or InputError. None stays None."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if path is not None and not isinstance(path, str):
        raise InputError(f"{name}: expected str or Path, got {type(value).__name__}")
    return path


def absolute_path_text(value: object, name: str) -> str | None:
    """As `path_text`, and the same place from whichever folder it is opened later."""
    path = path_text(value, name)
    return None if path is None else str(absolute(Path(path)))


def named_bundle(value: object) -> str | Path | Choice | None:
    """`value` as `settings.choose` takes it, or InputError."""
    if value is None or isinstance(value, str | Choice):
        return value
    text = path_text(value, "bundle")
    return None if text is None else Path(text)


def bundle_path(bundle: str | os.PathLike[str] | None) -> Path:
    """The folder of the bundle that `Reranker.load(bundle)` loads. Raises as `settings.choose` does."""
    return choose(bundle).path


def _load_onnx(options: Options, choice: Choice) -> Loaded:
    from raskrank.onnx_backend import OnnxBackend

    path = choice.path
    with opened_bundle(path, expected_sha256=options.expected_sha256, map_weights=options.map_weights) as bundle:
        manifest, concurrency = bundle.manifest, threads.choose(options.threads)
        _check_target(manifest, path, ignored=options.ignore_target)
        sizes = (manifest.files[name].size for name in (TOKENIZER, MODEL, WEIGHTS))
        memory.need(memory.for_files(*sizes), f"loading {path}")
        making = beside(  # for as long as the tokenizer is parsed
            lambda: OnnxBackend(
                bundle.graph,
                bundle.folder,
                manifest.inputs,
                concurrency=concurrency.number,
                hidden_size=manifest.hidden_size,
                groups=manifest.recipe.groups,
                weights=bundle.weights,
            )
        )
        with making:
            encoder = load_encoder(bundle.tokenizer, manifest.max_length, manifest.vocab_size, path, parallel=rayon.usable())
            backend = making.result()
    _check_max_length(backend.max_length, manifest, path)
    _self_test(backend, encoder, manifest, path)
    if manifest.vocabulary is not None:
        encoder.count_unknown(manifest.vocabulary.unknown_id)
    return Loaded(
        backend=backend,
        encoder=encoder,
        name=manifest.name,
        activation=manifest.activation,
        reason="a bundle runs in onnxruntime",
        threads_reason=concurrency.reason,
        license=manifest.source.license,
        choice=choice,
        manifest=manifest,
        manifest_sha256=bundle.manifest_sha256,
    )


def _check_max_length(positions: int | None, manifest: Manifest, path: Path) -> None:
    """A pair that is longer than the model has positions for would fail in the middle of a request."""
    if positions is None:
        raise Incompatible(f"{path}: its graph does not say how many tokens it has positions for; export the model again")
    if manifest.max_length > positions:
        raise Incompatible(f"{path}: its manifest allows {manifest.max_length} tokens, its graph has positions for {positions}")


def _check_target(manifest: Manifest, path: Path, *, ignored: bool) -> None:
    target = manifest.recipe.instruction_set
    if cpu.suits(target, cpu.instruction_sets()):
        return
    message = (
        f"{path}: made for {target} (--target {target}), and {cpu.why_saturating()}: its scores would be wrong here. "
        "Export the model again without --target"
    )
    if not ignored:
        raise Incompatible(f"{message}, or load it all the same with ignore_target=True or --ignore-target")
    warn(message)


def _load_torch(options: Options, choice: Choice | None, reason: str) -> Loaded:
    """The checkpoint that was named, or that the bundle was made from, with its own tokenizer."""
    manifest = digest = None
    if choice is not None:
        try:
            manifest, digest = read_manifest(choice.path, expected_sha256=options.expected_sha256)
        except BundleError:
            if options.backend == "torch" or options.checkpoint is None or options.expected_sha256 is not None:
                raise
    checkpoint = _checkpoint(manifest, options.checkpoint)
    reference = _reference(checkpoint, manifest.max_length if manifest else checkpoint.max_length)
    return Loaded(
        backend=reference.backend,
        encoder=reference.encoder,
        name=manifest.name if manifest else checkpoint.folder.name,
        activation=checkpoint.activation,
        reason=reason,
        threads_reason="PyTorch's own setting spreads each run over the cores",
        license=manifest.source.license if manifest else _license(checkpoint),
        choice=choice,
        manifest=manifest,
        manifest_sha256=digest,
    )


def _license(checkpoint: Checkpoint) -> str | None:
    known = registry.of_layout(checkpoint.layout)
    return checkpoint.license or (known.license if known else None)


def _reference(checkpoint: Checkpoint, max_length: int) -> Reference:
    from raskrank.torch_backend import TorchBackend

    backend, data = TorchBackend(checkpoint), read_whole(checkpoint.folder / TOKENIZER)
    encoder = load_encoder(data, max_length, checkpoint.vocab_size, checkpoint.folder, parallel=rayon.usable())
    judge = ReferenceEncoder(checkpoint, encoder)
    judge.check(PROBES, encoder.encode(PROBES))
    return Reference(backend, encoder, judge)


def _checkpoint(manifest: Manifest | None, folder: str | None) -> Checkpoint:
    """The checkpoint in `folder`, or where the manifest says."""
    from raskrank.torch_backend import local_checkpoint

    if manifest is None or folder is not None:
        checkpoint = read_checkpoint(Path(folder or ""))
    else:
        checkpoint = read_checkpoint(local_checkpoint(manifest.source.model, manifest.source.revision))
    if manifest is not None and weights_sha256(checkpoint.folder) != manifest.source.weights_sha256:
        raise Incompatible(f"{checkpoint.folder}: its weights are not those that the bundle {manifest.name} was made from")
    return checkpoint


def _self_test(backend: Backend, encoder: PairEncoder, manifest: Manifest, path: Path) -> None:
    """One pair whose logit is known: a tokenizer that does not fit, or a CPU that computes otherwise, shows here."""
    test = manifest.self_test
    with tokenizing(path):
        (pair,) = encoder.encode([(test.query, test.document)])
    try:
        logit = float(backend.logits(pair.input_ids[None], pair.token_type_ids[None])[0])
    except InferenceError as error:
        raise Incompatible(f"{path}: the model does not run: {error}") from error
    if not abs(logit - test.logit) <= test.tolerance:  # so written, NaN fails
        raise Incompatible(
            f"{path}: the self-test gives {logit:.4f} instead of {test.logit:.4f} (tolerance {test.tolerance}); "
            "tokenizer and model do not belong together, or this CPU computes otherwise"
        )
