"""Bundles for kinds of CPUs: what is recorded, where they may be made, and what a load on another CPU says."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundles import copy_bundle, edit
from conftest import LOOSE, Tiny
from processes import run_script
from raskrank import Reranker, cpu
from raskrank.cli.main import main
from raskrank.errors import ExportError, Incompatible, InputError, RaskrankWarning
from raskrank.manifest import Precision
from raskrank_export import ExportReport, export
from raskrank_export.quantization import EXACT, PORTABLE, ActivationScheme
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
    assert suited == {"portable"} | ({"vnni"} if name in EXACT_CPUS else set())


# Loading


@pytest.mark.parametrize("name", ["zen 3", "skylake-sp"])
def test_a_cpu_on_which_products_overflow_refuses_the_bundle(
    on: Callable[[str], None], meant_for: Callable[[str], Path], name: str
) -> None:
    on(name)
    expected = f"made for vnni (--target vnni), and this CPU ({cpu.model_name()}) has neither VNNI nor AMX"
    with pytest.raises(Incompatible, match=re.escape(expected)) as raised:
        Reranker.load(meant_for("vnni"))
    assert str(raised.value).endswith(
        "Export the model again without --target, or load it all the same with ignore_target=True or --ignore-target"
    )


def test_a_cpu_of_which_nothing_is_known_is_not_said_to_overflow(
    monkeypatch: pytest.MonkeyPatch, meant_for: Callable[[str], Path]
) -> None:
    monkeypatch.setattr(cpu, "instruction_sets", lambda: ())  # x86 without /proc/cpuinfo
    expected = f"made for vnni (--target vnni), and whether this CPU ({cpu.model_name()}) has VNNI or AMX is not known"
    with pytest.raises(Incompatible, match=re.escape(expected)):
        Reranker.load(meant_for("vnni"))


def test_a_bundle_for_another_cpu_is_loaded_when_that_is_said_and_warns(
    on: Callable[[str], None], meant_for: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    on("zen 3")
    with pytest.warns(RaskrankWarning, match="made for vnni .* its scores would be wrong here"):
        reranker = Reranker.load(meant_for("vnni"), ignore_target=True)
    with reranker:
        assert np.isfinite(reranker.score("Hvem kan Python?", ["En utvikler"])).all()
        assert (reranker.info().instruction_set, reranker.info().cpu) == ("vnni", cpu.model_name())
    (warning,) = warnings_of(caplog)
    assert "made for vnni" in warning


def test_a_script_without_logging_is_told_that_scores_may_be_wrong(meant_for: Callable[[str], Path], tmp_path: Path) -> None:
    source = f"""
    from raskrank import Reranker, cpu
    cpu.instruction_sets = lambda: ("avx2",)
    Reranker.load({str(meant_for("vnni"))!r}, ignore_target=True)
    """
    shown = run_script(tmp_path, source, silent=False, env={"PYTHONWARNINGS": ""}, warnings=())
    assert "RaskrankWarning" in shown.stderr
    assert "made for vnni" in shown.stderr


def test_pytorch_may_take_the_place_of_a_bundle_for_another_cpu(
    tiny: Tiny, on: Callable[[str], None], meant_for: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    on("zen 3")
    with pytest.warns(RaskrankWarning, match="PyTorch takes its place: .*made for vnni"):
        reranker = Reranker.load(meant_for("vnni"), fallback="torch", checkpoint=tiny.checkpoint())
    with reranker:
        assert reranker.info().backend == "torch"
        assert "made for vnni" in reranker.info().reason
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize(("name", "target"), [("zen 4", "vnni"), ("graviton 3", "vnni"), ("nehalem", "portable")])
def test_where_scores_are_right_nothing_is_said(
    on: Callable[[str], None], meant_for: Callable[[str], Path], name: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    on(name)
    Reranker.load(meant_for(target)).close()
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("ignored", [1, None, "yes"])
def test_ignore_target_is_true_or_false(ignored: object) -> None:
    with pytest.raises(InputError, match="ignore_target: expected bool, got"):
        Reranker.load(ignore_target=ignored)  # type: ignore[arg-type]


# Exporting


@pytest.fixture
def exported(tiny: Tiny, tmp_path: Path) -> Callable[..., ExportReport]:
    def run(target: str, precision: Precision = "int8", scheme: ActivationScheme | None = None) -> ExportReport:
        folder = tmp_path / "bundle"
        checkpoint = str(tiny.checkpoint())
        return export(
            checkpoint,
            folder,
            precision=precision,
            scheme=scheme,
            target=target,  # type: ignore[arg-type]  # one of them is none
            samples=tiny.samples,
            thresholds=LOOSE,
        )

    return run


@pytest.mark.parametrize(
    ("target", "scheme", "levels"), [("portable", None, EXACT), ("portable", "row", PORTABLE), ("vnni", None, EXACT)]
)
def test_a_target_is_recorded_with_its_levels(
    on: Callable[[str], None],
    exported: Callable[..., ExportReport],
    target: str,
    scheme: ActivationScheme | None,
    levels: tuple[int, int],
) -> None:
    on("graviton 3")
    recipe = exported(target, scheme=scheme).manifest.recipe
    assert recipe.scheme == (scheme or ("group" if target == "portable" else "row"))
    assert recipe.instruction_set == target
    assert (recipe.activation_max, recipe.weight_max) == levels


def test_fp32_is_for_every_cpu(on: Callable[[str], None], exported: Callable[..., ExportReport]) -> None:
    on("zen 3")
    assert exported("vnni", "fp32").manifest.recipe.instruction_set == "portable"


def test_no_export_where_the_gate_would_judge_wrong_scores(
    on: Callable[[str], None], exported: Callable[..., ExportReport], tmp_path: Path
) -> None:
    on("zen 3")
    with pytest.raises(ExportError, match=r"target 'vnni': this CPU \(AMD EPYC 7763 .* \(--target portable\)"):
        exported("vnni")
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_target_is_refused(exported: Callable[..., ExportReport]) -> None:
    with pytest.raises(InputError, match="target: expected one of portable, vnni, got 'sse'"):
        exported("sse")


# Command line


def test_the_command_line_takes_a_target(on: Callable[[str], None], tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    on("zen 3")
    assert main(["export", str(tiny.checkpoint()), str(tiny.root / "never"), "--target", "vnni"]) == 1
    assert "error: target 'vnni': this CPU (AMD EPYC 7763" in capsys.readouterr().err


def test_the_command_line_refuses_or_warns_and_shows_the_target(
    on: Callable[[str], None], meant_for: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    on("zen 3")
    bundle = str(meant_for("vnni"))
    assert main(["info", "--bundle", bundle]) == 1
    assert "--ignore-target" in capsys.readouterr().err
    assert main(["info", "--bundle", bundle, "--ignore-target"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("made for vnni") == 1
    assert ["instruction", "set", "vnni"] in [line.split() for line in shown.out.splitlines()]
