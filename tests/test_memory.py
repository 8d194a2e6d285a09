"""What a call may need of address space grows with the pairs that a model reads. Under a limit it is refused or it fits."""

from pathlib import Path

import pytest

from builders import tiny_checkpoint
from conftest import Tiny
from exporting import loose_export
from measured import linux, run
from raskrank.planning import GROUP_TOKENS
from raskrank.process.memory import MIB, for_call

LONG = 4096
SOURCE = """
folder, mib = sys.argv[1], int(sys.argv[2])
reranker = Reranker.load(folder, threads=1, backend="onnx")
reranker.score("by", ["en by"])
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (mib << 20),) * 2)
try:
    ranking = reranker.rank("by", [long * 100])
    assert ranking[0].truncated
    print(ranking.tokens)
except InferenceError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def bundles(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same model by how many tokens it reads."""
    root = tmp_path_factory.mktemp("long")
    folder = tiny_checkpoint(root / "checkpoint", "new", hidden=64, intermediate=128, positions=LONG)
    found = {length: root / str(length) for length in (512, LONG)}
    for length, bundle in found.items():
        loose_export(tiny, bundle, checkpoint=folder, precision="fp32", max_length=length)
    return found


@linux
def test_a_call_is_refused_where_the_longest_pairs_may_not_fit(bundles: dict[int, Path], tmp_path: Path) -> None:
    short, long = (for_call(1, 64, length, starting=1) // MIB for length in bundles)
    between = (short + long) // 2
    assert run(tmp_path, SOURCE, str(bundles[512]), str(between)) == "512\n"
    refused = run(tmp_path, SOURCE, str(bundles[LONG]), str(between))
    assert f"a call may need {long} MiB of memory, and the limit on address space (RLIMIT_AS, ulimit -v) leaves" in refused


@linux
def test_what_is_not_refused_fits(bundles: dict[int, Path], tmp_path: Path) -> None:
    enough = for_call(1, 64, LONG, starting=1) // MIB + 1
    assert run(tmp_path, SOURCE, str(bundles[LONG]), str(enough)) == f"{LONG}\n"


def test_short_pairs_need_as_much_as_a_run_of_several() -> None:
    assert for_call(2, 384, 32, starting=0) == for_call(2, 384, GROUP_TOKENS, starting=0) < for_call(2, 384, 512, starting=0)
