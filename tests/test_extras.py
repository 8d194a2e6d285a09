"""Which extra exports, by the transformers that is installed, and which token types its classes mean."""

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import transformers

from processes import run_script
from raskrank import MissingExtra, extras
from raskrank.reference_tokenizer import OWN
from raskrank.tokenizer_classes import passes_types


def installed(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def version(package: str) -> str:
        assert package == "transformers"
        if found is None:
            raise PackageNotFoundError(package)
        return found

    monkeypatch.setattr(extras, "version", version)


@pytest.mark.parametrize(
    ("found", "extra", "exporter"),
    [
        ("4.57.6", "export", "optimum.exporters.onnx"),
        ("5.24.0", "export-transformers5", "onnxscript"),
        ("5.0.0rc1", "export-transformers5", "onnxscript"),
        (None, "export", "optimum.exporters.onnx"),
    ],
)
def test_what_is_installed_decides(monkeypatch: pytest.MonkeyPatch, found: str | None, extra: str, exporter: str) -> None:
    installed(monkeypatch, found)
    assert extras.exporter() == extra
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module == exporter else module)
    with pytest.raises(MissingExtra) as caught:
        extras.need_exporter("export")
    assert str(caught.value) == f"export needs {exporter}; install it with: pip install 'raskrank[{extra}]'"
    extras.need_exporter("a tensor", "torch")


def test_a_package_without_the_part_that_is_needed_is_missing() -> None:
    for module in ("json.no_such_part", "no_such_package.part"):
        with pytest.raises(MissingExtra, match=f"needs {module}; install it with"):
            extras.need("export", "export", "json", module)


@pytest.mark.parametrize("package", ["onnx", "safetensors"])
def test_the_exporter_without_its_packages_says_how_to_install_them(tmp_path: Path, package: str) -> None:
    source = f"""
    import sys
    sys.modules[{package!r}] = None  # as if it were not installed
    try:
        from raskrank_export import export
        export("owner/name", "bundle")
    except ImportError as error:
        print(type(error).__name__, error)
    """
    said = run_script(tmp_path, source, warnings=()).stdout
    assert re.fullmatch(rf"MissingExtra \w+ needs {package}; install it with: pip install 'raskrank\[export.*\]'\n", said)


@pytest.mark.parametrize(
    ("stem", "options", "passed"),
    [
        ("Bert", {}, True),
        ("PreTrained", {}, True),  # what transformers 5 forgets
        ("Albert", {}, True),
        ("XLMRoberta", {}, False),
        ("DistilBert", {}, False),
        ("XLMRoberta", {"model_input_names": ["input_ids", "token_type_ids"]}, True),
        ("Bert", {"model_input_names": ["input_ids", "attention_mask"]}, False),
        ("Bert", {"model_input_names": None}, True),
    ],
)
def test_token_types_are_passed_as_the_folder_says_or_the_class_did_in_transformers_4(
    stem: str, options: dict[str, object], passed: bool
) -> None:
    assert passes_types(stem, options) is passed


@pytest.mark.skipif(extras.exporter() == extras.EXPORT_5, reason="of transformers 4: in 5 some classes forget token types")
def test_token_types_are_those_of_every_class_of_transformers_4() -> None:
    # A wrong one would be wrong for PyTorch and for ONNX alike, and no gate would see it.
    theirs = {stem: "token_type_ids" in getattr(transformers, f"{stem}TokenizerFast").model_input_names for stem in OWN}
    assert {stem: passes_types(stem, {}) for stem in OWN} == theirs
