"""Every model of the registry: what is known of it, and a tiny one of its layout exported, ranked and verified."""

import json
import math
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

import published_written as written
from builders import tiny_checkpoint, write_json
from conftest import LOOSE, SAMPLES
from paths import shared
from published import (
    AMBEROAD,
    BGE_BASE,
    BGE_M3,
    CONFIGS,
    DANISH,
    ELECTRA,
    FOLDERS,
    JINA,
    MMARCO,
    MS_MARCO,
    SMALLER,
    tensors,
    tiny_published_checkpoint,
)
from raskrank import Reranker
from raskrank.activation import sigmoid
from raskrank.checkpoint import read_checkpoint
from raskrank.checkpoint.registry import DEFAULT_MODEL, canonical, known, known_models, of_layout, refused, refused_models
from raskrank.checkpoint.suggestion import SUGGESTION
from raskrank.cli.main import main
from raskrank.errors import CheckpointError, InputError, NotACrossEncoder
from raskrank.measure import compare, fresh
from raskrank_export import ExportReport, export
from raskrank_export.source import read, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NC = "cc-by-nc-4.0"


class Hub:
    """The hub's cache on this machine, offline, with what tests put into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.samples = root / "samples.jsonl"
        self.samples.write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES), "utf-8")

    def folder(self, model: str) -> Path:
        """Where a model's files are to lie."""
        home = self.root / f"models--{model.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text(COMMIT)
        return home / "snapshots" / COMMIT

    def export(self, model: str, output: Path, *, max_length: int | None = None, license: str | None = None) -> ExportReport:
        return export(
            model,
            output,
            samples=self.samples,
            thresholds=LOOSE,
            max_length=max_length,
            accept_license=license,
            relevant_label="LABEL_1" if model == AMBEROAD else None,
        )


@pytest.fixture
def hub(offline_hub: Path) -> Hub:
    return Hub(offline_hub)


def accepted(model: str) -> str | None:
    return NC if model == JINA else None


def test_the_registry_holds_together() -> None:
    models = known_models()
    ids = [name for model in models for name in (model.id, *model.aliases)] + [model.id for model in refused_models()]
    assert len({name.lower() for name in ids}) == len(ids)
    assert known(DEFAULT_MODEL) is models[0]
    assert known("cross-encoder/ms-marco-MiniLM-L6-v2") is known(MS_MARCO)
    assert known("owner/unheard") is None
    for model in models:
        assert model.license
        assert model.languages
        assert model.note
        assert model.activation in ("sigmoid", "identity", None)
        assert (model.export_length is None) == (model.max_length is None)
        assert 0 < (model.export_length or 1) <= (model.max_length or 1)
        assert all(len(reference.documents) == len(reference.logits) for reference in model.reference)


def test_an_alias_and_any_letter_case_are_the_same_model() -> None:
    for name in ("cross-encoder/ms-marco-MiniLM-L6-v2", "Cross-Encoder/MS-MARCO-minilm-l6-v2", MS_MARCO, MS_MARCO.upper()):
        assert canonical(name) == MS_MARCO
        assert known(name) is known(MS_MARCO)
    assert canonical("baai/BGE-reranker-base") == BGE_BASE
    found = refused("Sentence-Transformers/labse")
    assert found is not None
    assert found.id == "sentence-transformers/LaBSE"
    for other in ("Owner/Unheard", "./BAAI/bge-reranker-base", "bge-reranker-base", "", "Ünknown/ß"):
        assert canonical(other) == other
        assert (known(other), refused(other)) == (None, None)


def test_reference_scores_are_the_published_ones() -> None:
    sets = json.loads(shared("data", "golden-scores.json").read_text("utf-8"))["sets"]
    published = {
        (name, entry["query"]): (entry["documents"], scores) for entry in sets for name, scores in entry["scores"].items()
    }
    compared = 0
    for model in known_models():
        for reference in model.reference:
            for name in (model.id, *model.aliases):
                if (name, reference.query) in published:
                    documents, scores = published[name, reference.query]
                    found = list(reference.logits)
                    if "after the sigmoid" in reference.source:
                        found = sigmoid(np.array(found, np.float32)).tolist()
                    assert list(reference.documents) == documents
                    assert found == pytest.approx(scores, abs=1e-6)
                    compared += 1
    assert compared == 8


@pytest.mark.parametrize("model", FOLDERS)
def test_the_builder_writes_the_published_config(model: str) -> None:
    assert json.loads((shared("data", "tokenizers", FOLDERS[model]) / "config.json").read_text("utf-8")) == CONFIGS[model]


WRITTEN = (written.MXBAI_XSMALL, written.GTE_MULTILINGUAL, written.JINA_TINY)  # the others have their layouts


@pytest.mark.parametrize("model", written.CONFIGS)
def test_the_published_number_of_parameters(model: str) -> None:
    assert known(model) is not None
    assert sum(math.prod(tensor.shape) for tensor in tensors(model, CONFIGS[model])) == written.PARAMETERS[model]


# bge-reranker-large has the base's layout.
@pytest.mark.parametrize("model", [BGE_BASE, BGE_M3, MS_MARCO, MMARCO, JINA, *SMALLER, ELECTRA, DANISH, AMBEROAD, *WRITTEN])
def test_exported_ranked_and_verified(model: str, hub: Hub, tmp_path: Path) -> None:
    facts = known(model)
    assert facts is not None
    tiny_published_checkpoint(hub.folder(model), model)
    report = hub.export(model, tmp_path / "bundle", license=accepted(model))
    manifest = report.manifest
    assert (manifest.source.model, manifest.source.revision) == (model, COMMIT)
    assert (manifest.source.license, manifest.source.languages) == (facts.license, facts.languages)
    assert manifest.activation == facts.activation or facts.activation is None
    assert manifest.max_length == (facts.export_length or 512)
    assert manifest.source.relevant_label == ("LABEL_1" if model == AMBEROAD else None)
    assert facts.note in " ".join(str(report).split())  # wrapped
    assert report.fp32_parity.max_logit_difference < 1e-5
    assert report.fp32_parity.logit_spread > 0.1  # else the numbers above say little
    with Reranker.load(tmp_path / "bundle") as reranker:
        scores = reranker.score("Hvem kan Python?", ["Kari kan Python.", "Ein båt", ""])
        hits = reranker.rank("Hvem kan Python?", ["Kari kan Python.", "Ein båt", ""])
        assert [hit.score for hit in hits] == sorted((float(score) for score in scores), reverse=True)
        parity = reranker.verify([("Hvem kan Python?", "Kari kan Python."), ("Hvem kan Python?", "Ein båt")])
    # The checkpoint is found in the hub's cache; on a tiny model 7-bit weights cost more than on a real one.
    assert parity.max_logit_difference < 0.5
    logits = parity.candidate_logits
    assert scores[:2] == pytest.approx(sigmoid(logits) if manifest.activation == "sigmoid" else logits, abs=1e-6)


def test_the_published_jina_code_gives_these_logits(jina: Path) -> None:
    from raskrank.torch_backend import TorchBackend

    golden = shared("data", "jina-golden")
    expected = json.loads((golden / "expected.json").read_text("utf-8"))
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(golden / name, jina / name)  # beside a tokenizer that is not used here
    backend = TorchBackend(read_checkpoint(jina))
    for ids, mask, logit in zip(expected["input_ids"], expected["attention_mask"], expected["logits"], strict=True):
        unpadded = np.array([ids[: sum(mask)]])
        assert float(backend.logits(unpadded, np.zeros_like(unpadded))[0]) == pytest.approx(logit, abs=1e-5)


def test_the_builder_writes_the_published_jina_names() -> None:
    golden = shared("data", "jina-golden")
    content = (golden / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header.pop("__metadata__", None)
    config = json.loads((golden / "config.json").read_text("utf-8"))
    assert {tensor.name: list(tensor.shape) for tensor in tensors(JINA, config)} == {
        name: entry["shape"] for name, entry in header.items()
    }


@pytest.fixture(scope="module")
def jina_as_published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_published_checkpoint(tmp_path_factory.mktemp("published") / "jina", JINA)


@pytest.fixture
def jina(jina_as_published: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(jina_as_published, tmp_path / "jina"))


def test_the_export_of_a_folder_asks_no_one(jina: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A model whose weights were renamed has no folder of its own, and optimum looked for its tokenizer on the hub.
    asked = []

    def refuse(*address: object, **options: object) -> None:
        asked.append(address)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES), "utf-8")
    export(str(jina), tmp_path / "bundle", samples=samples, thresholds=LOOSE, accept_license=NC)
    assert asked == []


def test_jina_weights_are_split_and_widened(jina: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from raskrank.torch_backend import load_model

    stored, model = load_file(jina / "model.safetensors"), load_model(read_checkpoint(jina))
    found = model.state_dict()
    parts = [found[f"roberta.encoder.layer.1.attention.self.{part}.weight"] for part in ("query", "key", "value")]
    stacked = torch.cat(parts)
    assert stored["roberta.encoder.layers.1.mixer.Wqkv.weight"].dtype == torch.bfloat16
    assert torch.equal(stacked, stored["roberta.encoder.layers.1.mixer.Wqkv.weight"].float())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def change_config(folder: Path, **updates: object) -> None:
    values = json.loads((folder / "config.json").read_text("utf-8")) | updates
    write_json(folder / "config.json", {key: value for key, value in values.items() if value is not ...})


@pytest.mark.parametrize(
    "updates",
    [
        {"auto_map": {"AutoModel": "modeling_xlm_roberta.XLMRobertaModel"}},
        {"auto_map": CONFIGS[JINA]["auto_map"] | {"AutoModel": "other.Model"}},  # type: ignore[operator]
        {"architectures": ["XLMRobertaModelForReranking"]},
        {"model_type": "xlm-roberta"},
        {"emb_pooler": "mean"},
    ],
)
def test_other_remote_code_is_refused(jina: Path, updates: dict[str, object]) -> None:
    change_config(jina, **updates)
    with pytest.raises(CheckpointError, match="remote code, which is never run"):
        read_checkpoint(jina)


def test_jina_needs_its_own_tensors_and_no_others(jina: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(jina / "model.safetensors")
    lora = weights | {"roberta.encoder.layers.0.mixer.Wqkv.lora_A": weights["classifier.out_proj.weight"].clone()}
    save_file(lora, jina / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"mixer\.Wqkv\.lora_A .* not part of the jina layout"):
        read_checkpoint(jina)
    weights.pop("roberta.encoder.layers.1.mixer.Wqkv.bias")
    save_file(weights, jina / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mixer\.Wqkv\.bias is missing"):
        read_checkpoint(jina)


def test_standard_tensors_under_jina_code_are_refused(jina: Path, tmp_path: Path) -> None:
    standard = tiny_checkpoint(tmp_path / "standard", "xlm-roberta", positions=1024)
    shutil.copyfile(standard / "model.safetensors", jina / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"roberta\.emb_ln\.weight is missing"):
        read_checkpoint(jina)


@pytest.mark.parametrize("accept", [None, "mit", "cc-by-nc-sa-4.0"])
def test_a_restricting_license_has_to_be_accepted(jina: Path, tmp_path: Path, accept: str | None) -> None:
    # A copy without its model card is known by its layout.
    with pytest.raises(CheckpointError, match=rf"license {NC}.*accept_license='{NC}' or --accept-license {NC}"):
        export(str(jina), tmp_path / "bundle", accept_license=accept)
    assert not (tmp_path / "bundle").exists()


def test_a_restricting_license_is_refused_before_the_download(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{JINA} has the license {NC}"):
        export(JINA, tmp_path / "bundle")


def test_the_model_card_counts_for_any_model(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "restricted")
    (folder / "README.md").write_text("---\nlicense: CC-BY-NC-SA-4.0\n---\n")
    with pytest.raises(CheckpointError, match=r"restricted has the license CC-BY-NC-SA-4\.0"):
        export(str(folder), tmp_path / "bundle")


def test_the_license_is_shown(jina: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, documents = tmp_path / "bundle", tmp_path / "documents.txt"
    documents.write_text("Kari kan Python.\nEin båt\n")
    samples = ["--samples", str(hub.samples), "--min-tau", "-1", "--max-drift", "1"]
    assert main(["export", str(jina), str(bundle), *samples]) == 1
    assert f"--accept-license {NC}" in capsys.readouterr().err
    assert main(["export", str(jina), str(bundle), "--precision", "fp32", "--accept-license", NC, *samples]) == 0
    assert f"license {NC}, accepted" in capsys.readouterr().out
    source = json.loads((bundle / "manifest.json").read_text("utf-8"))["source"]
    assert (source["license"], source["accepted_license"]) == (NC, NC)
    assert main(["info", "--bundle", str(bundle)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["license", NC] in lines
    assert ["accepted", "license", NC] in lines
    assert main(["rank", "--bundle", str(bundle), "--json", "Hvem kan Python?", str(documents)]) == 0
    shown = capsys.readouterr()
    assert f"license {NC}, which does not allow commercial use" in shown.err
    assert len(json.loads(shown.out)) == 2


def test_the_license_of_a_checkpoint_in_pytorch_is_shown(
    jina: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "ROUNDS", 1)
    monkeypatch.setattr(fresh, "PROCESSES", 1)
    documents, data, note = tmp_path / "documents.txt", tmp_path / "data.jsonl", f"note: {jina.name} has the license {NC}"
    documents.write_text("Kari kan Python.\n")
    assert main(["rank", "--backend", "torch", "--checkpoint", str(jina), "Hvem?", str(documents)]) == 0
    assert note in capsys.readouterr().err
    data.write_text('{"query": "Hvem?", "positives": ["Kari"], "negatives": ["En båt"]}\n', "utf-8")
    assert main(["compare", str(jina), "--json", "--data", str(data)]) == 0
    shown = capsys.readouterr()
    assert note in shown.err
    assert json.loads(shown.out)["models"][0]["license"] == NC


def test_other_licenses_need_no_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Reranker.load() as reranker:
        info = reranker.info()
    assert (info.license, info.accepted_license) == ("apache-2.0", None)
    (tmp_path / "documents.txt").write_text("Kari kan Python.\n")
    assert main(["rank", "Hvem kan Python?", str(tmp_path / "documents.txt")]) == 0
    assert capsys.readouterr().err == ""


def test_a_long_model_is_exported_as_long_as_asked(hub: Hub, tmp_path: Path) -> None:
    folder = tiny_published_checkpoint(hub.folder(BGE_M3), BGE_M3)
    assert hub.export(BGE_M3, tmp_path / "long", max_length=8192).manifest.max_length == 8192
    with pytest.raises(InputError, match="to 8192 tokens"):
        hub.export(BGE_M3, tmp_path / "longer", max_length=8193)
    assert resolve(BGE_M3).export_length == 512
    assert resolve(str(folder)).export_length is None  # a folder is taken as it is


@pytest.mark.parametrize(
    ("model", "spoil", "message"),
    [
        (MMARCO, {"sbert_ce_default_activation_function": ...}, "activation of this checkpoint is 'sigmoid'.*'identity'"),
        (BGE_BASE, {"pad_token_id": 3}, "max_length of this checkpoint is 510.*512"),
    ],
)
def test_a_checkpoint_that_is_not_what_was_published(model: str, spoil: dict[str, object], message: str, hub: Hub) -> None:
    folder = tiny_published_checkpoint(hub.folder(model), model)
    change_config(folder, **spoil)
    with pytest.raises(CheckpointError, match=rf"{message}.*export its folder: .*{COMMIT}"):
        read(resolve(model))
    assert read(resolve(str(folder))).license is None


def test_the_model_card_comes_before_the_registry(hub: Hub) -> None:
    folder = tiny_published_checkpoint(hub.folder(BGE_BASE), BGE_BASE)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [nb]\n---\n")
    checkpoint = read(resolve(BGE_BASE))
    assert (checkpoint.license, checkpoint.languages) == ("apache-2.0", ("nb",))


def test_labse_is_refused_before_the_download() -> None:
    with pytest.raises(NotACrossEncoder, match=r"LaBSE is a bi-encoder: .*BAAI/bge-reranker-v2-m3.*mmarco-mMiniLMv2"):
        resolve("sentence-transformers/LaBSE")


def test_what_is_suggested_is_known() -> None:
    named = [model.id for model in known_models() if model.id in SUGGESTION]
    assert DEFAULT_MODEL in named
    assert {BGE_M3, MMARCO} <= set(named)
    assert SUGGESTION.count("/") == len(named)


def test_only_a_layout_of_its_own_tells_a_model() -> None:
    assert of_layout("jina") is known(JINA)
    assert of_layout("transformers") is None
