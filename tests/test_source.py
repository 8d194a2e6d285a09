"""A folder is used as it is; a hub model is downloaded without pickles or code; what fails says what to do."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builders import tiny_checkpoint
from modernbert import modular_checkpoint
from raskrank.checkpoint import CONFIGURATION, read_checkpoint
from raskrank.errors import CheckpointError, MissingExtra
from raskrank_export.source import ResolvedSource, read, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
import json, sys
from raskrank.errors import CheckpointError, MissingExtra
from raskrank_export.source import resolve
for model, revision in json.loads(sys.argv[1]):
    try:
        source = resolve(model, revision=revision)
        print(json.dumps({"folder": str(source.folder), "name": source.name, "revision": source.revision}))
    except CheckpointError as error:
        print(json.dumps({"error": str(error), "cause": type(error.__cause__).__name__}))
"""


@dataclass
class FakeHub:
    """Answers as the hub does for one public model, and remembers which files were asked for."""

    files: dict[str, bytes]
    requested: set[str] = field(default_factory=set)
    endpoint: str = ""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[FakeHub]:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    files["README.md"] = b"---\nlicense: mit\n---\n"
    for refused in ("pytorch_model.bin", "modeling.py", "onnx/model.onnx", "onnx/config.json", "vocab.txt"):
        files[refused] = b"not to be downloaded"
    hub = FakeHub(files=files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/owner/gated"):
                self.reply(403, {"X-Error-Code": "GatedRepo"})
            elif path.startswith("/api/models/owner/down"):
                self.reply(503)
            elif path.startswith("/api/models/") and not path.startswith("/api/models/owner/tiny/"):
                self.reply(404, {"X-Error-Code": "RepoNotFound"})
            elif path in {f"/api/models/owner/tiny/revision/{revision}" for revision in ("main", "v1", COMMIT)}:
                listing = {"id": "owner/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.files]}
                self.reply(200, {"Content-Type": "application/json"}, json.dumps(listing).encode())
            elif path.startswith("/api/models/owner/tiny/revision/"):
                self.reply(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                name = path.removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
                hub.requested.add(name)
                content = hub.files[name]
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}
                self.reply(200, headers, content if with_body else None)

        def reply(self, status: int, headers: dict[str, str] | None = None, content: bytes | None = b"") -> None:
            self.send_response(status)
            headers = {"Content-Length": str(len(content or b""))} | (headers or {})
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if content and self.command == "GET":
                self.wfile.write(content)

    return Handler


def resolve_elsewhere(
    home: Path, *requests: tuple[str, str | None], timeout: float = 60, **environment: str
) -> list[dict[str, str]]:
    """What `resolve` gives in a process of its own, as huggingface_hub reads its environment once, on import."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(requests)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=home,
        env=inherited | {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_folder_is_used_as_it_is(checkpoint: Path) -> None:
    before = sorted(path.name for path in checkpoint.iterdir())
    assert resolve(str(checkpoint)) == ResolvedSource(folder=checkpoint, name=str(checkpoint), revision=None)
    assert sorted(path.name for path in checkpoint.iterdir()) == before


def test_a_relative_folder_is_named_as_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, offline_hub: Path) -> None:
    monkeypatch.chdir(checkpoint.parent.parent)
    name = f"{checkpoint.parent.name}/{checkpoint.name}"
    source = resolve(f"./{name}")
    assert (source.name, source.revision) == (f"./{name}", None)
    assert read_checkpoint(source.folder).layers == 2
    with pytest.raises(
        CheckpointError, match=rf"{name} was not downloaded: .*; for the folder of that name write \./{name}\.$"
    ):
        resolve(name)


def test_folder_needs_no_hub_library(checkpoint: Path) -> None:
    program = (
        "import sys; sys.modules['huggingface_hub'] = None; from raskrank_export.source import resolve; resolve(sys.argv[1])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, str(checkpoint)], timeout=60, check=True, env=environment)


def test_hub_library_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"pip install 'raskrank\[export\]'"):
        resolve("owner/name")


def test_folder_has_no_revision(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="has no revision 'main'"):
        resolve(str(checkpoint), revision="main")


def test_file_is_no_folder(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        resolve(str(checkpoint / "config.json"))


@pytest.mark.parametrize(
    "model",
    [
        "",
        "./x",
        "../x",
        "/a/b/c",
        "a/b/c",
        "x",
        "~/x",
        "owner/na me",
        "owner/",
        "/name",
        "owner/\0",
        "a" * 5000,
        "øl/vin",
    ],
)
def test_neither_folder_nor_hub_id(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)  # no matter what lies beside the repository
    with pytest.raises(CheckpointError, match="There is no folder"):
        resolve(model)


def test_hub_model_is_downloaded_without_pickles_or_code(hub: FakeHub, tmp_path: Path) -> None:
    first, again = resolve_elsewhere(tmp_path, ("owner/tiny", None), ("owner/tiny", "v1"), HF_ENDPOINT=hub.endpoint)
    assert (first["name"], first["revision"]) == ("owner/tiny", COMMIT)
    assert first["folder"] == again["folder"]
    assert hub.requested == {
        "README.md",
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    downloaded = Path(first["folder"])
    assert {path.name for path in downloaded.iterdir()} == hub.requested
    assert read_checkpoint(downloaded).license == "mit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.json": b'{"architectures": ["GemmaForCausalLM"], "model_type": "gemma"}'}, "causal or listwise reranker"),
        ({"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"}, "owner/tiny has the license cc-by-nc-4.0"),
        ({"adapter_config.json": b"{}", "config.json": None}, "Merge the adapter"),
        ({"modules.json": b'[{"type": "x.Transformer"}, {"type": "x.Pooling"}]'}, "is a bi-encoder"),
        ({"tokenizer_config.json": b'{"split_special_tokens": true}'}, "split_special_tokens is True"),
    ],
    ids=["causal", "license", "adapter", "bi-encoder", "tokenizer"],
)
def test_what_its_configuration_refuses_is_not_downloaded(
    hub: FakeHub, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    for name, content in changes.items():
        hub.files.pop(name, None)
        if content is not None:
            hub.files[name] = content
    (outcome,) = resolve_elsewhere(tmp_path, ("owner/tiny", None), HF_ENDPOINT=hub.endpoint)
    assert message in outcome["error"]
    assert hub.requested == set(CONFIGURATION) & set(hub.files)


def test_a_known_model_that_is_not_what_was_published_is_told_before_its_weights_are_downloaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(model: str, revision: str | None, files: tuple[str, ...], commit: str | None = None) -> Path:
        asked.append(files)
        return checkpoint

    monkeypatch.setattr("raskrank_export.source._download", download)
    with pytest.raises(CheckpointError, match=r"the max_length of this checkpoint is 128, that of the published model 512"):
        resolve("BAAI/bge-reranker-base")
    assert asked == [CONFIGURATION]


def test_a_vocabulary_is_downloaded_only_in_place_of_a_tokenizer(hub: FakeHub, tmp_path: Path) -> None:
    del hub.files["tokenizer.json"]
    (outcome,) = resolve_elsewhere(tmp_path, ("owner/tiny", None), HF_ENDPOINT=hub.endpoint)
    assert {"vocab.txt", "model.safetensors"} <= hub.requested
    assert (Path(outcome["folder"]) / "vocab.txt").is_file()


def test_without_a_tokenizer_no_weights_are_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    del hub.files["tokenizer.json"], hub.files["vocab.txt"]
    (outcome,) = resolve_elsewhere(tmp_path, ("owner/tiny", None), HF_ENDPOINT=hub.endpoint)
    assert "model.safetensors" not in hub.requested
    with pytest.raises(
        CheckpointError, match=r'owner/tiny has no tokenizer\.json.*from_pretrained\("owner/tiny", revision="v1"\)'
    ):
        read(ResolvedSource(folder=Path(outcome["folder"]), name="owner/tiny", revision=COMMIT, asked_revision="v1"))


def test_offline_reads_the_cache_alone(hub: FakeHub, tmp_path: Path) -> None:
    (online,) = resolve_elsewhere(tmp_path, ("owner/tiny", None), HF_ENDPOINT=hub.endpoint)
    offline, other, unknown = resolve_elsewhere(
        tmp_path, ("owner/tiny", None), ("owner/other", None), ("owner/tiny", "v9"), HF_HUB_OFFLINE="1"
    )
    assert offline == online
    assert "owner/other was not downloaded: HF_HUB_OFFLINE is set" in other["error"]
    assert "give a local folder" in other["error"]
    assert "owner/tiny at 'v9' was not downloaded: HF_HUB_OFFLINE is set" in unknown["error"]


def test_what_the_hub_refuses(hub: FakeHub, tmp_path: Path) -> None:
    requests = (
        ("owner/absent", None),
        ("owner/gated", None),
        ("owner/tiny", "v9"),
        ("owner/down", None),
        ("a--b/c", None),
    )
    absent, gated, revision, down, name = resolve_elsewhere(tmp_path, *requests, HF_ENDPOINT=hub.endpoint)
    assert "There is no model 'owner/absent' on the hub" in absent["error"]
    assert absent["cause"] == "RepositoryNotFoundError"
    assert "owner/gated is gated" in gated["error"]
    assert "HF_TOKEN" in gated["error"]
    assert gated["cause"] == "GatedRepoError"
    assert "owner/tiny has no revision 'v9'" in revision["error"]
    assert "owner/down was not downloaded: the hub cannot be reached" in down["error"]
    assert "The hub allows no such name as 'a--b/c'" in name["error"]


def test_download_that_breaks_off(hub: FakeHub, tmp_path: Path) -> None:
    class Cut(bytes):
        """Announces more than it sends."""

        def __len__(self) -> int:
            return super().__len__() + 100

    hub.files["model.safetensors"] = Cut(hub.files["model.safetensors"][:1000])
    (outcome,) = resolve_elsewhere(tmp_path, ("owner/tiny", None), HF_ENDPOINT=hub.endpoint)
    assert "owner/tiny was not downloaded: " in outcome["error"]
    assert "Try again, or give a local folder" in outcome["error"]


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        (outcome,) = resolve_elsewhere(tmp_path, ("owner/tiny", None), HF_ENDPOINT=endpoint)
    assert "owner/tiny was not downloaded: the hub cannot be reached (ConnectionError)" in outcome["error"]
    assert "give a local folder" in outcome["error"]


def test_the_real_hub(tmp_path: Path) -> None:
    try:
        socket.create_connection(("huggingface.co", 443), timeout=3).close()
    except OSError as error:
        pytest.skip(f"needs huggingface.co, which cannot be reached: {error}")
    model = "hf-internal-testing/tiny-random-BertForSequenceClassification"
    (outcome,) = resolve_elsewhere(tmp_path, (model, None), timeout=120)
    if "the hub cannot be reached" in outcome.get("error", ""):
        pytest.skip(f"needs huggingface.co: {outcome['error']}")
    assert outcome["name"] == model
    assert len(outcome["revision"]) == 40
    assert (Path(outcome["folder"]) / "config.json").is_file()


def test_of_a_model_with_modules_those_are_downloaded_too(hub: FakeHub, tmp_path: Path) -> None:
    folder = modular_checkpoint(tmp_path / "modules")
    hub.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wanted = set(hub.files)
    hub.files |= dict.fromkeys(("2_Dense/pytorch_model.bin", "2_Dense/code.py", "onnx/model.onnx"), b"not to be downloaded")
    (outcome,) = resolve_elsewhere(tmp_path, ("owner/tiny", None), HF_ENDPOINT=hub.endpoint)
    assert hub.requested == wanted
    assert read_checkpoint(Path(outcome["folder"])).head == read_checkpoint(folder).head
