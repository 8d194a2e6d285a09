"""What a reader is told of the machine that a result was measured on, and the order of machines on every page."""

from benchmarks.harness.results import Machine, Result
from benchmarks.harness.tables import count

TITLES = {"nano": "nano", "minilm": "MiniLM-L-6", "bge": "bge-reranker-base"}  # of models, in the order of every page
# Instruction sets that decide how fast int8 is, weakest first; a CPU is named after the last that it has.
KINDS = {
    "asimd": "NEON",
    "asimddp": "NEON dot products",
    "i8mm": "i8mm",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX",
}


def model(result: Result) -> str:
    return TITLES.get(result["model"], result["model"])


def kind(machine: Machine) -> str:
    """Such as "2 cores, AVX2"."""
    known = [name for name in KINDS if name in machine["instruction_sets"]]
    return f"{count(machine['cores'], 'core')}, {KINDS[known[-1]] if known else 'no int8 instructions'}"


def title(result: Result) -> str:
    """Such as "MiniLM-L-6 on 2 cores, AVX2"."""
    return f"{model(result)} on {kind(result['machine'])}"


def place(result: Result) -> tuple[int, int, int, str]:
    """To sort results by: known models in their order, then machines from the weakest."""
    models, kinds = list(TITLES), list(KINDS)
    name, machine = result["model"], result["machine"]
    strongest = max((kinds.index(found) for found in machine["instruction_sets"] if found in kinds), default=-1)
    return models.index(name) if name in models else len(models), strongest, machine["cores"], name
