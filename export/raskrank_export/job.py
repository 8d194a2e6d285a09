"""What an export was asked for, checked before anything is read, and what all of its steps share."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from raskrank import cpu
from raskrank.documents import Form
from raskrank.errors import ExportError, InputError
from raskrank.gate import Thresholds
from raskrank.manifest import Precision
from raskrank.samples import as_pairs, read_samples
from raskrank.settings import as_folder
from raskrank_export.describe import recorded_name
from raskrank_export.progress import Clock
from raskrank_export.quantization import EXACT, PORTABLE, ActivationScheme, Levels
from raskrank_export.trim import corpus_files


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of `export`, valid. pairs: the samples. levels: those of the target.

    scheme: None where it depends on the graph."""

    model: str
    precision: Precision
    revision: str | None
    max_length: int | None
    pairs: Sequence[tuple[str, str]]
    samples_name: str
    scheme: ActivationScheme | None
    target: cpu.Target
    levels: Levels
    corpus: Sequence[Path]
    corpus_form: Form | None
    accepted_license: str | None
    relevant_label: str | int | None
    thresholds: Thresholds


@dataclass(frozen=True, kw_only=True)
class Job:
    """An export at work. folder: where the bundle is put together."""

    options: Options
    folder: Path
    clock: Clock

    @property
    def scratch(self) -> Path:
        """A folder in `folder` for what does not stay."""
        return self.folder / "scratch"


def check_options(
    model: str | os.PathLike[str],
    *,
    precision: Precision,
    revision: str | None,
    max_length: int | None,
    samples: str | Path | None,
    scheme: ActivationScheme | None,
    target: cpu.Target,
    trim_vocab: Sequence[str | Path],
    trim_form: Form | None,
    accept_license: str | None,
    relevant_label: str | int | None,
    thresholds: Thresholds | None,
) -> Options:
    """Raises InputError for what is no option or cannot be read, ExportError for a target that this CPU cannot judge."""
    if precision not in get_args(Precision):
        raise InputError(f"precision: expected {' or '.join(map(repr, get_args(Precision)))}, got {precision!r}")
    if scheme is not None and scheme not in get_args(ActivationScheme):
        raise InputError(f"scheme: expected one of {', '.join(get_args(ActivationScheme))}, got {scheme!r}")
    if scheme == "group" and target != "portable":
        raise InputError(f"target: scheme 'group' is right and the same on every CPU; {target!r} is for 'row' and 'constant'")
    if relevant_label is not None and (not isinstance(relevant_label, str | int) or isinstance(relevant_label, bool)):
        raise InputError(f"relevant_label: expected a label's name or index, got {type(relevant_label).__name__}")
    return Options(
        model=model if isinstance(model, str) else as_folder(model),
        precision=precision,
        revision=revision,
        max_length=max_length,
        pairs=as_pairs(read_samples(None if samples is None else Path(samples))),
        samples_name="default" if samples is None else recorded_name(samples),
        scheme=scheme,
        target=target,
        levels=_levels(target, precision),
        corpus=corpus_files(trim_vocab),
        corpus_form=trim_form,
        accepted_license=accept_license,
        relevant_label=relevant_label,
        thresholds=Thresholds() if thresholds is None else thresholds,
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
