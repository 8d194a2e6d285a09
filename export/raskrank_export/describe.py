"""What a bundle says of itself: its recipe, and the manifest."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raskrank import bundle, cpu
from raskrank.checkpoint import Checkpoint
from raskrank.encoding import PairEncoder
from raskrank.license import restricts_use
from raskrank.manifest import FILES, FORMAT, Encoder, Manifest, Precision, Recipe, SelfTest, Source, Vocabulary
from raskrank_export.progress import Silent
from raskrank_export.quantization import Quantization
from raskrank_export.scoring import graph_logits
from raskrank_export.source import ResolvedSource

MAKERS = ("raskrank", "torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "tokenizers", "numpy")
SELF_TEST_PAIR = (
    "Hvem kan programmere i Python?",
    "Utvikler med åtte års erfaring i Python og PostgreSQL, sist i et forsikringsselskap i Bergen.",
)
# How far the self-test may be off at least, on another machine or in another backend: fp32 sums in another order, and now and
# then an int8 value that falls to the neighbour. A wrong tokenizer, or saturating products, are off by more.
SELF_TEST_TOLERANCE = {"fp32": 1e-3, "int8": 0.05}


def make_recipe(quantization: Quantization | None, target: cpu.Target, passes: dict[str, int]) -> Recipe:
    """How the int8 graph was made. quantization: None for fp32. passes: layers that each changed, by name."""
    scheme = quantization.scheme if quantization else "fp32"
    return Recipe(
        scheme=scheme,
        groups=quantization.groups if quantization else True,
        activation_max=quantization.levels.activation if quantization and scheme != "weights" else 0,
        weight_max=quantization.weight_max if quantization else 0,
        per_channel=quantization is not None,
        excluded_nodes=tuple(sorted(quantization.excluded)) if quantization else (),
        instruction_set="portable" if scheme in ("fp32", "weights", "group") else target,
        passes=passes | ({"smoothing": len(quantization.smoothing)} if quantization and quantization.smoothing else {}),
    )


def recorded_name(file: str | os.PathLike[str]) -> str:
    """A file's name without its folders, for the manifest, which is UTF-8 whatever the file system allows."""
    return Path(file).name.encode("utf-8", "backslashreplace").decode()


def make_manifest(
    folder: Path,
    source: ResolvedSource,
    checkpoint: Checkpoint,
    encoder: PairEncoder,
    inputs: tuple[str, ...],
    precision: Precision,
    recipe: Recipe,
    layout: Encoder | None,
    parity: dict[str, Any],
    vocabulary: Vocabulary | None,
) -> Manifest:
    """The manifest of the files in `folder`, with the logit of a pair that loading repeats. layout: of an encoder that our own
    kernels run. parity: what the gate measured.
    """
    query, document = SELF_TEST_PAIR
    logit = float(graph_logits(folder, inputs, encoder.encode([(query, document)]), Silent())[0])
    return Manifest(
        format=".".join(map(str, FORMAT)),
        name=Path(os.path.normpath(Path(source.name).absolute())).name,  # of ".", too
        source=Source(
            model=source.name,
            revision=source.revision,
            license=checkpoint.license,
            accepted_license=checkpoint.license if restricts_use(checkpoint.license) else None,
            languages=checkpoint.languages,
            relevant_label=None if checkpoint.relevant is None else checkpoint.relevant.name,
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
        encoder=layout,
        files={name: bundle.record(folder / name) for name in FILES},
        versions={package: version(package) for package in MAKERS},
        self_test=SelfTest(query=query, document=document, logit=logit, tolerance=_tolerance(precision, parity)),
        parity=parity,
        vocabulary=vocabulary,
    )


def _tolerance(precision: Precision, parity: dict[str, Any]) -> float:
    """At least as much as int8 moved the logit of any sample: it moves every value, another machine only a few."""
    least = SELF_TEST_TOLERANCE[precision]
    return max(least, parity["int8"]["max_logit_difference"]) if precision == "int8" else least
