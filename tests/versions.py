"""The engine with the oldest and the newest releases of its dependencies that pyproject.toml allows.

`make test-versions` installs the wheel into an empty environment for each end, scores the same pairs there and here, and
prints a table. It exits with 1 if anything differs. Needs the package index.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
INSTALL_SECONDS, RUN_SECONDS = 600, 120
HOSTILE_TEXTS = (
    "",
    " \t\n ",
    "NUL \x00 and bell \x07",
    "\ufeffbyte order mark",
    "👩‍👩‍👧‍👦 families 🇳🇴",
    "a" + "\u0301" * 300,
    "ÅØÆ åøæ ﬁ ﬂ ½ Ǆ İ ß",
    "中文と日本語と한국어",
    "שלום עולם \u202e snudd",
    "snake_case camelCase f(x)=x**2 https://example.org/?q=1&p=2",
    "ord" * 4000,
    "Et langt dokument om båt, fjord og fjell. " * 2500,
)


def dependencies() -> dict[str, str]:
    """The engine's dependencies with their lower bounds, as pyproject.toml has them. Raises ValueError on another form."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    bounds = {}
    for requirement in stated:
        name, sign, bound = requirement.partition(">=")
        if not (sign and name.isidentifier() and bound.replace(".", "").isdecimal()):
            raise ValueError(f"pyproject.toml: expected NAME>=VERSION, got {requirement!r}")
        bounds[name] = bound
    return bounds


def oldest() -> list[str]:
    """Requirements that pin each dependency to the last release of the oldest series allowed."""
    return [f"{name}=={bound}.*" for name, bound in dependencies().items()]


def newest() -> list[str]:
    """Requirements without an upper bound, which pip resolves to the latest releases."""
    return list(dependencies())


def find_python(series: str) -> Path | None:
    """An interpreter of a series such as "3.12" that can make environments: this one, one on PATH, or one of pyenv's."""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{series}.*/bin/python{series}"))
    candidates = [sys.executable, shutil.which(f"python{series}"), *map(str, reversed(pyenv))]
    check = f"import sys, venv; sys.exit(sys.version_info[:2] != {tuple(map(int, series.split('.')))})"
    for candidate in filter(None, candidates):
        # A shim may stand on PATH for a version that is not there.
        if subprocess.run([candidate, "-c", check], capture_output=True, timeout=RUN_SECONDS, check=False).returncode == 0:
            return Path(candidate)
    return None


def build(folder: Path, **environment: str) -> tuple[Path, Path]:
    """Builds the sdist, and from it the wheel. environment: variables in place of this process's. Returns (sdist, wheel)."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    _run(command, env={**os.environ, **environment})
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def install(python: Path, folder: Path, *arguments: str) -> Path:
    """Makes an environment and installs with pip what the arguments say. Returns its interpreter."""
    _run([str(python), "-m", "venv", "--without-pip", str(folder)])
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(interpreter)]
    _run([*pip, "install", "--quiet", "--no-compile", "--only-binary", ":all:", *arguments])
    return interpreter


def probe() -> dict[str, Any]:
    """Runs in each environment: token ids, logits, and whether the libraries do what the engine relies on."""
    import numpy as np
    import tokenizers

    from raskrank import Reranker
    from raskrank.loading import load
    from raskrank.onnx_backend import DISABLED_OPTIMIZERS, FATAL
    from raskrank.options import Options
    from raskrank.running import Workers, run_pairs
    from raskrank.samples import as_pairs, read_samples
    from raskrank.texts import Limits

    pairs = as_pairs(read_samples()[:4])
    options = Options(
        bundle=None,
        threads=2,
        backend="onnx",
        fallback=None,
        checkpoint=None,
        expected_sha256=None,
        ignore_target=False,
        map_weights=True,
        limits=Limits(),
    )
    loaded = load(options)
    manifest, choice = loaded.manifest, loaded.choice
    if manifest is None or choice is None:
        raise RuntimeError("the embedded model is not a bundle")
    folder = choice.path
    encoded = loaded.encoder.encode([*pairs, *((text, text) for text in HOSTILE_TEXTS)])
    workers = Workers(2)
    logits = run_pairs(loaded.backend, workers, encoded)
    workers.close()
    alone, spread = (
        [loaded.backend.logits(pair.input_ids[None], pair.token_type_ids[None], threads=threads)[0] for pair in encoded]
        for threads in (1, 2)
    )
    graph = (folder / "model.onnx").read_bytes()

    def session(weights: Path, optimized: str = "") -> None:
        import onnxruntime  # not before the engine, which turns its telemetry off

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = FATAL
        settings.optimized_model_filepath = optimized
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
        onnxruntime.InferenceSession(
            graph, settings, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
        )

    def takes_weights_from_the_folder() -> bool:
        session(folder)
        with tempfile.TemporaryDirectory() as empty:
            try:
                session(Path(empty))
            except Exception:  # noqa: BLE001  its class differs between releases
                return True
        return False

    def leaves_layer_norm_apart() -> bool:
        with tempfile.TemporaryDirectory() as scratch:
            optimized = Path(scratch) / "optimized.onnx"
            session(folder, str(optimized))
            return b"SkipLayerNormalization" not in optimized.read_bytes()

    def ranks() -> bool:
        with Reranker.load(threads=1) as reranker:
            documents = ["Utvikler med åtte års erfaring i Python.", "Sykepleier i turnus, autorisert siden 2014."]
            return reranker.rank("Hvem kan programmere i Python?", documents)[0].index == 0

    checks: dict[str, Callable[[], bool]] = {
        "Tokenizer.encode_batch_fast": lambda: hasattr(tokenizers.Tokenizer, "encode_batch_fast"),
        "weights from the folder that is named": takes_weights_from_the_folder,
        "SkipLayerNormFusion stays off": leaves_layer_norm_apart,
        "a score alone = in a batch, bit for bit": lambda: np.array(alone).tobytes() == logits.tobytes(),
        "a run on one thread = on two, bit for bit": lambda: np.array(alone).tobytes() == np.array(spread).tobytes(),
        "rank() of the embedded model": ranks,
        "no telemetry: no file below HOME": lambda: not any(Path.home().rglob("*")),
    }
    return {
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in dependencies()}},
        "ids": [pair.input_ids.tolist() for pair in encoded],
        "queries": [query for query, _ in pairs],
        "logits": logits.tolist(),
        "tolerance": manifest.self_test.tolerance,
        "checks": {name: check() for name, check in checks.items()},
    }


def run_probe(interpreter: Path) -> dict[str, Any]:
    """`probe` in another process, with an empty home, away from the repository and from whatever PYTHON* variables say."""
    with tempfile.TemporaryDirectory() as home:
        environment = {key: value for key, value in os.environ.items() if key not in ("RASKRANK_MODEL", "XDG_CACHE_HOME")}
        command = [str(interpreter), "-I", str(Path(__file__).resolve()), "--probe"]
        result = _run(command, cwd=home, env={**environment, "HOME": home, "USERPROFILE": home}, seconds=RUN_SECONDS)
    found: dict[str, Any] = json.loads(result)
    return found


def compare(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, str]:
    """A row of the table for each thing that must be as it is here; what is wrong begins with FAILED."""
    differences = [abs(one - other) for one, other in zip(found["logits"], expected["logits"], strict=True)]
    largest, tolerance = max(differences), expected["tolerance"]
    # Documents whose logits here are nearer to each other than the tolerance may change places.
    exchanged = sum(
        expected["logits"][later] > expected["logits"][earlier] + tolerance
        for members in _by_query(expected["queries"])
        for earlier, later in combinations(sorted(members, key=lambda index: -found["logits"][index]), 2)
    )
    return {
        "token ids": _verdict(found["ids"] == expected["ids"], "equal"),
        "largest logit difference": _verdict(largest <= tolerance, f"{largest:.2g}"),
        "order of the documents, near ties aside": _verdict(not exchanged, "equal"),
        **{name: _verdict(passed, "yes") for name, passed in found["checks"].items()},
    }


def main() -> int:
    found_pythons = [python for series in PYTHONS if (python := find_python(series))]
    ends = {"oldest": (found_pythons[0], oldest()), "newest": (found_pythons[-1], newest())}
    here = run_probe(Path(sys.executable))
    columns = {"here": {**here["versions"], **compare(here, here)}}
    with tempfile.TemporaryDirectory() as scratch:
        _, wheel = build(Path(scratch) / "dist")
        for end, (python, requirements) in ends.items():
            print(f"{end}: {', '.join(requirements)}", flush=True)
            interpreter = install(python, Path(scratch) / end, str(wheel), *requirements)
            found = run_probe(interpreter)
            columns[end] = {**found["versions"], **compare(found, here)}
    print(f"\n{'':46}" + "".join(f"{name:>11}" for name in columns))
    for row in columns["here"]:
        print(f"{row:46}" + "".join(f"{column[row]:>11}" for column in columns.values()))
    failed = any(value.startswith("FAILED") for column in columns.values() for value in column.values())
    print(f"\nLogits may differ by {here['tolerance']}, as the bundle's own self-test allows.")
    print("FAILED" if failed else "The engine gives the same with all of them.")
    return int(failed)


def _by_query(queries: list[str]) -> list[list[int]]:
    return [[index for index, other in enumerate(queries) if other == query] for query in dict.fromkeys(queries)]


def _verdict(passed: bool, text: str) -> str:
    return text if passed else "FAILED" if text in ("equal", "yes") else f"FAILED {text}"


def _run(
    command: list[str], *, seconds: int = INSTALL_SECONDS, cwd: str | None = None, env: dict[str, str] | None = None
) -> str:
    """Standard output of a command; RuntimeError with all that it said if it fails."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=cwd, env=env, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe"]:
        json.dump(probe(), sys.stdout)
    else:
        sys.exit(main())
