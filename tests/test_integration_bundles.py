"""What adapters take as a bundle, and what they store of it."""

from pathlib import Path

import pytest

from paths import NANO_CHECKPOINT
from raskrank import Cascade, InputError, MissingFile, Reranker
from raskrank.integrations.bundles import loaded, name_of, reranker, title
from raskrank.integrations.spans import within


def test_what_is_loaded_already_is_taken_as_it_is(nano: Reranker) -> None:
    cascade = Cascade([nano], keep=[])
    assert loaded(nano) is reranker(nano) is nano
    assert loaded(cascade) is cascade
    with pytest.raises(InputError, match=r"^bundle: a Cascade ranks documents and scores no pairs"):
        reranker(cascade)


def test_a_name_is_loaded(nano: Reranker, tmp_path: Path) -> None:
    for name in (None, Path(nano.info().bundle or ""), nano.info().bundle):
        with loaded(name) as found:
            assert title(found) == "nano"
    with pytest.raises(MissingFile):
        loaded(tmp_path / "nothing")
    assert title(Cascade([nano, nano], keep=[3])) == "nano, nano"


def test_the_name_of_a_bundle(nano: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = nano.info().bundle
    assert folder is not None
    assert name_of("owner/name") == name_of(Path("owner/name")) == "owner/name"
    assert name_of(None) is name_of(nano) is None
    with Reranker.load(folder) as named:
        assert name_of(named) == folder
    monkeypatch.setenv("RASKRANK_MODEL", folder)
    with Reranker.load() as named:  # another process may have another environment
        assert name_of(named) == folder


def test_what_no_name_leads_to_is_refused(nano: Reranker) -> None:
    with pytest.raises(InputError, match=r"^bundle: a Cascade cannot be stored"):
        name_of(Cascade([nano], keep=[]))
    with (
        Reranker.load(backend="torch", checkpoint=NANO_CHECKPOINT) as torch,
        pytest.raises(InputError, match=r"^bundle: a Reranker that runs a checkpoint in PyTorch cannot be stored"),
    ):
        name_of(torch)


@pytest.mark.parametrize(
    ("span", "expected"), [((10, 20), (5, 15)), ((0, 8), (0, 3)), ((0, 3), (0, 0)), ((20, 90), (15, 40)), ((60, 90), (40, 40))]
)
def test_a_span_of_what_was_read_is_one_of_the_document(span: tuple[int, int], expected: tuple[int, int]) -> None:
    assert within(span, 5, 40) == expected
