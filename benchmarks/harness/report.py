"""What the result files say: a page for each, README's table, and the chart of README's first screen.

    python -m benchmarks.harness.report              all of it, from benchmarks/results/*.json: docs/benchmarks/*.md,
                                                     docs/images/peers.png, and what stands between README's markers
    python -m benchmarks.harness.report --readme     what stands between README's markers alone
    python -m benchmarks.harness.report FILE.json    the page and the chart of one result, in build/bench/results

A new result is copied to benchmarks/results/MACHINE.MODEL.json; the one that it replaces is removed.
"""

import argparse
from pathlib import Path

from benchmarks.harness import results
from benchmarks.harness.chart import draw
from benchmarks.harness.machines import place
from benchmarks.harness.models import ROOT, WORK
from benchmarks.harness.page import page
from benchmarks.harness.panels import draw_panels
from benchmarks.harness.results import Result
from benchmarks.harness.span import speed_table, summary
from benchmarks.harness.workloads import MAIN

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs" / "benchmarks"
CHART = ROOT / "docs" / "images" / "peers.png"
CHART_MODEL = "minilm"
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def committed() -> dict[str, Result]:
    """The results in benchmarks/results, by the file's name without .json, in the order of every page."""
    found = {file.stem: results.read(file) for file in RESULTS.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: (place(item[1]), item[0])))


def write_report(result: Result, folder: Path, name: str) -> list[Path]:
    """NAME.md in the folder and, where the main workload was measured, NAME.png. Returns what was written."""
    text, picture = folder / f"{name}.md", folder / f"{name}.png"
    charted = MAIN in result["workloads"]
    folder.mkdir(parents=True, exist_ok=True)
    text.write_text(page(result, chart=picture.name if charted else None), "utf-8")
    if not charted:
        return [text]
    draw(result, picture)
    return [text, picture]


def write_pages(found: dict[str, Result], folder: Path) -> list[Path]:
    """A page for each result, and index.md before them. Pages of results that are no longer there are removed."""
    texts = {f"{name}.md": page(result) for name, result in found.items()}
    texts["index.md"] = index(found)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]


def index(found: dict[str, Result]) -> str:
    """What the pages say together, and the way to each."""
    measured, pages = list(found.values()), [f"{name}.md" for name in found]
    picture = "![Each peer's time as a multiple of ours](../images/peers.png)"
    everyone = "Each peer's time as a multiple of ours, the fastest first:"
    return (
        "\n\n".join(["# Beside its peers", picture, summary(measured, pages), "## Everyone", everyone, speed_table(measured)])
        + "\n"
    )


def readme_table(found: dict[str, Result]) -> str:
    """What stands between README's markers."""
    folder = PAGES.relative_to(ROOT).as_posix()
    return summary(list(found.values()), [f"{folder}/{name}.md" for name in found])


def write_readme(readme: str, table: str) -> str:
    """README's text with the table between its markers. Raises ValueError where they are not there, once and in order."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, once and in this order")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="*", type=Path, help="result files; default: everything that is committed")
    parser.add_argument("--readme", action="store_true", help="README's table alone")
    arguments = parser.parse_args()
    written = [path for file in arguments.file for path in write_report(results.read(file), WORK / "results", file.stem)]
    if arguments.readme or not arguments.file:
        if not (found := committed()):
            parser.error(f"no results in {RESULTS}")
        README.write_text(write_readme(README.read_text("utf-8"), readme_table(found)), "utf-8")
        written.append(README)
        if not arguments.readme:
            written += write_pages(found, PAGES)
            draw_panels([result for result in found.values() if result["model"] == CHART_MODEL], CHART)
            written.append(CHART)
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
