"""The repair ladder: what plain int8 breaks, what repairs it, and what each rung leaves behind."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import raskrank.gate
from backends import needs_kernels
from builders import PAIRS
from conftest import Tiny
from raskrank import Reranker
from raskrank.checkpoint import read_checkpoint
from raskrank.cli.main import main
from raskrank.manifest import MODEL
from raskrank.parity import Parity
from raskrank.torch_backend import TorchBackend
from raskrank_export import ExportReport, Thresholds, export
from raskrank_export.halves import halve
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.products import constant_products
from raskrank_export.quantization import PORTABLE, ActivationScheme, Quantization
from repairs import SMALL, changed

OUTLIERS = {3: 40.0, 17: -40.0}  # channel -> what it is for every token; the other channels are within 3 or so
READ_FROM_NORMALIZED = ("query.weight", "key.weight", "value.weight", "intermediate.dense.weight", "classifier.dense.weight")


def add_outliers(weights: dict[str, torch.Tensor]) -> None:
    """As in trained XLM-R: a few channels that are far off for every token, carried from layer to layer by the residual.

    What reads them has small weights for them, and every LayerNormalization a gain that makes up for what they add to its
    variance, so that in fp32 the model ranks about as before.
    """
    channels, values = list(OUTLIERS), torch.tensor(list(OUTLIERS.values()))
    for name, tensor in weights.items():
        if name.endswith("embeddings.LayerNorm.bias"):
            tensor[channels] = values
        elif name.endswith("LayerNorm.weight") and ".layer." in name:
            tensor *= math.sqrt(1 + float(values.square().sum()) / 2 / len(tensor))
        elif name.endswith(READ_FROM_NORMALIZED):
            tensor[:, channels] /= values.abs()


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory, few_samples: Path) -> ExportReport:
    """The export of a checkpoint with outliers."""
    root = tmp_path_factory.mktemp("hard")
    return export(
        str(changed(root / "outliers", add_outliers)), root / "bundle", samples=few_samples, scheme="row", thresholds=SMALL
    )


# Outliers


def test_the_checkpoint_has_outliers_of_the_kind(hard: ExportReport) -> None:
    checkpoint = read_checkpoint(Path(hard.manifest.source.model))
    backend, means = TorchBackend(checkpoint), dict[str, list[torch.Tensor]]()
    for name, module in backend.model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            kept = means.setdefault(name, [])
            module.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output.abs().mean(dim=(0, 1))))
    with Reranker.load(hard.output) as reranker:
        for pair in reranker._loaded.encoder.encode(PAIRS):
            backend.logits(pair.input_ids[None], pair.token_type_ids[None])
    assert len(means) == 5
    for kept in means.values():
        mean = torch.stack(kept).mean(dim=0)
        times = (mean / mean.median()).numpy()
        assert (times[list(OUTLIERS)] > 20).all()
        assert (times[list(OUTLIERS)] < 60).all()
        assert np.delete(times, list(OUTLIERS)).max() < 5


def test_row_ranges_alone_break_it_and_the_ladder_repairs_it(hard: ExportReport) -> None:
    assert hard.climb is not None
    plain, *others = hard.climb.attempts
    assert plain.rung == ("int8", Quantization(scheme="row"))
    assert {"min_tau", "max_drift", "max_mean_drift"} <= set(plain.failed)
    assert plain.parity.tau < 0.75
    assert hard.fp32_parity.logit_spread > 1
    # Finer activations do not make up for it either.
    assert others[0].rung.name == "int8, 7-bit weights"
    assert others[0].parity.tau < 0.8
    assert hard.manifest.precision == "int8"
    assert hard.parity is hard.climb.passed.parity
    assert hard.parity.tau >= 0.9
    assert hard.parity.max_drift < plain.parity.max_drift / 3
    assert "activations smoothed" in hard.climb.passed.rung.name


def test_constant_ranges_smooth_outliers_from_the_start(hard: ExportReport, few_samples: Path, tmp_path: Path) -> None:
    report = export(hard.manifest.source.model, tmp_path / "b", samples=few_samples, scheme="constant", thresholds=SMALL)
    assert report.climb is not None
    assert hard.climb is not None
    assert report.climb.attempts[0].parity.tau > hard.climb.attempts[0].parity.tau + 0.15


def test_the_report_has_the_rung_its_cost_and_the_numbers_of_plain_int8(hard: ExportReport) -> None:
    print(hard)  # noqa: T201  for docs/notebook.md
    assert hard.climb is not None
    assert hard.climb.cost is not None
    plain, passed, text = hard.climb.attempts[0], hard.climb.passed, str(hard)
    assert f"plain int8 failed; repaired as {passed.rung.name}" in text
    assert f"int8: Kendall tau {plain.parity.tau:.4f}" in text
    assert f"{passed.rung.name}: Kendall tau {passed.parity.tau:.4f}" in text
    assert f"{hard.climb.cost.passed_ms:.2f} ms instead of {hard.climb.cost.plain_ms:.2f} for 128 tokens on one" in text
    assert hard.climb.cost.plain_ms > 0


def test_the_manifest_has_the_same(hard: ExportReport) -> None:
    manifest = json.loads((Path(hard.output) / "manifest.json").read_text("utf-8"))
    assert hard.climb is not None
    ladder, recipe = manifest["parity"]["ladder"], manifest["recipe"]
    assert ladder["rung"] == hard.climb.passed.rung.name
    assert [rung["rung"] for rung in ladder["tried"]] == [attempt.rung.name for attempt in hard.climb.attempts]
    assert [bool(rung["failed"]) for rung in ladder["tried"]] == [True] * (len(ladder["tried"]) - 1) + [False]
    assert ladder["tried"][0]["tau"] == round(hard.climb.attempts[0].parity.tau, 6)
    assert manifest["parity"]["int8"]["tau"] == round(hard.parity.tau, 6)
    assert recipe["passes"]["smoothing"] >= 5
    assert sorted(recipe["excluded_nodes"]) == recipe["excluded_nodes"]


def test_a_repaired_bundle_scores_a_pair_alone_as_in_a_group(hard: ExportReport) -> None:
    words = ["Den", "siste", "bussen", "går", "fra", "torget"]
    crowd = [("Når går bussen?", " ".join(words[shift:] + words[:shift])) for shift in range(len(words))]
    with Reranker.load(hard.output) as reranker:
        together = reranker.score_pairs([*crowd, *PAIRS])
        alone = np.concatenate([reranker.score_pairs([pair]) for pair in (*crowd, *PAIRS)])
    np.testing.assert_array_equal(together, alone)


# Rungs, each let pass by name


@pytest.fixture
def reached(tiny: Tiny, few_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExportReport]:
    """Exports the tiny BERT with a gate that no int8 passes but that of a name, and not on the part of the samples `but_on`."""

    def run(name: str, scheme: ActivationScheme = "row", *, but_on: str = "", samples: Path = few_samples) -> ExportReport:
        def failures(parity: Parity, thresholds: Thresholds, kind: str) -> dict[str, str]:
            passes = parity.candidate in (f"onnx {name}", f"native {name}") and parity.part != but_on
            return {} if kind != "int8" or passes else {"min_tau": "as a test wants it"}

        monkeypatch.setattr(raskrank.gate, "failures", failures)
        return export(str(tiny.checkpoint()), tmp_path / "bundle", samples=samples, scheme=scheme, overwrite=True)

    return run


def rungs(report: ExportReport) -> list[str]:
    assert report.climb is not None
    return [attempt.rung.name for attempt in report.climb.attempts]


def difference(report: ExportReport, tiny: Tiny) -> float:
    """The largest difference of a score from the fp32 bundle's."""
    with Reranker.load(report.output) as candidate, Reranker.load(tiny.bundle("bert", "fp32")) as exact:
        return float(np.abs(candidate.score_pairs(PAIRS) - exact.score_pairs(PAIRS)).max())


def test_row_ranges_repair_constant_ones(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("int8, row ranges", "constant")
    assert rungs(report) == ["int8", "int8, row ranges"]
    recipe = report.manifest.recipe
    assert (recipe.scheme, recipe.activation_max, recipe.weight_max, recipe.groups) == ("row", *PORTABLE, True)
    assert 0 < difference(report, tiny) < 0.15


def test_seven_bits(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("int8, 7-bit weights")
    assert rungs(report) == ["int8", "int8, 7-bit weights"]
    recipe = report.manifest.recipe
    assert (recipe.scheme, recipe.activation_max, recipe.weight_max, recipe.instruction_set) == ("row", 127, 64, "portable")
    assert 0 < difference(report, tiny) < 0.15


def test_groups(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("int8 in groups")
    assert rungs(report)[-1] == "int8 in groups"
    recipe = report.manifest.recipe
    assert (recipe.scheme, recipe.activation_max, recipe.weight_max) == ("group", 127, 127)
    assert (recipe.groups, recipe.instruction_set) == (False, "portable")
    assert 0 < difference(report, tiny) < 0.05
    graph = GraphEditor(onnx.load(str(Path(report.output) / MODEL)))
    assert len(graph.nodes("MatMulNBits")) == 9
    assert constant_products(graph) == []
    with Reranker.load(report.output, threads=2) as reranker:
        together = reranker.score_pairs(PAIRS)
        assert all(reranker.score_pairs([pair])[0] == score for pair, score in zip(PAIRS, together, strict=True))


def test_plain_groups_have_two_repairs(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("weight-only int8", "group")
    plain, *others, last = rungs(report)
    assert (plain, last) == ("int8", "weight-only int8")
    assert others
    assert all(name.endswith("in fp32") for name in others)
    assert report.manifest.encoder is None
    assert report.onnxruntime_alone == "it was made as weights, which they do not run"
    assert difference(report, tiny) > 0


@needs_kernels
def test_our_kernels_are_judged_too(tiny: Tiny, few_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failures(parity: Parity, thresholds: Thresholds, kind: str) -> dict[str, str]:
        return {"min_tau": "as a test wants it"} if parity.candidate.startswith("native") else {}

    monkeypatch.setattr(raskrank.gate, "failures", failures)
    report = export(str(tiny.checkpoint()), tmp_path / "bundle", samples=few_samples)
    assert report.climb is not None
    plain, passed = report.climb.attempts
    assert (plain.parity.candidate, plain.failed) == ("native int8", {"min_tau": "as a test wants it"})
    assert (passed.rung.name, report.manifest.encoder) == ("int8, 1 product in fp32", None)


def test_groups_with_products_in_fp32_are_for_onnxruntime(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("int8, 1 product in fp32", "group")
    assert rungs(report) == ["int8", "int8, 1 product in fp32"]
    assert (report.manifest.recipe.scheme, report.manifest.encoder) == ("group", None)
    assert report.onnxruntime_alone == "it was made as group, with products in fp32, which they do not run"
    assert 0 < difference(report, tiny) < 0.05


def test_weight_only(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("weight-only int8")
    assert rungs(report)[-1] == "weight-only int8"
    others = [name for name in rungs(report) if name.endswith("in fp32")]
    assert others[0].endswith(", 1 product in fp32")
    assert rungs(report)[-3:] == [others[-1], "int8 in groups", "weight-only int8"]
    recipe = report.manifest.recipe
    assert (recipe.scheme, recipe.activation_max, recipe.weight_max) == ("weights", 0, 127)
    assert recipe.groups is False
    assert report.manifest.precision == "int8"
    assert 0 < difference(report, tiny) < 0.05
    graph = GraphEditor(onnx.load(str(Path(report.output) / MODEL)))
    assert len(graph.nodes("MatMulNBits")) == 9
    assert constant_products(graph) == []


def test_fp32_is_the_last_rung_and_is_said_loudly(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("nothing")
    assert rungs(report)[0] == "int8"
    assert rungs(report)[-2:] == ["weight-only int8", "fp32"]
    manifest = report.manifest
    assert manifest.precision == manifest.recipe.scheme == "fp32"
    assert (manifest.recipe.weight_max, manifest.recipe.excluded_nodes) == (0, ())
    assert "int8" not in manifest.parity
    assert manifest.parity["ladder"]["rung"] == "fp32"
    assert "NOT QUANTIZED: every form of int8 failed, so the bundle is fp32" in str(report)
    assert report.parity is report.fp32_parity
    assert difference(report, tiny) == 0
    assert sorted(path.name for path in Path(report.output).iterdir()) == [
        "manifest.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
    ]


def test_where_plain_int8_passes_nothing_else_is_tried(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("int8")
    assert rungs(report) == ["int8"]
    assert "ladder" not in report.manifest.parity
    assert not [step for step in report.seconds if step.startswith("repair")]
    assert "repaired" not in str(report)


# What is chosen on one half of the samples is judged on the other


def test_what_the_ladder_chose_is_judged_on_pairs_it_did_not_choose_by(hard: ExportReport) -> None:
    assert hard.climb is not None
    plain, *others = hard.climb.attempts
    assert plain.parity.part == "all"
    passed = hard.climb.passed
    assert (passed.parity.part, passed.chosen_on.part) == ("held back", "chosen on")
    assert len(passed.parity.queries) + len(passed.chosen_on.queries) == len(plain.parity.queries)
    assert {attempt.parity.part for attempt in others if attempt.failed} <= {"chosen on", "held back"}
    # And it is said, in the report and in the manifest.
    assert hard.parity.part == hard.manifest.parity["int8"]["part"] == "held back"
    assert {rung["part"] for rung in hard.manifest.parity["ladder"]["tried"]} >= {"all", "held back"}
    lines = str(hard).splitlines()
    assert any(line.startswith(f"onnx {passed.rung.name}") and line.endswith("queries, not chosen on them") for line in lines)
    assert f"{len(passed.parity.queries)} pairs (held back); passed" in str(hard)


def test_raskrank_info_says_which_half_the_numbers_are_of(hard: ExportReport, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--bundle", hard.output]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert next(line for line in shown if line.startswith("onnx int8")).endswith(f" {len(hard.parity.queries)}*")
    assert shown[-1] == "* the half of the samples that the repair of int8 was not chosen on"


def test_a_rung_that_passes_only_where_it_was_chosen_is_not_the_last(reached: Callable[..., ExportReport]) -> None:
    report = reached("int8, 7-bit weights", but_on="held back")
    assert report.climb is not None
    overfit = report.climb.attempts[1]
    assert overfit.rung.name == "int8, 7-bit weights"
    assert (overfit.parity.part, overfit.chosen_on.part, bool(overfit.failed)) == ("held back", "chosen on", True)
    assert rungs(report)[2:]
    assert rungs(report)[-1] == "fp32"


def test_constant_ranges_are_judged_on_pairs_they_were_not_found_on(reached: Callable[..., ExportReport]) -> None:
    report = reached("int8", "constant")
    assert rungs(report) == ["int8"]
    assert report.parity.part == "held back"
    assert rungs(reached("int8", "constant", but_on="held back"))[1:]


def test_plain_int8_is_judged_on_every_sample(reached: Callable[..., ExportReport]) -> None:
    assert reached("int8").parity.part == "all"


def test_too_few_samples_to_choose_and_judge_end_in_fp32_and_say_so(tiny: Tiny, reached: Callable[..., ExportReport]) -> None:
    report = reached("int8, 7-bit weights", samples=tiny.samples)
    assert rungs(report) == ["int8", "fp32"]
    assert "every repair: skipped, it is chosen on half of the samples" in str(report)
    assert "at least 4 queries in each" in " ".join(str(report).split())


def queries_of(pairs: list[tuple[str, str]], indices: tuple[int, ...]) -> set[str]:
    return {pairs[index][0] for index in indices}


def test_queries_of_the_same_words_stay_in_one_half() -> None:
    same = ("Hvem kan Python?", "hvem kan python", "Python: hvem kan", "Hvém  kan Python!")
    others = tuple(f"spørsmål {letter}" for letter in "abcdefghijk")
    pairs = [(query, document) for query in (same[0], *others, *same[1:]) for document in ("x", "y")]
    logits = np.arange(len(pairs), dtype=np.float32)
    halves = halve(pairs, logits, 0.5)
    assert halves is not None
    assert sorted([*halves.chosen_on, *halves.held_back]) == list(range(len(pairs)))
    chosen, held = queries_of(pairs, halves.chosen_on), queries_of(pairs, halves.held_back)
    assert not chosen & held
    assert set(same) <= chosen
    assert (len(chosen & set(others)), len(held & set(others))) == (5, 6)


def test_queries_in_any_script_are_told_apart() -> None:
    pairs = [(query, document) for query in ("北京", "上海", "?", "!", "🙂", "🙁", "Ελλάδα", "Мир") for document in ("x", "y")]
    halves = halve(pairs, np.arange(len(pairs), dtype=np.float32), 0.5)
    assert halves is not None
    assert len(queries_of(pairs, halves.chosen_on)) == len(queries_of(pairs, halves.held_back)) == 4


def test_queries_whose_documents_score_alike_do_not_count_for_a_half() -> None:
    pairs = [(f"q{number}", document) for number in range(16) for document in ("x", "y")]
    logits = np.array([number % 4 < 2 and place for number in range(16) for place in (0, 1)], np.float32)
    halves = halve(pairs, logits, 1e-6)  # 8 of 16 queries count, 4 in each half
    assert halves is not None
    assert halve(pairs[:-4], logits[:-4], 1e-6) is not None
    assert halve(pairs[4:-4], logits[4:-4], 1e-6) is None
