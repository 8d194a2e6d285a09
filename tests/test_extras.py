"""Which extra exports, by the transformers that is installed, and which token types its classes mean."""

from importlib.metadata import PackageNotFoundError

import pytest

from raskrank import MissingExtra, extras
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
        ("4.57.6", "export", "optimum"),
        ("5.24.0", "export-transformers5", "onnxscript"),
        ("5.0.0rc1", "export-transformers5", "onnxscript"),
        (None, "export", "optimum"),
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
