"""`make demo`: a checkpoint becomes an int8 bundle, ranks, is held against PyTorch, and timed. Offline, about a minute.

python benchmarks/demo.py [FOLDER [ROUNDS]]     what it makes goes to FOLDER, by default build/demo
"""

import importlib.metadata
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from raskrank import Reranker, cpu
from raskrank.activation import sigmoid
from raskrank.backend import Float32Array
from raskrank.parity import kendall_tau
from raskrank.printable import table
from raskrank.terminal import Bar, Steps

ROOT = Path(__file__).parents[1]
CHECKPOINT = "./export/nano"
COLUMNS = 80
PASSAGES, ROUNDS = 100, 5
MAX_CHARS = 600  # of a text that passages are put together from; the samples hold a few very long ones
BATCH = 32  # what transformers' and sentence-transformers' users have without choosing
PACKAGES = ("torch", "transformers", "onnxruntime", "tokenizers", "numpy")

JOBS = "Sykepleier til intensivavdelingen i Tromsø"
CANDIDATES = (
    "Kokk med fagbrev, fire år på hotell i Tromsø. Ønsker dagtid.",
    "Intensivsykepleier, ni år ved intensivavdelingen på UNN i Tromsø.",
    "Sykepleier fra hjemmetjenesten i Bodø, ønsker opplæring innen intensiv.",
    "Helsefagarbeider, nattvakter ved sykehjem, bor i Tromsø.",
    "Intensiv norskopplæring for voksne, erfaren lærer.",
    "Sjåfør for legevakten, rolig og presis, med kompetansebevis for utrykning.",
    "Systemutvikler, Python og PostgreSQL, tidligere sykepleier.",
    "Sykepleiar med vidareutdanning i intensivsjukepleie, bur på Senja.",
    "Elektriker, reparerer medisinsk utstyr på sykehus.",
)
QUESTION = "How long can I keep cooked rice in the fridge?"
ANSWERS = (
    "Rinse the rice until the water runs clear, then cook it for twelve minutes.",
    "Cooked rice keeps for about a day in the fridge; cool it within an hour.",
    "The fridge should be between 0 and 4 degrees.",
    "Uncooked rice keeps for years in a dry cupboard.",
    "The rice terraces of Banaue are two thousand years old.",
    "Cooked pasta can be kept in the fridge for three days.",
    "Leftovers such as rice: eat them the next day, and never reheat them twice.",
    "How long is the Great Wall of China?",
)
PAIRS = ((JOBS, CANDIDATES[1]), (JOBS, CANDIDATES[6]), (QUESTION, ANSWERS[2]))

Contender = Callable[[str, list[str]], Float32Array]


def main(folder: Path, rounds: int) -> int:
    os.chdir(ROOT)  # so that the commands can be shown, and typed, as they are
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / "nano"
    heading("1. A checkpoint becomes an int8 bundle")
    raskrank("export", CHECKPOINT, str(bundle), "--overwrite")
    heading("2. Ranking: candidates for a job, and an answer to a question")
    for query, name, documents in ((JOBS, "candidates.txt", CANDIDATES), (QUESTION, "answers.txt", ANSWERS)):
        (folder / name).write_text("".join(f"{document}\n" for document in documents), "utf-8")
        raskrank("rank", "--bundle", str(bundle), query, str(folder / name))
    print()
    note("The model is nano, which is tiny and goes by words: a full-size model, exported the same way, ranks by meaning.")
    heading("3. The bundle against PyTorch, pair by pair")
    compare_pairs(bundle)
    heading("4. Speed, against PyTorch")
    compare_speed(bundle, folder / "nano-fp32", rounds)
    return 0


def raskrank(*arguments: str) -> None:
    """Shows a command as one would type it, and runs it in a process of its own."""
    lines = ["$ raskrank"]
    for argument in map(shlex.quote, arguments):
        if len(lines[-1]) + len(argument) + len("  \\") > COLUMNS:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {argument}"
    print("", *lines, sep="\n", flush=True)
    subprocess.run([sys.executable, "-m", "raskrank", *arguments], check=True)


def compare_pairs(bundle: Path) -> None:
    with Reranker.load(bundle, checkpoint=CHECKPOINT) as reranker:
        parity = reranker.verify(PAIRS)
    torch_scores, scores = sigmoid(parity.reference_logits), sigmoid(parity.candidate_logits)
    rows = [
        [f"{expected:.4f}", f"{score:.4f}", f"{abs(expected - score):.4f}", document]
        for expected, score, (_, document) in zip(torch_scores, scores, PAIRS, strict=True)
    ]
    show(table([parity.reference, parity.candidate, "difference", "document"], rows, COLUMNS))


def compare_speed(bundle: Path, bundle_fp32: Path, rounds: int) -> None:
    """Every contender once a round, so that whatever else the machine does meanwhile meets all of them."""
    from raskrank_export import export

    terminal = sys.stderr.isatty()
    print("\nThe same bundle in fp32, to compare, and then the rounds:", flush=True)
    export(CHECKPOINT, bundle_fp32, precision="fp32", overwrite=True, progress=Steps(sys.stderr) if terminal else None)
    query, documents = passages()
    rerankers = {
        "PyTorch, one by one (backend='torch')": Reranker.load(backend="torch", checkpoint=CHECKPOINT),
        "ONNX fp32": Reranker.load(bundle_fp32),
        "ONNX int8": Reranker.load(bundle),
    }
    baseline = f"PyTorch, transformers, batches of {BATCH}"
    contenders: dict[str, Contender] = {baseline: transformers_loop()}
    contenders |= {name: reranker.score for name, reranker in rerankers.items()}
    scores = {name: score(query, documents) for name, score in contenders.items()}  # also warms up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with Bar("measure", rounds * len(contenders), sys.stderr) if terminal else nullcontext() as bar:
        for _ in range(rounds):
            for name, score in contenders.items():
                start = time.perf_counter()
                score(query, documents)
                seconds[name].append(time.perf_counter() - start)
                if bar:
                    bar.advance(1)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rows = [
        [
            f"{median * 1e3:.0f}",
            f"{min(seconds[name]) * 1e3:.0f}–{max(seconds[name]) * 1e3:.0f}",
            f"{medians[baseline] / median:.1f} x",
            f"{kendall_tau(scores[baseline], scores[name]):.4f}",
            name,
        ]
        for name, median in medians.items()
    ]
    show(table(["ms", "range", "speed-up", "Kendall tau", ""], rows, COLUMNS))
    lengths = sorted(map(len, documents))
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    print()
    note(
        f"One query and {len(documents)} Norwegian and English passages of {lengths[0]} to {lengths[-1]} characters, median "
        f"{lengths[len(lengths) // 2]}. ms: median of {rounds} rounds, the contenders taking turns. Kendall tau: the order of "
        "the passages against the first line's, 1 is the same."
    )
    note(
        "The model is the embedded nano with 2.4 M parameters, so tokenizing and calls weigh more here than with a full-size "
        "model. `make peers` measures those."
    )
    machine = f"{cpu.model_name()}, {cpu.usable_cpus()} usable CPUs, {platform.system()}"
    note(f"{machine}; Python {platform.python_version()}, {versions}.")
    note(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC.")
    for reranker in rerankers.values():
        reranker.close()


def passages() -> tuple[str, list[str]]:
    """A query, and passages from a line to a page, put together from the texts that exports are judged on."""
    from raskrank.samples import read_samples

    samples = read_samples()
    texts = [text for sample in samples for text in sample.documents if text.strip() and len(text) < MAX_CHARS]
    random.Random(1).shuffle(texts)
    targets = [20, 40, 80, 150, 250, 350, 500, 700, 1000, 1500]  # characters; most passages of a search are short
    joined, position = [], 0
    for index in range(PASSAGES):
        parts: list[str] = []
        while sum(map(len, parts)) < targets[index % len(targets)]:
            parts.append(texts[position % len(texts)])
            position += 1
        joined.append(" ".join(parts))
    return samples[0].query, joined


def transformers_loop() -> Contender:
    """What one writes with transformers alone: batches in the order given, padded to the longest of each."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)  # type: ignore[no-untyped-call]
    model = AutoModelForSequenceClassification.from_pretrained(CHECKPOINT).eval()

    def score(query: str, documents: list[str]) -> Float32Array:
        scores = []
        with torch.inference_mode():
            for start in range(0, len(documents), BATCH):
                batch = documents[start : start + BATCH]
                inputs = tokenizer(
                    [query] * len(batch), batch, padding=True, truncation=True, max_length=512, return_tensors="pt"
                )
                scores.append(torch.sigmoid(model(**inputs).logits[:, 0]))
        result: Float32Array = torch.cat(scores).numpy()
        return result

    return score


def heading(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def note(text: str) -> None:
    print(textwrap.fill(text, COLUMNS))


def show(lines: list[str]) -> None:
    print()
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    given = sys.argv[1:]
    sys.exit(main(Path(given[0]) if given else Path("build/demo"), int(given[1]) if len(given) > 1 else ROUNDS))
