"""What a bundle gains over a plain export, by family: over what optimum, or torch.onnx, alone makes of the checkpoint.

    python -m benchmarks.studies.plain [MODEL...] [--layers 12] [--hidden 384] [--threads 1] [--seconds 20] [--every 24]

MODEL is a family of tests/builders.py, such as mpnet: that architecture in the size given, with seeded weights and the
builders' small vocabulary; or nano, minilm, bge, or a checkpoint's folder. Default: every family. The passages are those of
`raskrank bench`, whose `--against plain` this is: one of mixed length, and 100 mixed, short and long ones, or fewer where time
is short. A cell says how many times as long as a bundle the plain export takes, the ratio of medians, all in turns: first as
the bundle in fp32, which is what passes and fusions gain, then as the one in int8. --every 24 judges exports on every 24th
sample query; --seconds are for the turns of a model, and its exports come on top.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness.families import folder_of, names
from benchmarks.harness.models import HELP, LOOSE, some_samples
from raskrank import cpu
from raskrank.manifest import Precision
from raskrank.measure.bench import Bench
from raskrank.measure.bench_result import Result
from raskrank.measure.contenders import PlainExport, loaded_for_bench
from raskrank.measure.passages import QUERY, Workload, from_samples
from raskrank_export import ExportReport, export
from raskrank_export.plain import plain_export

PASSAGES = 100
KINDS = ("one", "mixed", "short", "long")
COLUMNS = ("model", "parameters", "plain export by", "int8 runs in", *KINDS, "tau of fp32 and plain", "not matched")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def workloads() -> list[Workload]:
    """Of a kind each."""
    mixed, short, long = (workload for workload in from_samples(PASSAGES) if len(workload.passages) == PASSAGES)
    return [replace(mixed.sample(1), kind="one"), mixed, short, long]


def measured(bundles: list[Path], plain: PlainExport, threads: int, seconds: float) -> list[Result]:
    with loaded_for_bench(bundles, threads=threads, plain=plain) as contenders:
        bench, began, passages = Bench(contenders, QUERY), time.perf_counter(), workloads()
        return bench.measure(passages, bench.pace(passages[0]), lambda: seconds - (time.perf_counter() - began))


def row(model: str, report: ExportReport, results: list[Result], made: str) -> str:
    """A line of the table. report: of the bundle in int8. In results the one in fp32 is first, and the plain export last."""
    ratios = {result.kind: _ratios(result) for result in results}
    taus = [tau for result in results if (tau := result.speeds[-1].kendall_tau) is not None]
    cells = [
        model,
        f"{report.manifest.parameters / 1e6:.0f} M",
        " ".join(made.split()[:2]),  # without of what
        "our kernels" if report.manifest.encoder else "onnxruntime",
        *(ratios.get(kind, "-") for kind in KINDS),
        f"{min(taus):.4f}" if taus else "-",
        "; ".join(report.left) or "-",
    ]
    return f"| {' | '.join(cells)} |"


def _ratios(result: Result) -> str:
    *bundles, plain = (speed.timing.median for speed in result.speeds)
    return " / ".join(f"{plain / seconds:.2f}" for seconds in bundles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="*", help=f"a family, or {HELP}")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--every", type=int, default=24)
    arguments = parser.parse_args()
    print(f"{cpu.model_name()}, {', '.join(cpu.instruction_sets())}, {arguments.threads} of its cores\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for model in arguments.models or names():
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            samples = some_samples(folder, arguments.every)
            source, bundles = folder_of(model, arguments.layers, arguments.hidden), [folder / name for name in PRECISIONS]
            for precision, bundle in zip(PRECISIONS, bundles, strict=True):
                report = export(source, bundle, precision=precision, samples=samples, thresholds=LOOSE)
            made = plain_export(bundles[0], folder / "plain", checkpoint=source)
            plain = PlainExport(folder=folder / "plain", checkpoint=source, made=made.by)
            results = measured(bundles, plain, arguments.threads, arguments.seconds)
            print(row(model, report, results, made.by), flush=True)


if __name__ == "__main__":
    main()
