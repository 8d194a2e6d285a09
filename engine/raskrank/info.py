"""What a loaded engine says of itself."""

from dataclasses import asdict, dataclass

from raskrank import cpu, kernels
from raskrank.cache import ScoreCache
from raskrank.loading import Loaded
from raskrank.options import Options
from raskrank.settings import ARGUMENT

PACKAGES = {
    "native": ("raskrank", "tokenizers", "numpy"),
    "onnx": ("raskrank", "onnxruntime", "tokenizers", "numpy"),
    "torch": ("raskrank", "torch", "transformers"),
}


@dataclass(frozen=True, kw_only=True)
class Info:
    """What is loaded, on which machine it runs, and why so. `str()` gives a table, `dataclasses.asdict` what JSON needs.

    name: of the model.
    backend: "native", "onnx" or "torch". reason: why that one.
    kernels: the instruction set that the native backend runs on here, or why it cannot run here.
    bundle: its folder. model_from: what named it, an argument, the environment, a file or nothing.
    manifest_sha256: to pin the bundle with `Reranker.load(expected_sha256=...)`.
    source, revision: hub id or folder of the checkpoint, and its commit on the hub.
    license, accepted_license: of the model, and what whoever exported it accepted by name.
    languages: as the model card lists them.
    architecture, parameters: transformers' class, and how many weights it has.
    precision: "int8" or "fp32".
    instruction_set: the CPUs that the bundle was made for, "portable" or "vnni".
    activation: what makes scores of logits.
    max_length: tokens of a pair, special tokens included.
    normalization: whether å in one character and in two scores the same.
    threads, threads_reason: pairs that are scored at the same time, and why so many.
    cpu, cpu_instruction_sets: its name, and what it has for int8.
    fallback: "torch" where PyTorch may take over. rescued_pairs: how many it has scored so far.
    cache_bytes, cache_used_bytes, cache_hits, cache_misses: of the score cache, what it may take and does take, and how many
        pairs it knew and did not know so far. None without one.
    kept_pieces, unknown_texts: of a trimmed vocabulary, its size, and how many texts so far had a piece that it lacks.
    versions: of the packages that run.
    """

    name: str
    backend: str
    reason: str
    kernels: str
    bundle: str | None
    model_from: str
    manifest_sha256: str | None
    source: str | None
    revision: str | None
    license: str | None
    accepted_license: str | None
    languages: tuple[str, ...]
    architecture: str | None
    parameters: int | None
    precision: str
    instruction_set: str | None
    activation: str
    max_length: int
    normalization: str
    threads: int
    threads_reason: str
    cpu: str
    cpu_instruction_sets: tuple[str, ...]
    fallback: str | None
    rescued_pairs: int
    cache_bytes: int | None
    cache_used_bytes: int | None
    cache_hits: int | None
    cache_misses: int | None
    kept_pieces: int | None
    unknown_texts: int | None
    versions: dict[str, str]

    def __str__(self) -> str:
        rows = {key.replace("_", " "): value for key, value in asdict(self).items() if value not in (None, ())}
        rows["versions"] = ", ".join(f"{package} {number}" for package, number in self.versions.items())
        width = max(map(len, rows))
        return "\n".join(
            f"{key:<{width}}  {', '.join(value) if isinstance(value, tuple) else value}" for key, value in rows.items()
        )


def describe(options: Options, loaded: Loaded, *, rescued_pairs: int, cache: ScoreCache | None) -> Info:
    from importlib.metadata import version  # slow to import, and not needed to score

    manifest = loaded.manifest
    source = manifest.source if manifest else None
    bundled = loaded.backend.name != "torch"
    counts = None if cache is None else cache.counts()
    return Info(
        name=loaded.name,
        backend=loaded.backend.name,
        reason=loaded.reason,
        kernels=kernels.unavailable() or kernels.engines()[0],
        bundle=None if loaded.choice is None else str(loaded.choice.path),
        model_from=ARGUMENT if loaded.choice is None else loaded.choice.named_by,
        manifest_sha256=loaded.manifest_sha256,
        source=source.model if source else options.checkpoint,
        revision=source.revision if source else None,
        license=loaded.license,
        accepted_license=source.accepted_license if source else None,
        languages=source.languages if source else (),
        architecture=manifest.architecture if manifest else None,
        parameters=manifest.parameters if manifest else None,
        precision=manifest.precision if manifest and bundled else "fp32",
        instruction_set=manifest.recipe.instruction_set if manifest and bundled else None,
        activation=loaded.activation,
        max_length=loaded.encoder.max_length,
        normalization=loaded.encoder.normalization,
        threads=loaded.backend.concurrency,
        threads_reason=loaded.threads_reason,
        cpu=cpu.model_name(),
        cpu_instruction_sets=cpu.instruction_sets(),
        fallback=options.fallback,
        rescued_pairs=rescued_pairs,
        cache_bytes=options.cache_bytes or None,
        cache_used_bytes=counts and counts.size,
        cache_hits=counts and counts.hits,
        cache_misses=counts and counts.misses,
        kept_pieces=manifest.vocabulary.kept if manifest and manifest.vocabulary and bundled else None,
        unknown_texts=loaded.encoder.unknown_texts,
        versions={package: version(package) for package in PACKAGES[loaded.backend.name]},
    )
