"""The whole path of an export: read -> reference -> graph -> gate -> quantize -> gate -> write."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from raskrank import bundle, cpu
from raskrank.checkpoint.modules import weights_files
from raskrank.documents import Form
from raskrank.errors import BundleError, ExportError, InferenceError
from raskrank.extras import need_exporter
from raskrank.gate import Thresholds
from raskrank.manifest import MANIFEST, TOKENIZER, Manifest, Precision
from raskrank.torch_backend import TorchBackend
from raskrank_export import subject
from raskrank_export.calibrate import channel_magnitudes
from raskrank_export.describe import make_manifest, make_recipe
from raskrank_export.encoder import Parts
from raskrank_export.graph import LeanGraph, check_epsilons, make_graph, save
from raskrank_export.job import Job, check_options
from raskrank_export.judging import Judgement, judge_fp32, judge_trimmed, score_with_pytorch
from raskrank_export.ladder import climb
from raskrank_export.progress import Clock, Progress, Silent
from raskrank_export.quantization import GROUP, ActivationScheme, Quantization
from raskrank_export.quantize import kernel_parts
from raskrank_export.report import ExportReport
from raskrank_export.rungs import Climb
from raskrank_export.smoothing import unit_divisors
from raskrank_export.subject import Subject
from raskrank_export.trim import Trimmed, trim_embedding
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
    scheme: ActivationScheme | None = None,
    target: cpu.Target = "portable",
    trim_vocab: Sequence[str | Path] = (),
    trim_form: Form | None = None,
    accept_license: str | None = None,
    relevant_label: str | int | None = None,
    thresholds: Thresholds | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Turn a cross-encoder into a bundle that ranks the same, or raise and write nothing.

    model: a hub id, "owner/name", or a checkpoint's folder; one whose path has the form of an id is written "./owner/name", or
        given as a Path.
    output: the folder to write. Its parents are made.
    precision: "int8" or "fp32". int8 that fails the thresholds is repaired as cheaply as possible, and where nothing helps the
        bundle is fp32; the report says what was done and what it costs. A repair is chosen on one half of the samples and
        judged on the other.
    revision: branch, tag or commit on the hub. Default: the main branch.
    max_length: tokens of a pair, special tokens included. Default and maximum: what the checkpoint allows; for
        BAAI/bge-reranker-v2-m3 the default is 512 and the maximum 8192.
    samples: a file of JSON Lines or TSV to judge the bundle on. Default: 422 pairs in Norwegian and English.
    scheme: where int8 takes the ranges of activations from. "group" measures each 64 channels of a token at run time; it is the
        most exact one, and what our own kernels run. "row" and "constant" are for onnxruntime alone, and faster there: "row"
        measures each token, "constant" finds ranges on half of the samples, which is 5 to 7% faster still, and less exact for
        texts unlike these. Default: "group" if our own kernels know the encoder and `target` is "portable", else "row".
    target: CPUs that int8 is for. "portable" scores right on every CPU; "vnni" has finer levels, of "row" and "constant", for
        x86 with VNNI or AMX and for ARM. Elsewhere its products overflow, so that such a bundle can neither be made nor loaded
        there.
    trim_vocab: files of documents, in any form that `raskrank rank` reads; the bundle keeps only the pieces of the vocabulary
        that they use, and single characters. A text whose pieces are all kept scores bit for bit as without.
    trim_form: which fields of those files to read. Default: as `raskrank rank` does.
    accept_license: "cc-by-nc-4.0", where that is the model's license: one that restricts use has to be accepted by its name.
    relevant_label: of a checkpoint with two labels, the name or the index of the one that means relevant. The softmax of two
        logits is the sigmoid of their difference, which becomes the bundle's one logit. Default: the label that config.json
        calls "relevant"; where it calls none so, the export is refused.
    thresholds: how much may differ; they are recorded in the manifest. Default: `Thresholds()`.
    overwrite: replace a bundle at `output`; processes that have loaded the old one keep it. Default: it is refused.
    progress: hears of each step. Default: nobody does.

    Raises InputError for the caller's own arguments, MissingExtra where a package is not installed, CheckpointError, of which
    NotACrossEncoder is one, for a checkpoint that cannot be used, and ExportError, of which ParityError is one, otherwise.
    """
    need_exporter("export")
    options = check_options(
        model,
        precision=precision,
        revision=revision,
        max_length=max_length,
        samples=samples,
        scheme=scheme,
        target=target,
        trim_vocab=trim_vocab,
        trim_form=trim_form,
        accept_license=accept_license,
        relevant_label=relevant_label,
        thresholds=thresholds,
    )
    with bundle_folder(Path(output), overwrite=overwrite) as folder, _as_export_errors(options.model):
        job = Job(options=options, folder=folder, clock=Clock(progress or Silent()))
        whole = subject.read(job)
        trimmed = subject.trim(job, whole)
        torch_backend, expected = score_with_pytorch(job, whole)
        graph = _to_onnx(job, whole, torch_backend)
        judgement = judge_fp32(job, whole, graph.inputs, expected)
        plain = _plain_int8(job, whole, graph, judgement)
        kept = _trimmed(job, whole, trimmed, graph)
        judgement = judge_trimmed(job, whole, kept, trimmed, graph.inputs, judgement)
        climbed = _to_int8(job, kept, graph, judgement, plain)
        manifest = _write(job, kept, trimmed, graph, judgement, climbed)
        return _report(job, kept, graph, judgement, climbed, manifest, output=str(output))


def _to_onnx(job: Job, whole: Subject, torch_backend: TorchBackend) -> LeanGraph:
    """The fp32 graph, saved in the job's folder. Its weights are read from the scratch folder, and PyTorch's are freed."""
    with job.clock.step("export to ONNX"):
        graph = make_graph(torch_backend, whole.checkpoint, job.scratch)
        check_epsilons(graph.model, whole.checkpoint)
    save(graph.model, job.folder)
    return graph


def _plain_int8(job: Job, whole: Subject, graph: LeanGraph, judgement: Judgement) -> Quantization | None:
    """int8 without any repair, with its ranges if those are constant; None for fp32."""
    options, clock = job.options, job.clock
    if options.precision == "fp32":
        return None
    known = isinstance(graph.kernels, Parts) and options.target == "portable"
    scheme = options.scheme or ("group" if known else "row")
    if scheme == "group":
        return GROUP
    plain = Quantization(scheme=scheme, levels=options.levels)
    if scheme != "constant":
        return plain
    halves, encoded = judgement.halves, whole.encoded
    chosen = [encoded[index] for index in halves.chosen_on] if halves else encoded[::CALIBRATE_EVERY]
    with clock.step("find ranges", len(chosen)):
        magnitudes = channel_magnitudes(job.folder, chosen, clock.progress)
        return replace(plain, smoothing=unit_divisors(job.folder, magnitudes))


def _trimmed(job: Job, whole: Subject, trimmed: Trimmed | None, graph: LeanGraph) -> Subject:
    """The subject with the trimmed vocabulary if there is one; then the graph has it too, and is saved anew."""
    if trimmed is None:
        return whole
    trim_embedding(graph.model, trimmed.kept, job.scratch / "kept.bin")
    save(graph.model, job.folder)
    return subject.with_vocabulary(job, whole, trimmed)


def _to_int8(job: Job, kept: Subject, graph: LeanGraph, judgement: Judgement, plain: Quantization | None) -> Climb | None:
    """The cheapest form of int8 that passes the gate, in the job's folder; None where fp32 was asked for."""
    if plain is None:
        return None
    judge = judgement.judge(job, kept, graph.inputs)
    return climb(graph, job.folder, job.scratch, plain, judge, judgement.spelled, job.clock)


def _write(
    job: Job, kept: Subject, trimmed: Trimmed | None, graph: LeanGraph, judgement: Judgement, climbed: Climb | None
) -> Manifest:
    """The tokenizer, and last the manifest of all."""
    options, folder = job.options, job.folder
    shutil.rmtree(job.scratch)
    with job.clock.step("write bundle"):
        (folder / TOKENIZER).write_bytes(kept.tokenizer_json)
        measured = {
            **judgement.summary(),
            **(climbed.summary() if climbed else {}),
            "thresholds": asdict(options.thresholds),
            "samples": options.samples_name,
        }
        quantization = climbed.passed.rung.quantization if climbed else None
        parts = kernel_parts(graph.kernels, quantization)
        manifest = make_manifest(
            folder,
            kept.source,
            kept.checkpoint,
            kept.encoder,
            graph.inputs,
            climbed.precision if climbed else options.precision,
            make_recipe(quantization, options.target, graph.passes),
            parts.encoder if parts else None,
            measured,
            trimmed.vocabulary if trimmed else None,
        )
        (folder / MANIFEST).write_bytes(manifest.to_json().encode())  # as they are: it has a digest of its bytes
    return manifest


def _report(
    job: Job,
    kept: Subject,
    graph: LeanGraph,
    judgement: Judgement,
    climbed: Climb | None,
    manifest: Manifest,
    *,
    output: str,
) -> ExportReport:
    return ExportReport(
        output=output,
        manifest_sha256=bundle.record(job.folder / MANIFEST).sha256,
        manifest=manifest,
        fp32_parity=judgement.fp32,
        parity=climbed.passed.parity if climbed else judgement.spelled,
        climb=climbed,
        left=graph.left,
        onnxruntime_alone=_why_onnxruntime(graph, manifest),
        checkpoint_bytes=sum(file.stat().st_size for file in weights_files(kept.source.folder)),
        bundle_bytes=sum(file.stat().st_size for file in job.folder.iterdir()),
        peak_memory_bytes=_peak_memory(),
        seconds=job.clock.seconds,
    )


def _why_onnxruntime(graph: LeanGraph, manifest: Manifest) -> str | None:
    if manifest.encoder is not None:
        return None
    if isinstance(graph.kernels, str):
        return graph.kernels
    left = ", with products in fp32" if manifest.recipe.excluded_nodes else ""
    return f"it was made as {manifest.recipe.scheme}{left}, which they do not run"


@contextmanager
def _as_export_errors(model: str) -> Iterator[None]:
    """What the engine raises about bundles and runs is about the export here."""
    try:
        yield
    except (BundleError, InferenceError) as error:
        raise ExportError(f"{model}: {error}") from error


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
