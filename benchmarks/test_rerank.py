"""pytest-benchmark suite: make bench, or pytest benchmarks --benchmark-only --benchmark-compare."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tokenizers import Tokenizer

import workloads
from models import bundle, checkpoint
from raskrank import Reranker
from raskrank.encoding import PairEncoder
from raskrank.manifest import Precision

CASES = [("nano", "int8"), ("nano", "fp32"), ("minilm", "int8"), ("minilm", "fp32")]


def _load(model: str, precision: Precision) -> Reranker:
    try:
        return Reranker.load(bundle(model, precision))
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("model", "precision"), CASES)
@pytest.mark.parametrize(("count", "kind"), [(1, "mixed"), (10, "mixed"), (100, "short"), (100, "mixed"), (20, "long")])
def test_score(benchmark: BenchmarkFixture, model: str, precision: Precision, count: int, kind: str) -> None:
    reranker, documents = _load(model, precision), workloads.passages(count, kind)
    benchmark.group = f"{count} {kind} passages"
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        reranker.score, (workloads.QUERY, documents), rounds=5, warmup_rounds=1
    )
    reranker.close()


@pytest.mark.parametrize("model", ["nano", "bge"])
def test_encode_100_passages(benchmark: BenchmarkFixture, model: str) -> None:
    try:
        tokenizer = Tokenizer.from_file(str(checkpoint(model) / "tokenizer.json"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    pairs = [(workloads.QUERY, document) for document in workloads.passages(100)]
    benchmark.group = "tokenising"
    benchmark(PairEncoder(tokenizer, 512).encode, pairs)


def test_load_nano(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "load"
    benchmark(lambda: Reranker.load().close())
