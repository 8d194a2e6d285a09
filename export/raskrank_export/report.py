"""What an export made and measured."""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from raskrank.checkpoint import registry
from raskrank.manifest import Manifest, Vocabulary
from raskrank.parity import Parity
from raskrank_export.rungs import Climb

WIDTH = 80  # of a terminal, and of a README


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """The result of `export`. `str()` gives a summary for people.

    output: the folder that was written.
    manifest_sha256: to pin the bundle with `Reranker.load(expected_sha256=...)`.
    manifest: what was written as manifest.json.
    fp32_parity: PyTorch against the fp32 graph.
    parity: PyTorch against the bundle as written; the same object as fp32_parity for a bundle in fp32.
    climb: what was tried to make int8 pass; None where fp32 was asked for. The same is in manifest.parity.
    left: names of what the graph passes did not match: it gives the same scores, a little slower than it could.
    onnxruntime_alone: why our own kernels do not run the bundle; None where they do.
    checkpoint_bytes, bundle_bytes: sizes of the weights that were read, and of all files that were written.
    peak_memory_bytes: the largest resident size of this process so far, not of the export alone; None on Windows.
    seconds: time of each step by its name.
    """

    output: str
    manifest_sha256: str
    manifest: Manifest
    fp32_parity: Parity
    parity: Parity
    climb: Climb | None
    left: tuple[str, ...]
    onnxruntime_alone: str | None
    checkpoint_bytes: int
    bundle_bytes: int
    peak_memory_bytes: int | None
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON. The parity numbers and thresholds are in manifest.parity."""
        return {
            "output": self.output,
            "manifest_sha256": self.manifest_sha256,
            "manifest": asdict(self.manifest),
            "checkpoint_bytes": self.checkpoint_bytes,
            "bundle_bytes": self.bundle_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "left": self.left,
            "onnxruntime_alone": self.onnxruntime_alone,
            "int8_products": self.climb.passed.products if self.climb else 0,
            "int8_embeddings": self.climb.passed.embeddings if self.climb else 0,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        manifest = self.manifest
        known = registry.known(manifest.source.model)
        accepted = ", accepted" if manifest.source.accepted_license else ""
        peak = "" if self.peak_memory_bytes is None else f", peak memory {self.peak_memory_bytes / 1e9:.2f} GB"
        facts = [
            f"{manifest.name}: {manifest.architecture}, {manifest.parameters / 1e6:.1f} M parameters",
            f"at most {manifest.max_length} tokens; license {manifest.source.license or 'not stated'}{accepted}",
            *([] if known is None else [known.note]),
            *([] if manifest.source.relevant_label is None else [_two_labels(manifest.source.relevant_label)]),
            f"{self.checkpoint_bytes / 1e6:.1f} MB checkpoint -> {self.bundle_bytes / 1e6:.1f} MB bundle, "
            f"{manifest.precision}; {sum(self.seconds.values()):.1f} s{peak}",
            *([] if manifest.vocabulary is None else [_vocabulary(manifest.vocabulary)]),
            "layers changed: " + ", ".join(f"{name} {count}" for name, count in manifest.recipe.passes.items()),
            *(
                []
                if self.climb is None
                else [f"int8: {self.climb.passed.products} products, {self.climb.passed.embeddings} embeddings"]
            ),
            *(
                []
                if self.onnxruntime_alone is None
                else [f"for onnxruntime, not for our own kernels: {self.onnxruntime_alone}"]
            ),
            *(f"not optimized, so a little slower, with the same scores: {name}" for name in self.left),
        ]
        lines = [line for fact in facts for line in textwrap.wrap(fact, WIDTH, subsequent_indent="  ")]
        lines.append(str(self.fp32_parity))
        if self.parity is not self.fp32_parity:
            lines.append(str(self.parity))
        if self.climb is not None and len(self.climb.attempts) > 1:
            lines.append(str(self.climb))
        return "\n".join([*lines, f"written to {self.output}"])


def _two_labels(relevant: str) -> str:
    return f"two labels became one logit, their difference: a score is the softmax's share of {relevant!r}"


def _vocabulary(vocabulary: Vocabulary) -> str:
    coverage = vocabulary.coverage
    return (
        f"vocabulary trimmed to {vocabulary.kept} of {vocabulary.of} pieces; of {coverage.held_back} held-back texts "
        f"{coverage.whole_texts:.1%} are spelled as before, of their tokens {coverage.tokens:.1%}"
    )
