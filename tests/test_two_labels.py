"""Checkpoints with two labels: one logit, their difference, and never a guess which of the two means relevant."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import PAIRS, Family, native_checkpoint, write_json
from checkpoints import edit_json
from conftest import Tiny
from exporting import contents, loose_export
from modernbert import modernbert_checkpoint
from raskrank import Reranker
from raskrank.checkpoint import read_checkpoint
from raskrank.cli.main import main
from raskrank.errors import CheckpointError, InputError

UNNAMED: dict[str, Any] = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
NAMED = {"id2label": {"0": "relevant", "1": "irrelevant"}, "label2id": {"relevant": 0, "irrelevant": 1}}


class TwoLabels:
    """Checkpoints with two labels, made when first asked for, and what transformers gives for PAIRS, (pairs, 2)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def checkpoint(self, family: Family) -> Path:
        folder = self.root / family
        if folder.exists():
            return folder
        return (
            modernbert_checkpoint(folder, **UNNAMED) if family == "modernbert" else native_checkpoint(folder, family, labels=2)
        )

    def shares(self, family: Family) -> Any:
        import torch
        import transformers

        auto: Any = transformers
        folder = self.checkpoint(family)
        tokenizer = auto.AutoTokenizer.from_pretrained(folder)
        model = auto.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.inference_mode():
            # Said, since ALBERT's class of transformers 5 forgets the token types that it was trained with.
            types = {"return_token_type_ids": True} if family in ("bert", "electra", "albert") else {}
            options = {"return_tensors": "pt", "truncation": True, "max_length": 128, **types}
            logits = [model(**tokenizer([query], [document], **options)).logits for query, document in PAIRS]
        return torch.cat(logits).softmax(dim=1).numpy()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoLabels:
    return TwoLabels(tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "electra", "distilbert", "albert", "modernbert"])
def test_a_score_is_the_share_of_the_softmax(two: TwoLabels, tiny: Tiny, family: Family, tmp_path: Path) -> None:
    shares = two.shares(family)
    assert shares[:, 1].max() - shares[:, 1].min() > 0.5
    for place, label in enumerate(("LABEL_0", "LABEL_1")):
        folder = tmp_path / label
        report = loose_export(tiny, folder, checkpoint=two.checkpoint(family), precision="fp32", relevant_label=label)
        manifest = report.manifest
        assert (manifest.source.relevant_label, manifest.activation) == (label, "sigmoid")
        assert f"a score is the softmax's share of {label!r}" in " ".join(str(report).split())
        assert report.fp32_parity.max_logit_difference < 1e-4
        with Reranker.load(folder) as reranker:
            np.testing.assert_allclose(reranker.score_pairs(PAIRS), shares[:, place], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_int8_verifies_against_both_logits(two: TwoLabels, tiny: Tiny, family: Family, tmp_path: Path) -> None:
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=two.checkpoint(family), relevant_label=1)
    assert (report.onnxruntime_alone is None) == (family == "bert")
    with Reranker.load(tmp_path / "bundle") as reranker:
        parity = reranker.verify(list(PAIRS))
    assert parity.max_logit_difference < 1.5
    assert np.corrcoef(parity.reference_logits, parity.candidate_logits)[0, 1] > 0.9


def test_a_label_called_relevant_needs_no_argument(
    copy: Callable[..., Path], two: TwoLabels, tiny: Tiny, tmp_path: Path
) -> None:
    folder = two.checkpoint("roberta")
    edit_json(folder / "config.json", NAMED)
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=folder, precision="fp32")
    assert report.manifest.source.relevant_label == "relevant"
    with Reranker.load(tmp_path / "bundle") as reranker:
        np.testing.assert_allclose(reranker.score_pairs(PAIRS), two.shares("roberta")[:, 0], atol=1e-5)
    with Reranker.load(backend="torch", checkpoint=folder) as reranker:
        np.testing.assert_allclose(reranker.score_pairs(PAIRS), two.shares("roberta")[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("updates", "asked", "place", "name"),
    [
        ({"id2label": {"0": "Relevant", "1": "no"}}, None, 0, "Relevant"),
        ({"id2label": {"0": "IRRELEVANT", "1": "RELEVANT"}}, None, 1, "RELEVANT"),
        ({"id2label": {"0": "no", "1": "yes"}}, "yes", 1, "yes"),
        ({"id2label": {"0": "no", "1": "yes"}}, "0", 0, "no"),
        ({"id2label": {"0": "no", "1": "yes"}}, 1, 1, "yes"),
        ({"id2label": NAMED["id2label"]}, "irrelevant", 1, "irrelevant"),  # whoever says so knows better
        ({"id2label": ..., "num_labels": 2}, "LABEL_1", 1, "LABEL_1"),
        ({"id2label": ...}, "LABEL_0", 0, "LABEL_0"),
    ],
)
def test_which_label_is_the_relevant_one(
    copy: Callable[..., Path], updates: dict[str, object], asked: str | int | None, place: int, name: str
) -> None:
    from raskrank.checkpoint import read_configuration

    found = read_configuration(copy(**updates), asked).relevant
    assert found is not None
    assert (found.place, found.name) == (place, name)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"id2label": ...}, "2 labels, LABEL_0 and LABEL_1.*relevant_label='LABEL_1' or --relevant-label LABEL_1"),
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels, no and yes.*relevant_label='yes' or --relevant-label yes.*id2label"),
        ({"id2label": {"0": "relevant", "1": "Relevant"}}, "2 labels, relevant and Relevant"),
        ({"id2label": {"0": "a", "1": "a"}}, "calls both labels a"),
        ({"id2label": {"0": "a", "2": "relevant"}}, "must name the labels 0 and 1"),
        (
            {"id2label": {"0": "a", "1": "b", "2": "relevant"}},
            "3 labels. A reranker has one .*or two of which one is 'relevant'",
        ),
        (NAMED | {"problem_type": "multi_label_classification"}, "scored apart .'multi_label_classification'"),
        (NAMED | {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, "scored apart .*Sigmoid"),
        (NAMED | {"sbert_ce_default_activation_function": ["x"]}, "scored apart"),
    ],
)
def test_what_is_not_said_is_not_guessed(copy: Callable[..., Path], updates: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(copy(**updates))


@pytest.mark.parametrize("asked", ["LABEL_2", "", "label_1", 2, -1])
def test_a_label_that_is_not_there(copy: Callable[..., Path], asked: str | int) -> None:
    with pytest.raises(InputError, match=r"relevant_label: expected a label of .*'LABEL_0', 'LABEL_1', or its index"):
        read_checkpoint(copy(id2label=...), relevant_label=asked)


@pytest.mark.parametrize("asked", [True, 1.0, ["LABEL_1"]])
def test_a_label_of_another_type(two: TwoLabels, tiny: Tiny, out: Path, asked: Any) -> None:
    with pytest.raises(InputError, match="relevant_label: expected a label's name or index, got"):
        loose_export(tiny, out / "bundle", checkpoint=two.checkpoint("bert"), relevant_label=asked)
    assert contents(out) == {}


def test_one_label_has_no_other(tiny: Tiny, out: Path) -> None:
    with pytest.raises(InputError, match=r"has one label, whose logit is the score\. Leave it out"):
        loose_export(tiny, out / "bundle", relevant_label="LABEL_0")
    assert contents(out) == {}


def test_the_shares_of_two_labels_may_be_stated(copy: Callable[..., Path]) -> None:
    from raskrank.checkpoint import read_configuration

    folder = copy(**NAMED, problem_type="single_label_classification")
    for activation in ("torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Softmax", None):
        write_json(folder / "config_sentence_transformers.json", {"activation_fn": activation})
        assert read_configuration(folder).activation == "sigmoid"


def test_a_head_of_one_row_under_a_config_of_two(copy: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"classifier\.weight has shape \(1, 32\), expected \(2, 32\)"):
        read_checkpoint(copy(**NAMED))


def test_the_command_line_says_what_to_add(two: TwoLabels, tiny: Tiny, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "export",
        str(two.checkpoint("bert")),
        str(out / "bundle"),
        "--samples",
        str(tiny.samples),
        "--precision",
        "fp32",
    ]
    assert main(command) == 1
    assert "--relevant-label LABEL_1" in capsys.readouterr().err
    assert main([*command, "--json", "--relevant-label", "LABEL_1"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["source"]["relevant_label"] == "LABEL_1"
