"""The whole path of an export: read -> reference -> graph -> gate -> quantise -> gate -> write."""

import math
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from raskrank import bundle, cpu
from raskrank.backend import Backend, Float32Array
from raskrank.checkpoint import Checkpoint, read_checkpoint
from raskrank.encoding import EncodedPair, PairEncoder
from raskrank.errors import BundleError, ExportError, InferenceError, InputError
from raskrank.manifest import FILES, FORMAT, MANIFEST, MODEL, TOKENIZER, Manifest, Precision, Recipe, SelfTest, Source
from raskrank.onnx_backend import OnnxBackend
from raskrank.parity import SAMPLE_PAIRS, compare
from raskrank.running import Workers, run_pairs
from raskrank.texts import positive
from raskrank.torch_backend import TorchBackend
from raskrank_export import gate, graph
from raskrank_export.gate import Thresholds
from raskrank_export.progress import Clock, Progress, Silent
from raskrank_export.quantize import WEIGHT_MAX, quantize
from raskrank_export.report import ExportReport
from raskrank_export.samples import as_pairs, read_samples
from raskrank_export.source import ResolvedSource, resolve
from raskrank_export.tokenizer import read_tokenizer
from raskrank_export.write import bundle_folder

MAKERS = ("raskrank", "torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "tokenizers", "numpy")
# How far the self-test may be off on another machine: fp32 sums in another order, and now and then an int8 value that falls
# to the neighbour. A wrong tokenizer, or saturating products, are off by tenths.
SELF_TEST_TOLERANCE = {"fp32": 1e-3, "int8": 0.05}


def export(
    model: str,
    output: str | Path,
    *,
    precision: Precision = "int8",
    revision: str | None = None,
    max_length: int | None = None,
    samples: str | Path | None = None,
    thresholds: Thresholds | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Turn a cross-encoder into a bundle that ranks the same, or raise and write nothing.

    model: a local folder or a hub id. revision: branch, tag or commit on the hub.
    max_length: tokens of a pair with its special tokens; without, what the checkpoint allows, which it may not exceed.
    samples: JSON Lines or TSV of one's own to judge the bundle on (`read_samples`); without, the set that comes with this.
    thresholds: what may differ. They are recorded in the manifest.
    overwrite: replace a bundle at `output`; readers of the old one keep it.

    Raises NotACrossEncoder, ExportError, ParityError, or InputError for the caller's own arguments.
    """
    if precision not in ("int8", "fp32"):
        raise InputError(f"precision: expected 'int8' or 'fp32', got {precision!r}")
    limits, shown = thresholds or Thresholds(), progress or Silent()
    clock = Clock(shown)
    pairs = as_pairs(read_samples(Path(samples) if samples is not None else None))
    with bundle_folder(Path(output), overwrite=overwrite) as folder, _as_export_errors(model):
        with clock.step("read checkpoint"):
            source = resolve(model, revision=revision)
            checkpoint = read_checkpoint(source.folder)
            tokenizer_json, tokenizer = read_tokenizer(checkpoint, pairs)
            encoder = _encoder(tokenizer, max_length, checkpoint)
            encoded = encoder.encode(pairs)
        with clock.step("score with PyTorch", len(pairs)):
            torch_backend = TorchBackend(checkpoint)
            _check_weights(torch_backend, checkpoint)
            reference = ("torch fp32", _logits(torch_backend, encoded, shown))
            _check_reference(reference[1], checkpoint)
        scratch = folder / "scratch"
        with clock.step("export to ONNX"):
            file = graph.export_model(torch_backend.model, scratch)
            torch_backend.close()
            onnx_model, passes = graph.lean_graph(file, checkpoint)
        inputs = tuple(value.name for value in onnx_model.graph.input)
        graph.save(onnx_model, folder)
        with clock.step("score with ONNX fp32", len(pairs)):
            logits = _bundle_logits(folder, inputs, encoded, shown)
            fp32_parity = parity = compare(pairs, reference, ("onnx fp32", logits))
            gate.check(fp32_parity, limits, "fp32")
        if precision == "int8":
            with clock.step("quantise to int8"):
                quantize(onnx_model)
                graph.save(onnx_model, folder)
            with clock.step("score with ONNX int8", len(pairs)):
                logits = _bundle_logits(folder, inputs, encoded, shown)
                parity = compare(pairs, reference, ("onnx int8", logits))
                gate.check(parity, limits, "int8")
        del onnx_model
        shutil.rmtree(scratch)
        with clock.step("write bundle"):
            (folder / TOKENIZER).write_bytes(tokenizer_json)
            measured: dict[str, Any] = {
                "fp32": fp32_parity.summary(),
                precision: parity.summary(),
                "thresholds": asdict(limits),
            }
            measured["samples"] = "default" if samples is None else Path(samples).name
            recipe = _recipe(precision, passes)
            manifest = _manifest(folder, source, checkpoint, encoder, inputs, precision, recipe, measured)
            (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")
            digest = bundle.record(folder / MANIFEST).sha256
            size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportReport(
        output=str(output),
        manifest_sha256=digest,
        manifest=manifest,
        fp32_parity=fp32_parity,
        parity=parity,
        checkpoint_bytes=sum(file.stat().st_size for file in checkpoint.folder.glob("*.safetensors")),
        bundle_bytes=size,
        peak_memory_bytes=_peak_memory(),
        seconds=clock.seconds,
    )


@contextmanager
def _as_export_errors(model: str) -> Iterator[None]:
    """What the engine raises about bundles and runs is about the export here."""
    try:
        yield
    except (BundleError, InferenceError) as error:
        raise ExportError(f"{model}: {error}") from error


def _encoder(tokenizer: Tokenizer, asked: int | None, checkpoint: Checkpoint) -> PairEncoder:
    encoder = PairEncoder(tokenizer, checkpoint.max_length)
    if asked is None:
        return encoder
    least, most = encoder.max_length - encoder.budget + 2, checkpoint.max_length  # a token of each text beside the specials
    if not least <= positive(asked, "max_length") <= most:
        raise InputError(f"max_length: expected {least} to {most} tokens for this checkpoint, got {asked}")
    return PairEncoder(tokenizer, asked)


def _check_weights(backend: TorchBackend, checkpoint: Checkpoint) -> None:
    for name, parameter in backend.model.named_parameters():
        if not all(math.isfinite(end) for end in parameter.detach().aminmax()):  # NaN comes out as both ends
            raise ExportError(
                f"{checkpoint.folder}: {name} holds NaN or infinity; the weights are damaged, download them again"
            )


def _check_reference(logits: Float32Array, checkpoint: Checkpoint) -> None:
    if wrong := np.count_nonzero(~np.isfinite(logits)):
        raise ExportError(
            f"{checkpoint.folder}: PyTorch itself gives NaN or infinity for {wrong} of {len(logits)} sample pairs; "
            "no bundle could rank like that"
        )


def _logits(backend: Backend, encoded: list[EncodedPair], progress: Progress) -> Float32Array:
    workers = Workers(backend.concurrency)
    try:
        return run_pairs(backend, workers, encoded, progress.advance)
    finally:
        workers.close()


def _bundle_logits(folder: Path, inputs: tuple[str, ...], encoded: list[EncodedPair], progress: Progress) -> Float32Array:
    """Logits of the graph as the engine will run it."""
    # hidden_size 0: no run is spread over cores; there are pairs enough to keep them busy.
    graph_bytes = (folder / MODEL).read_bytes()
    backend = OnnxBackend(graph_bytes, folder, inputs, concurrency=cpu.usable_cpus(), hidden_size=0)
    try:
        return _logits(backend, encoded, progress)
    finally:
        backend.close()


def _recipe(precision: Precision, passes: dict[str, int]) -> Recipe:
    if precision == "fp32":
        return Recipe(scheme="fp32", weight_bits=32, per_channel=False, excluded_nodes=(), instruction_set="any", passes=passes)
    return Recipe(
        scheme="int8 dynamic, one activation range per tensor",
        weight_bits=WEIGHT_MAX.bit_length(),
        per_channel=True,
        excluded_nodes=(),
        instruction_set="any",
        passes=passes,
    )


def _manifest(
    folder: Path,
    source: ResolvedSource,
    checkpoint: Checkpoint,
    encoder: PairEncoder,
    inputs: tuple[str, ...],
    precision: Precision,
    recipe: Recipe,
    parity: dict[str, Any],
) -> Manifest:
    query, document = SAMPLE_PAIRS[0]
    logit = float(_bundle_logits(folder, inputs, encoder.encode([(query, document)]), Silent())[0])
    return Manifest(
        format=".".join(map(str, FORMAT)),
        name=Path(os.path.normpath(Path(source.name).absolute())).name,  # of ".", too
        source=Source(
            model=source.name,
            revision=source.revision,
            licence=checkpoint.licence,
            languages=checkpoint.languages,
            weights_sha256=bundle.weights_sha256(source.folder),
        ),
        architecture=checkpoint.architecture,
        parameters=checkpoint.parameters,
        hidden_size=checkpoint.hidden_size,
        max_length=encoder.max_length,
        vocab_size=checkpoint.vocab_size,
        pad_id=checkpoint.pad_id,
        inputs=inputs,
        activation=checkpoint.activation,
        precision=precision,
        recipe=recipe,
        files={name: bundle.record(folder / name) for name in FILES},
        versions={package: version(package) for package in MAKERS},
        self_test=SelfTest(query=query, document=document, logit=logit, tolerance=SELF_TEST_TOLERANCE[precision]),
        parity=parity,
    )


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
