"""The whole path of an export: read -> reference -> graph -> gate -> quantize -> gate -> write."""

import gc
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tokenizers import Tokenizer

from raskrank import bundle, cpu, gate
from raskrank.backend import Float32Array
from raskrank.checkpoint import Checkpoint
from raskrank.documents import Form
from raskrank.encoding import EncodedPair, PairEncoder
from raskrank.errors import BundleError, ExportError, InferenceError, InputError
from raskrank.gate import Thresholds
from raskrank.manifest import MANIFEST, TOKENIZER, Precision
from raskrank.parity import Parity, compare
from raskrank.reference_tokenizer import PROBES, ReferenceEncoder
from raskrank.samples import as_pairs, read_samples
from raskrank.settings import as_folder
from raskrank.texts import positive
from raskrank.torch_backend import TorchBackend
from raskrank_export import graph
from raskrank_export.calibrate import channel_magnitudes
from raskrank_export.describe import make_manifest, make_recipe, recorded_name
from raskrank_export.halves import halve
from raskrank_export.ladder import Judge, climb
from raskrank_export.progress import Clock, Progress, Silent
from raskrank_export.quantize import EXACT, PORTABLE, ActivationScheme, Levels, Quantization
from raskrank_export.report import ExportReport
from raskrank_export.rounding import fp32_rounding, rounding_pairs
from raskrank_export.scoring import graph_logits, logits_of
from raskrank_export.smoothing import unit_divisors
from raskrank_export.source import read, resolve
from raskrank_export.tokenizer import read_tokenizer
from raskrank_export.trim import corpus_files, trim_embedding, trim_vocabulary
from raskrank_export.write import bundle_folder

CALIBRATE_EVERY = 2  # of samples too few for two halves: constant ranges come from every other pair


def export(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    precision: Precision = "int8",
    revision: str | None = None,
    max_length: int | None = None,
    samples: str | Path | None = None,
    scheme: ActivationScheme = "row",
    target: cpu.Target = "portable",
    trim_vocab: Sequence[str | Path] = (),
    trim_form: Form | None = None,
    accept_license: str | None = None,
    thresholds: Thresholds | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Turn a cross-encoder into a bundle that ranks the same, or raise and write nothing.

    precision: "int8" that fails the thresholds is repaired as cheaply as possible, and where nothing helps the bundle is
        fp32; the report says what was done and what it costs. A repair is chosen on one half of the samples and judged on the
        other.
    model: a hub id, "owner/name", or a checkpoint's folder; one whose path has the form of an id is written "./owner/name", or
        given as a Path. revision: branch, tag or commit on the hub.
    max_length: tokens of a pair with its special tokens; without, what the checkpoint allows, which it may not exceed, or
        less for a known hub model that is used with less (512 for BAAI/bge-reranker-v2-m3).
    samples: JSON Lines or TSV of one's own to judge the bundle on (`read_samples`); without, the set that comes with this.
    scheme: where int8 takes the ranges of activations from. "row" measures each token at run time; "constant" finds them on
        half of the samples, which is 5 to 7% faster, and less exact for texts unlike these.
    target: CPUs that int8 is for. "portable" scores right on every CPU; "vnni" has finer levels, for x86 with VNNI or AMX and
        for ARM. Elsewhere its products overflow, so that such a bundle can neither be made nor loaded there.
    trim_vocab: files of documents, in any form that `raskrank rank` reads; the bundle keeps only the pieces of the vocabulary
        that they use, and single characters. A text whose pieces are all kept scores bit for bit as without.
    trim_form: which fields of those files to read; without, as `raskrank rank` does.
    accept_license: "cc-by-nc-4.0", where that is the model's license: one that restricts use has to be accepted by its name.
    thresholds: what may differ. They are recorded in the manifest.
    overwrite: replace a bundle at `output`; readers of the old one keep it.

    Raises NotACrossEncoder, ExportError, ParityError, or InputError for the caller's own arguments.
    """
    if precision not in ("int8", "fp32"):
        raise InputError(f"precision: expected 'int8' or 'fp32', got {precision!r}")
    model = model if isinstance(model, str) else as_folder(model)
    limits, shown = thresholds or Thresholds(), progress or Silent()
    clock, levels = Clock(shown), _levels(target, precision)
    if scheme not in get_args(ActivationScheme):
        raise InputError(f"scheme: expected one of {', '.join(get_args(ActivationScheme))}, got {scheme!r}")
    pairs = as_pairs(read_samples(Path(samples) if samples is not None else None))
    corpus, trimmed = corpus_files(trim_vocab), None
    with bundle_folder(Path(output), overwrite=overwrite) as folder, _as_export_errors(model):
        with clock.step("read checkpoint"):
            source = resolve(model, revision=revision, accepted_license=accept_license)
            checkpoint = read(source, accepted_license=accept_license)
            tokenizer_json, tokenizer = read_tokenizer(checkpoint)
            encoder = _encoder(tokenizer, max_length if max_length is not None else source.export_length, checkpoint)
            encoded = encoder.encode(pairs)
            expected = _reference_encodings(checkpoint, encoder, pairs, encoded)
        if corpus:
            with clock.step("trim vocabulary"):
                trimmed = trim_vocabulary(tokenizer_json, tokenizer, corpus, pad_id=checkpoint.pad_id, form=trim_form)
        with clock.step("score with PyTorch", len(pairs)):
            torch_backend = TorchBackend(checkpoint)
            _check_weights(torch_backend, checkpoint)
            reference = ("torch fp32", logits_of(torch_backend, expected, shown))
            _check_reference(reference[1], checkpoint)
        scratch = folder / "scratch"
        with clock.step("export to ONNX"):
            file = graph.export_model(torch_backend.model, scratch)
            torch_backend.close()
            gc.collect()  # the tracing leaves the model, and so all of its weights, in cycles
            onnx_model, passes, left = graph.lean_graph(file, checkpoint)
            graph.check_epsilons(onnx_model, checkpoint)
        inputs = tuple(value.name for value in onnx_model.graph.input)
        graph.save(onnx_model, folder)
        with clock.step("score with ONNX fp32", len(pairs)):
            logits = graph_logits(folder, inputs, encoded, shown)
        chosen = rounding_pairs(expected, np.abs(logits - reference[1]))
        with clock.step("score with PyTorch fp64", len(chosen)):
            rounding = fp32_rounding(checkpoint, [expected[index] for index in chosen], reference[1][chosen], shown)
            gc.collect()
            fp32_parity = parity = compare(pairs, reference, ("onnx fp32", logits), rounding=rounding)
            gate.check(fp32_parity, limits, "fp32")
            _check_order(fp32_parity, checkpoint)
            halves = halve(pairs, reference[1], rounding)
        measured: dict[str, Any] = {"fp32": fp32_parity.summary()}
        plain = Quantization(scheme=scheme, levels=levels)
        if precision == "int8" and scheme == "constant":
            known = [encoded[index] for index in halves.chosen_on] if halves else encoded[::CALIBRATE_EVERY]
            with clock.step("find ranges", len(known)):
                magnitudes = channel_magnitudes(folder, known, shown)
                plain = replace(plain, smoothing=unit_divisors(folder, magnitudes))
        if trimmed is not None:
            trim_embedding(onnx_model, trimmed.kept, scratch / "kept.bin")
            graph.save(onnx_model, folder)
            tokenizer_json, encoder = trimmed.tokenizer_json, PairEncoder(trimmed.tokenizer, encoder.max_length)
            checkpoint = _with_fewer_pieces(checkpoint, len(trimmed.kept))
            before, encoded = encoded, encoder.encode(pairs)
            respelled = [index for index, pair in enumerate(encoded) if not trimmed.same(before[index], pair)]
            with clock.step("score what is spelled otherwise", len(respelled)):
                logits = logits.copy()
                logits[respelled] = graph_logits(folder, inputs, [encoded[index] for index in respelled], shown)
                parity = compare(pairs, reference, ("onnx fp32, trimmed", logits), rounding=rounding)
                gate.check(parity, limits, "trimmed")
            measured["trimmed"] = parity.summary()
        climbed = None
        if precision == "int8":
            judge = Judge(
                pairs=pairs,
                encoded=encoded,
                reference=reference,
                rounding=rounding,
                halves=halves,
                inputs=inputs,
                thresholds=limits,
            )
            climbed = climb(onnx_model, folder, scratch, plain, judge, parity, clock)
            precision, parity = climbed.precision, climbed.passed.parity
            measured |= climbed.summary()
        del onnx_model
        shutil.rmtree(scratch)
        with clock.step("write bundle"):
            (folder / TOKENIZER).write_bytes(tokenizer_json)
            measured["thresholds"] = asdict(limits)
            measured["samples"] = "default" if samples is None else recorded_name(samples)
            recipe = make_recipe(climbed.passed.rung.quantization if climbed else None, target, passes)
            vocabulary = trimmed.vocabulary if trimmed else None
            manifest = make_manifest(folder, source, checkpoint, encoder, inputs, precision, recipe, measured, vocabulary)
            (folder / MANIFEST).write_bytes(manifest.to_json().encode())  # as they are: it has a digest of its bytes
            digest = bundle.record(folder / MANIFEST).sha256
            size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportReport(
        output=str(output),
        manifest_sha256=digest,
        manifest=manifest,
        fp32_parity=fp32_parity,
        parity=parity,
        climb=climbed,
        left=left,
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


def _with_fewer_pieces(checkpoint: Checkpoint, kept: int) -> Checkpoint:
    dropped = (checkpoint.vocab_size - kept) * checkpoint.hidden_size
    return replace(checkpoint, vocab_size=kept, parameters=checkpoint.parameters - dropped)


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


def _check_order(parity: Parity, checkpoint: Checkpoint) -> None:
    ranked, queries = parity.ranked_queries, len(set(parity.queries))
    if ranked < gate.MIN_RANKED:
        raise ExportError(
            f"{checkpoint.folder}: for {queries - ranked} of {queries} sample queries PyTorch gives all documents the same "
            "score, up to rounding, so there is no order that a bundle could be compared by. Check that the checkpoint is a "
            "trained reranker, or give samples whose documents it tells apart, with samples= or --samples"
        )


def _levels(target: cpu.Target, precision: Precision) -> Levels:
    if target not in cpu.TARGETS:
        raise InputError(f"target: expected one of {', '.join(cpu.TARGETS)}, got {target!r}")
    if precision == "int8" and not cpu.suits(target, cpu.instruction_sets()):
        raise ExportError(
            f"target {target!r}: {cpu.why_saturating()}, and the gate would judge other scores than the target gives. Export "
            "on a CPU of that kind, or with target='portable' (--target portable)"
        )
    return EXACT if target == "vnni" else PORTABLE


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
