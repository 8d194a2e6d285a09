"""How faithful int8 is on the trained nano model: NorQuAD validation, 20 candidates a question, bundle against PyTorch.

    python -m benchmarks.studies.fidelity [--questions 200]

Needs ../shared. Candidates are the relevant passage and 19 drawn at random with a fixed seed.
"""

import argparse
import json
import random

from benchmarks.harness.models import SHARED, bundle, checkpoint
from raskrank import Reranker


def pairs(questions: int) -> list[tuple[str, str]]:
    folder = SHARED / "norquad" / "validation"
    passages = {item["id"]: item["text"] for item in map(json.loads, (folder / "passages.jsonl").open(encoding="utf-8"))}
    queries = {item["id"]: item["text"] for item in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    rows = [line.split("\t") for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]]
    rng, identifiers, result = random.Random(0), sorted(passages), []
    for query, relevant, _ in rng.sample(rows, questions):
        candidates = [relevant, *rng.sample([name for name in identifiers if name != relevant], 19)]
        result += [(queries[query], passages[name]) for name in candidates]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    chosen = pairs(parser.parse_args().questions)
    print("the embedded bundle:", Reranker.load(checkpoint=checkpoint("nano")).verify(chosen), sep="\n")
    print("fp32 bundle:", Reranker.load(bundle("nano", "fp32"), checkpoint=checkpoint("nano")).verify(chosen), sep="\n")


if __name__ == "__main__":
    main()
