"""From the arguments of `Reranker.load` to what it needs to run."""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raskrank import cpu, native_backend
from raskrank.activation import Activation
from raskrank.backend import Backend
from raskrank.bundle import Bundle, opened_bundle, read_manifest
from raskrank.checkpoint import Checkpoint, registry
from raskrank.encoding import PairEncoder
from raskrank.errors import BundleError, Corrupt, Incompatible, InferenceError, RaskrankWarning
from raskrank.manifest import MODEL, TOKENIZER, WEIGHTS, Manifest
from raskrank.native_backend import NativeBackend
from raskrank.network import Network
from raskrank.options import BackendName, Options
from raskrank.process import memory, rayon, threads
from raskrank.process.beside import beside
from raskrank.process.calls import loads
from raskrank.reference import checkpoint_of, reference_of
from raskrank.settings import Choice, choose
from raskrank.tokenizer import load_encoder, tokenizing

if TYPE_CHECKING:
    from raskrank.onnx_backend import OnnxBackend

logger = logging.getLogger("raskrank")


def warn(message: str) -> None:
    """To the log, and to `warnings`, since a script without logging would not hear of it."""
    logger.warning(message)
    warnings.warn(message, RaskrankWarning, stacklevel=2)


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
        return _load_bundle(options, choice)
    except (Corrupt, Incompatible) as error:
        # A pinned digest that differs may be an attack, which nothing may paper over.
        if options.fallback != "torch" or (options.expected_sha256 is not None and isinstance(error, Corrupt)):
            raise
        loaded = _load_torch(options, choice, f"fallback='torch', because the bundle cannot be used: {error}")
        warn(f"the bundle cannot be used, PyTorch takes its place: {error}")
        return loaded


def _load_bundle(options: Options, choice: Choice) -> Loaded:
    path = choice.path
    with opened_bundle(path, expected_sha256=options.expected_sha256, map_weights=options.map_weights) as bundle:
        manifest, concurrency = bundle.manifest, threads.choose(options.threads)
        name, reason = _choose_backend(options.backend, manifest, path)
        _check_target(manifest, path, ignored=options.ignore_target)
        sizes = (manifest.files[name].size for name in (TOKENIZER, MODEL, WEIGHTS))
        memory.need(memory.for_files(*sizes), f"loading {path}")
        with beside(lambda: _make(name, bundle, concurrency.number)) as making:
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
        reason=reason,
        threads_reason=concurrency.reason,
        license=manifest.source.license,
        choice=choice,
        manifest=manifest,
        manifest_sha256=bundle.manifest_sha256,
    )


def _choose_backend(asked: BackendName | None, manifest: Manifest, path: Path) -> tuple[BackendName, str]:
    """The backend of a bundle, and why that one. Raises Incompatible where the kernels are asked for and cannot run it."""
    if asked == "onnx":
        return "onnx", "backend='onnx' was asked for"
    obstacle = native_backend.why_not(manifest.encoder)
    if asked is None:
        return ("onnx", f"not native: {obstacle}") if obstacle else ("native", "this bundle and this CPU allow it")
    if obstacle:
        raise Incompatible(f"{path}: backend='native' was asked for: {obstacle}; backend='onnx' runs it, as does no backend")
    return "native", "backend='native' was asked for"


def _make(name: BackendName, bundle: Bundle, concurrency: int) -> "OnnxBackend | NativeBackend":
    if name == "native":
        return NativeBackend(Network.of(bundle), concurrency)
    from raskrank.onnx_backend import OnnxBackend  # not for nothing: it takes a third of a first score, and memory

    return OnnxBackend(Network.of(bundle), concurrency)


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
    checkpoint = checkpoint_of(manifest, options.checkpoint)
    reference = reference_of(checkpoint, manifest.max_length if manifest else checkpoint.max_length)
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
