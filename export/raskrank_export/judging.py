"""The gate's work in an export: PyTorch's logits, and what the graph's may differ from them."""

import gc
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raskrank import gate
from raskrank.backend import Float32Array
from raskrank.checkpoint import Checkpoint
from raskrank.errors import ExportError
from raskrank.parity import Parity, compare
from raskrank.torch_backend import TorchBackend
from raskrank_export.halves import Halves, halve
from raskrank_export.job import Job
from raskrank_export.ladder import Judge
from raskrank_export.padded import padded_scores
from raskrank_export.rounding import fp32_rounding, rounding_pairs
from raskrank_export.scoring import graph_logits
from raskrank_export.subject import Subject
from raskrank_export.trim import Trimmed


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The fp32 graph beside PyTorch, on the samples.

    reference: PyTorch's name and logits, float32 (n). logits: the graph's, float32 (n). rounding: what fp32 itself rounds in
    the reference. halves: of the samples, None where they are too few. fp32: of the whole model; spelled: with the bundle's own
    vocabulary, the same unless that is trimmed.
    """

    reference: tuple[str, Float32Array]
    logits: Float32Array
    rounding: float
    halves: Halves | None
    fp32: Parity
    spelled: Parity

    def summary(self) -> dict[str, Any]:
        """For the manifest."""
        trimmed = {} if self.spelled is self.fp32 else {"trimmed": self.spelled.summary()}
        return {"fp32": self.fp32.summary(), **trimmed}

    def judge(self, job: Job, subject: Subject, inputs: tuple[str, ...]) -> Judge:
        """What every form of int8 is held to."""
        return Judge(
            pairs=job.options.pairs,
            encoded=subject.encoded,
            reference=self.reference,
            rounding=self.rounding,
            halves=self.halves,
            inputs=inputs,
            thresholds=job.options.thresholds,
        )


def score_with_pytorch(job: Job, subject: Subject) -> tuple[TorchBackend, Float32Array]:
    """The checkpoint in PyTorch, and its logits of the samples, float32 (n). Raises ExportError if any number is not finite."""
    with job.clock.step("score with PyTorch", len(subject.expected)):
        backend = TorchBackend(subject.checkpoint)
        _check_weights(backend, subject.checkpoint)
        logits = padded_scores(backend.model, subject.checkpoint, subject.expected, job.clock.progress)
        _check_reference(logits, subject.checkpoint)
    return backend, logits


def judge_fp32(job: Job, subject: Subject, inputs: tuple[str, ...], expected: Float32Array) -> Judgement:
    """Hold the fp32 graph, saved in the job's folder, against PyTorch's logits. Raises ParityError, or ExportError where the
    logits are no order to compare by."""
    pairs, reference = job.options.pairs, ("torch fp32", expected)
    with job.clock.step("score with ONNX fp32", len(pairs)):
        logits = graph_logits(job.folder, inputs, subject.encoded, job.clock.progress)
    chosen = rounding_pairs(subject.expected, np.abs(logits - expected))
    with job.clock.step("score with PyTorch fp64", len(chosen)):
        inexact = [subject.expected[index] for index in chosen]
        rounding = fp32_rounding(subject.checkpoint, inexact, expected[chosen], job.clock.progress)
        gc.collect()
        parity = compare(pairs, reference, ("onnx fp32", logits), rounding=rounding)
        gate.check(parity, job.options.thresholds, "fp32")
        _check_order(parity, subject.checkpoint)
        halves = halve(pairs, expected, rounding)
    return Judgement(reference=reference, logits=logits, rounding=rounding, halves=halves, fp32=parity, spelled=parity)


def judge_trimmed(
    job: Job, whole: Subject, kept: Subject, trimmed: Trimmed | None, inputs: tuple[str, ...], fp32: Judgement
) -> Judgement:
    """The judgement with the trimmed vocabulary if there is one, whose graph is saved in the job's folder. Raises ParityError.

    Only the samples that it spells otherwise than the whole vocabulary are scored again.
    """
    if trimmed is None:
        return fp32
    both = zip(whole.encoded, kept.encoded, strict=True)
    respelled = [index for index, (before, now) in enumerate(both) if not trimmed.same(before, now)]
    with job.clock.step("score what is spelled otherwise", len(respelled)):
        logits, others = fp32.logits.copy(), [kept.encoded[index] for index in respelled]
        logits[respelled] = graph_logits(job.folder, inputs, others, job.clock.progress)
        named = ("onnx fp32, trimmed", logits)
        parity = compare(job.options.pairs, fp32.reference, named, rounding=fp32.rounding)
        gate.check(parity, job.options.thresholds, "trimmed")
    return replace(fp32, logits=logits, spelled=parity)


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
