"""What an export made and measured."""

from dataclasses import asdict, dataclass
from typing import Any

from raskrank.manifest import Manifest
from raskrank.parity import Parity


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """The result of `export`. Sizes in bytes, times in seconds by step. `str()` gives a summary for people.

    fp32_parity compares PyTorch with the fp32 graph, parity with the bundle as written; for precision "fp32" they are one.
    peak_memory_bytes is the largest resident size of this process so far, not of the export alone.
    """

    output: str
    manifest_sha256: str
    manifest: Manifest
    fp32_parity: Parity
    parity: Parity
    checkpoint_bytes: int
    bundle_bytes: int
    peak_memory_bytes: int
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
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        manifest = self.manifest
        lines = [
            f"{manifest.name}: {manifest.architecture}, {manifest.parameters / 1e6:.1f} M parameters",
            f"{self.checkpoint_bytes / 1e6:.1f} MB checkpoint -> {self.bundle_bytes / 1e6:.1f} MB bundle, "
            f"{manifest.precision}; {sum(self.seconds.values()):.1f} s, peak memory {self.peak_memory_bytes / 1e9:.2f} GB",
            str(self.fp32_parity),
        ]
        if self.parity is not self.fp32_parity:
            lines.append(str(self.parity))
        return "\n".join([*lines, f"written to {self.output}"])
