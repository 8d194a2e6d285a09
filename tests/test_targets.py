"""Bundles for kinds of CPUs: what is recorded, where they may be made, and what a load on another CPU says."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundles import copy_bundle, edit
from conftest import Tiny
from raskrank import Reranker, cpu
from raskrank.cli import main
from raskrank.errors import ExportError, Incompatible, InputError
from raskrank.manifest import Precision
from raskrank_export import ExportReport, Thresholds, export
from raskrank_export.quantize import EXACT, PORTABLE
from test_cpu import ALDER_LAKE, GRAVITON_3, NEHALEM, RASPBERRY_PI_4, SAPPHIRE_RAPIDS, SKYLAKE_SP, ZEN_2, ZEN_4

ZEN_3 = "model name	: AMD EPYC 7763 64-Core Processor\nflags		: fpu sse4_2 fma avx f16c avx2 bmi2 vaes vpclmulqdq\n"
ICE_LAKE = (
    "model name	: Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz\n"
    "flags		: fpu avx f16c avx2 avx512f avx512bw avx512ifma avx512_vnni avx512_bitalg\n"
)
EXACT_CPUS = {
    "zen 4": ZEN_4,
    "ice lake": ICE_LAKE,
    "sapphire rapids": SAPPHIRE_RAPIDS,
    "alder lake": ALDER_LAKE,
    "graviton 3": GRAVITON_3,
    "raspberry pi 4": RASPBERRY_PI_4,
}
SATURATING_CPUS = {"zen 2": ZEN_2, "zen 3": ZEN_3, "skylake-sp": SKYLAKE_SP, "nehalem": NEHALEM, "unknown": "\n"}
CPUS = {**EXACT_CPUS, **SATURATING_CPUS}
LOOSE = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)  # seeded weights rank nothing


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Lets this machine say that it is one of CPUS."""

    def pretend(name: str) -> None:
        file = tmp_path / "cpuinfo"
        file.write_text(CPUS[name])
        monkeypatch.setattr(cpu, "_CPUINFO", file)

    return pretend


@pytest.fixture
def meant_for(tiny: Tiny, tmp_path: Path) -> Callable[[str], Path]:
    """A bundle that says it is for a target. Its levels are those of every CPU, so that it scores right here."""
    return lambda target: edit(copy_bundle(tiny.bundle(), tmp_path / target), recipe__instruction_set=target)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name == "raskrank" and entry.levelno == logging.WARNING]


@pytest.mark.parametrize("name", CPUS)
def test_which_bundles_suit_a_recorded_cpu(name: str) -> None:
    sets = cpu.instruction_sets(cpuinfo=CPUS[name])
    suited = {target for target in cpu.TARGETS if cpu.suits(target, sets)}
    assert suited == {"portable", "avx2"} | ({"vnni", "arm64"} if name in EXACT_CPUS else set())


# Loading


@pytest.mark.parametrize("target", ["vnni", "arm64"])
@pytest.mark.parametrize("name", ["zen 3", "skylake-sp"])
def test_a_cpu_that_saturates_is_warned_of(
    on: Callable[[str], None], meant_for: Callable[[str], Path], name: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    on(name)
    with Reranker.load(meant_for(target)) as reranker:
        assert np.isfinite(reranker.score("Hvem kan Python?", ["En utvikler"])).all()
        assert (reranker.info().instruction_set, reranker.info().cpu) == (target, cpu.model_name())
    (warning,) = warnings_of(caplog)
    assert f"made for {target}, and this CPU ({cpu.model_name()}) adds products of int8 in 16 bits" in warning
    assert "Export the model again without --target" in warning


def test_a_cpu_of_which_nothing_is_known_is_not_said_to_saturate(
    monkeypatch: pytest.MonkeyPatch, meant_for: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "instruction_sets", lambda: ())  # x86 without /proc/cpuinfo
    Reranker.load(meant_for("vnni")).close()
    (warning,) = warnings_of(caplog)
    assert f"made for vnni, and what this CPU ({cpu.model_name()}) can do is not known" in warning


def test_strict_refuses_it(on: Callable[[str], None], meant_for: Callable[[str], Path]) -> None:
    on("zen 3")
    with pytest.raises(Incompatible, match=r"made for vnni, and this CPU \(AMD EPYC 7763 .*saturate"):
        Reranker.load(meant_for("vnni"), strict=True)


def test_pytorch_may_take_the_place_of_what_strict_refuses(
    tiny: Tiny, on: Callable[[str], None], meant_for: Callable[[str], Path]
) -> None:
    on("zen 3")
    with Reranker.load(meant_for("vnni"), strict=True, fallback="torch", checkpoint=tiny.checkpoint()) as reranker:
        assert reranker.info().backend == "torch"
        assert "made for vnni" in reranker.info().reason


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("zen 4", "vnni"),
        ("zen 4", "arm64"),
        ("graviton 3", "vnni"),
        ("zen 3", "avx2"),
        ("nehalem", "portable"),
    ],
)
def test_where_scores_are_right_nothing_is_said(
    on: Callable[[str], None], meant_for: Callable[[str], Path], name: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    on(name)
    Reranker.load(meant_for(target), strict=True).close()
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("strict", [1, None, "yes"])
def test_strict_is_true_or_false(strict: object) -> None:
    with pytest.raises(InputError, match="strict: expected bool, got"):
        Reranker.load(strict=strict)  # type: ignore[arg-type]


# Exporting


@pytest.fixture
def exported(tiny: Tiny, tmp_path: Path) -> Callable[..., ExportReport]:
    def run(target: str, precision: Precision = "int8") -> ExportReport:
        folder = tmp_path / "bundle"
        checkpoint = str(tiny.checkpoint())
        return export(
            checkpoint,
            folder,
            precision=precision,
            target=target,  # type: ignore[arg-type]  # one of them is none
            samples=tiny.samples,
            thresholds=LOOSE,
        )

    return run


@pytest.mark.parametrize(("target", "levels"), [("avx2", PORTABLE), ("arm64", EXACT)])
def test_a_target_is_recorded_with_its_levels(
    on: Callable[[str], None], exported: Callable[..., ExportReport], target: str, levels: tuple[int, int]
) -> None:
    on("graviton 3")
    recipe = exported(target).manifest.recipe
    assert recipe.instruction_set == target
    assert (recipe.activation_max, recipe.weight_max) == levels


def test_fp32_is_for_every_cpu(on: Callable[[str], None], exported: Callable[..., ExportReport]) -> None:
    on("zen 3")
    assert exported("vnni", "fp32").manifest.recipe.instruction_set == "portable"


@pytest.mark.parametrize("target", ["vnni", "arm64"])
def test_no_export_where_the_gate_would_judge_saturated_scores(
    on: Callable[[str], None], exported: Callable[..., ExportReport], target: str, tmp_path: Path
) -> None:
    on("zen 3")
    with pytest.raises(ExportError, match=rf"target '{target}': this CPU \(AMD EPYC 7763 .* \(--target portable\)"):
        exported(target)
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_target_is_refused(exported: Callable[..., ExportReport]) -> None:
    with pytest.raises(InputError, match="target: expected one of portable, avx2, vnni, arm64, got 'sse'"):
        exported("sse")


# Command line


def test_the_command_line_takes_a_target(on: Callable[[str], None], tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    on("zen 3")
    assert main(["export", str(tiny.checkpoint()), str(tiny.root / "never"), "--target", "vnni"]) == 1
    assert "error: target 'vnni': this CPU (AMD EPYC 7763" in capsys.readouterr().err


def test_the_command_line_shows_warning_and_target(
    on: Callable[[str], None], meant_for: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    on("zen 3")
    assert main(["info", "--bundle", str(meant_for("vnni"))]) == 0
    shown = capsys.readouterr()
    assert "made for vnni, and this CPU" in shown.err
    assert ["instruction", "set", "vnni"] in [line.split() for line in shown.out.splitlines()]
