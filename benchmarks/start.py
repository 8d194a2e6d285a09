"""Cold start and memory, each in a fresh process: from its start to the first score, and resident after 100 passages.

    python benchmarks/start.py [--model nano|minilm|bge|FOLDER] [--rounds 5] [--peers]

The files are in the page cache, as on a server that restarts. Resident memory is split into private pages and clean pages
of the mapped weights, which processes share and the kernel can drop.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import workloads
from models import MODELS, WORK, bundle, checkpoint
from peers import onnx_folder
from raskrank import cpu

RASKRANK = """
from raskrank import Reranker
reranker = Reranker.load({path!r}, threads=2)
score = lambda documents: reranker.score({query!r}, documents)
"""
SENTENCE_TRANSFORMERS = """
import warnings; warnings.simplefilter("ignore")
from sentence_transformers import CrossEncoder
encoder = CrossEncoder({path!r}, device="cpu", {options})
score = lambda documents: encoder.predict([({query!r}, document) for document in documents], show_progress_bar=False)
"""
MEASURE = """
import json, time
score(["Oslo har 700 000 innbyggere."])
first = time.time()
def memory():
    fields = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if line[0].isupper())
    return {{name: int(fields[name + ":"]) * 1024 for name in ("Rss", "Private_Dirty")}}
loaded = memory()
score(json.load(open({passages!r})))
print(json.dumps({{"first": first, "loaded": loaded, "after": memory()}}))
"""


def measure(script: str, passages: Path) -> dict[str, float]:
    """Seconds to the first score, and bytes resident and private, of one process."""
    measured = MEASURE.format(passages=str(passages))
    start = time.time()
    done = subprocess.run([sys.executable, "-c", script + measured], capture_output=True, text=True, check=True, timeout=600)
    result = json.loads(done.stdout.splitlines()[-1])
    return {
        "first": result["first"] - start,
        "loaded": result["loaded"]["Rss"],
        "after": result["after"]["Rss"],
        "private": result["after"]["Private_Dirty"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help=f"one of {', '.join(MODELS)}, or a checkpoint folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also sentence-transformers (make bench installs it)")
    arguments = parser.parse_args()
    query = workloads.QUERY
    scripts = {"raskrank int8": RASKRANK.format(path=str(bundle(arguments.model, "int8")), query=query)}
    if arguments.peers:
        folder = checkpoint(arguments.model)
        onnx, file = onnx_folder(folder)
        options = f'backend="onnx", model_kwargs={{"file_name": {file!r}, "provider": "CPUExecutionProvider"}}'
        scripts["sentence-transformers torch"] = SENTENCE_TRANSFORMERS.format(path=str(folder), query=query, options="")
        scripts["sentence-transformers onnx int8"] = SENTENCE_TRANSFORMERS.format(path=str(onnx), query=query, options=options)
    passages = WORK / "passages.json"
    passages.write_text(json.dumps(workloads.passages(100)), "utf-8")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in scripts}
    for _ in range(arguments.rounds):
        for name, script in scripts.items():
            rows[name].append(measure(script, passages))
    print(f"{arguments.model}: fresh processes, 2 threads, median of {arguments.rounds}\n")
    print(f"{'':32}{'first score s':>14}{'loaded MB':>11}{'after 100 MB':>14}{'of it private':>15}")
    for name, results in rows.items():
        first, loaded, after, private = (
            statistics.median(result[key] for result in results) for key in ("first", "loaded", "after", "private")
        )
        print(f"{name:32}{first:14.2f}{loaded / 1e6:11.0f}{after / 1e6:14.0f}{private / 1e6:15.0f}")
    print(
        f"\n{cpu.model_name()}, {', '.join(cpu.instruction_sets())}; Python {platform.python_version()}; {time.strftime('%F')}"
    )


if __name__ == "__main__":
    main()
