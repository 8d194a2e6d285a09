"""What the benchmarks make of result files: pages, README's table, charts."""

import re
from pathlib import Path

import pytest

from benchmarks.harness import machines, report, results
from benchmarks.harness.contender import OURS
from benchmarks.harness.page import page
from benchmarks.harness.panels import draw_panels
from benchmarks.harness.results import Machine, Result, Timing
from benchmarks.harness.workloads import WORKLOADS
from paths import ROOT

TITLES = {workload.name: workload.title for workload in WORKLOADS}
PEER = "sentence-transformers torch"


def timing(*seconds: float, **changes: object) -> Timing:
    plain = Timing(seconds=list(seconds), batch_size=None, padding=0.0, tau=1.0, drift=0.0)
    return Timing(**{**plain, **changes})  # type: ignore[typeddict-item]


def recorded(model: str = "nano", *, avx512_vnni: bool = False) -> Result:
    """A result as `python -m benchmarks.peers` writes it, with two contenders that ran and one that could not."""
    sets = ["avx2", "avx512_vnni"] if avx512_vnni else ["avx2"]
    return Result(
        format=results.FORMAT,
        model=model,
        architecture="BertForSequenceClassification",
        parameters=2_400_000,
        date="2026-11-25",
        machine={"cpu": "A CPU", "cores": 2, "instruction_sets": sets, "system": "Linux", "python": "3.11.7"},
        texts="NorQuAD validation",
        contenders={
            OURS: {"setting": "defaults", "versions": {"raskrank": "0.1.0"}, "problem": None},
            PEER: {"setting": "batches of 32", "versions": {"torch": "2.13.0"}, "problem": None},
            "FlashRank int8": {"setting": "one batch", "versions": {}, "problem": "environment light is not set up"},
        },
        workloads={
            "mixed-100": {
                "title": TITLES["mixed-100"],
                "passages": 100,
                "tokens": 20_000,
                "contenders": {
                    PEER: timing(8.0, 9.0, 10.0, padding=0.25, tau=0.5),
                    OURS: timing(1.0, 2.0, 0.9, batch_size=8),
                },
            }
        },
        start={
            OURS: {"first": [0.2, 0.3, 0.4], "resident": [80_000_000] * 3, "private": [40_000_000] * 3},
            PEER: {"first": [6.0, 6.0, 6.3], "resident": [800_000_000] * 3, "private": [700_000_000] * 3},
        },
        threads={"mixed-100": {"1": [2.0], "2": [1.0]}},
        limits={
            "peaks": {"1": {"int8": 400.0, "fp32": 100.0}},
            "shares": [{"title": TITLES["pair"], "threads": 1, "limit": 0.006, "seconds": [0.01, 0.008, 0.012]}],
        },
    )


def test_ratio_and_p95() -> None:
    assert results.ratio([8, 9, 10], [1, 2, 0.8]) == (9.0, 4.5, 12.5)
    assert results.p95(list(range(1, 21))) == 19
    assert results.p95([3, 1, 2]) == 3


def test_a_result_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    results.write(recorded(), tmp_path / "results" / "nano.json")
    assert results.read(tmp_path / "results" / "nano.json") == recorded()


def test_a_result_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"format": 0}', "utf-8")
    with pytest.raises(ValueError, match=r"old\.json: format 0, expected 1"):
        results.read(tmp_path / "old.json")


def test_report_says_how_fast_and_who_is_missing() -> None:
    text = page(recorded())
    assert "| **Raskrank int8** (batches of 8) | 1,000 | 2,000 | 100 | 20,000 | 1.00 | 0% | 1.0000 | 0.0000 |" in text
    assert "| sentence-transformers torch | 9,000 | 10,000 | 11.1 | 2,222 | 9.00 (4.50–11.1) | 25% | 0.5000 | 0.0000 |" in text
    assert text.index("**Raskrank int8** (b") < text.index("| sentence-transformers torch | 9,000")
    assert "| sentence-transformers torch | 6.00 | 20.0 | 800 | 700 | 0.10 |" in text
    assert "| one pair of 128 tokens | 1 | 6.00 | 8.00 | 75% |" in text
    assert "- FlashRank int8: environment light is not set up" in text
    assert "2,000 (1.00x) | 1,000 (2.00x)" in text


def test_every_table_of_a_report_is_rectangular() -> None:
    found = {"one": recorded(), "other": recorded("bge")}
    text = "\n".join([page(recorded()), report.readme_table(found), report.index(found)])
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_report_and_chart_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra bench")
    written, chart = report.write_report(recorded(), tmp_path, "nano")
    assert "(nano.png)" in written.read_text("utf-8")
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_a_report_without_the_main_workload_has_no_chart(tmp_path: Path) -> None:
    result = recorded()
    result["workloads"] = {}
    assert report.write_report(result, tmp_path, "nano") == [tmp_path / "nano.md"]


def test_readme_table_has_a_column_for_each_result() -> None:
    other = recorded("bge", avx512_vnni=True)
    del other["workloads"]["mixed-100"]["contenders"][PEER]
    del other["start"][PEER]
    table = report.readme_table({"a": recorded("minilm"), "b": other})
    assert "|  | MiniLM-L-6<br>2 cores, AVX2 | bge-reranker-base<br>2 cores, AVX-512 VNNI |" in table
    assert "| 100 passages of mixed length: Raskrank int8 | 1,000 ms | 1,000 ms |" in table
    assert "| 100 passages of mixed length: sentence-transformers torch | 9.00 | – |" in table
    assert "| 100 passages of mixed length: the fastest peer | 9.00<br>sentence-transformers torch | – |" in table
    assert "| 0.30 s<br>sentence-transformers torch 6.00 s | – |" in table
    assert "| 80 MB<br>sentence-transformers torch 800 MB | – |" in table
    assert "| share of the machine's limit, one pair of 128 tokens | 75% | 75% |" in table
    assert "| all cores against one, 100 passages of mixed length | 2.0 | 2.0 |" in table
    assert "- [MiniLM-L-6 on 2 cores, AVX2](docs/benchmarks/a.md): A CPU, 2026-11-25, 3 rounds" in table
    assert "10 passages" not in table  # what nobody measured has no row


def test_readme_table_shows_where_a_peer_is_ahead() -> None:
    result = recorded()
    result["workloads"]["mixed-100"]["contenders"][PEER] = timing(0.5, 0.6, 0.7)
    result["workloads"]["mixed-100"]["contenders"]["Raskrank fp32"] = timing(0.1, 0.1, 0.1)  # is no peer
    result["start"][PEER] = {"first": [0.1], "resident": [1_000_000], "private": [1_000_000]}
    table = report.readme_table({"a": result})
    assert "the fastest peer | **0.60**<br>sentence-transformers torch |" in table
    assert "| 0.30 s<br>sentence-transformers torch **0.10 s** |" in table
    assert "| 80 MB<br>sentence-transformers torch **1 MB** |" in table


def test_a_ratio_that_is_shown_as_one_is_not_ahead() -> None:
    result = recorded()
    result["workloads"]["mixed-100"]["contenders"][PEER] = timing(0.998, 0.998, 0.998)
    assert "the fastest peer | 1.00<br>" in report.readme_table({"a": result})


def test_everyone_is_in_the_index_the_fastest_first() -> None:
    result = recorded()
    result["workloads"]["mixed-100"]["contenders"]["OpenVINO int8 direct"] = timing(2.0, 2.0, 2.0)
    text = report.index({"a": result})
    assert "| **Raskrank int8** | 1,000 ms |\n| OpenVINO int8 direct | 2.00 |\n| sentence-transformers torch | 9.00 |" in text
    assert "(a.md)" in text
    assert "(../images/peers.png)" in text


def test_pages_of_results_that_are_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("old", "utf-8")
    written = report.write_pages({"a": recorded()}, tmp_path)
    assert sorted(written) == sorted(tmp_path.iterdir()) == [tmp_path / "a.md", tmp_path / "index.md"]


def test_chart_has_a_panel_for_each_machine(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra bench")
    from matplotlib import image

    file = tmp_path / "images" / "peers.png"
    draw_panels([recorded("minilm"), recorded("minilm", avx512_vnni=True)], file)
    assert image.imread(file).shape[1] == 1600


@pytest.mark.parametrize(
    ("sets", "cores", "kind"),
    [
        (["avx2"], 2, "2 cores, AVX2"),
        (["avx2", "avx512f"], 1, "1 core, AVX2"),
        (["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"], 16, "16 cores, AMX"),
        (["asimd", "asimddp"], 8, "8 cores, NEON dot products"),
        ([], 4, "4 cores, no int8 instructions"),
    ],
)
def test_a_machine_is_named_after_its_best_instructions(sets: list[str], cores: int, kind: str) -> None:
    assert machines.kind(Machine(cpu="A CPU", cores=cores, instruction_sets=sets, system="Linux", python="3.11.7")) == kind


def test_models_come_in_order_and_their_machines_from_the_weakest() -> None:
    found = [recorded("own"), recorded("bge"), recorded("minilm", avx512_vnni=True), recorded("minilm")]
    titles = [machines.title(result) for result in sorted(found, key=machines.place)]
    assert titles == [
        "MiniLM-L-6 on 2 cores, AVX2",
        "MiniLM-L-6 on 2 cores, AVX-512 VNNI",
        "bge-reranker-base on 2 cores, AVX2",
        "own on 2 cores, AVX2",
    ]


def test_readme_is_written_between_its_markers() -> None:
    readme = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.write_readme(readme, "new") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"


@pytest.mark.parametrize("readme", ["none", report.BEGIN, report.END + report.BEGIN, 2 * (report.BEGIN + report.END)])
def test_readme_without_markers_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="once and in this order"):
        report.write_readme(readme, "table")


def test_readme_shows_the_committed_results() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    if report.BEGIN not in readme:
        pytest.skip("README.md has no benchmark table")
    assert report.write_readme(readme, report.readme_table(report.committed())) == readme


def test_the_committed_pages_show_the_committed_results(tmp_path: Path) -> None:
    written = report.write_pages(report.committed(), tmp_path)
    assert {file.name for file in written} == {file.name for file in report.PAGES.glob("*.md")}
    for file in written:
        assert file.read_text("utf-8") == (report.PAGES / file.name).read_text("utf-8"), file.name
    assert report.CHART.is_file()


def test_committed_results_name_no_place() -> None:
    for file in report.RESULTS.glob("*.json"):
        text = file.read_text("utf-8")
        assert not re.search(r'"/|[a-z]+://|\\\\', text), file.name
        assert re.fullmatch(r"\w+ [\d.]+", results.read(file)["machine"]["system"]), file.name
