"""Released client libraries against a real server on loopback: what they give their users is what the library ranks."""

import gc
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import litellm
import pytest
import uvicorn  # noqa: F401  needs the extra server
import voyageai
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

from raskrank import Reranker
from serving import BEST, DOCUMENTS, QUERY, Server, serving

pytestmark = pytest.mark.filterwarnings("ignore")  # what these packages warn of is their own affair
KEY = "en-hemmelig-nokkel"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("server") / "keys"
    file.write_text(KEY)
    with serving("--api-key-file", str(file)) as running:
        yield running
    with warnings.catch_warnings(action="ignore"):  # of connections that these packages leave open, in no later test
        gc.collect()


@pytest.fixture(scope="module")
def expected() -> list[tuple[int, float]]:
    return [(hit.index, hit.score) for hit in Reranker.load().rank(QUERY, DOCUMENTS)]


def test_cohere_v1(server: Server, expected: list[tuple[int, float]]) -> None:
    client = cohere.Client(KEY, base_url=server.url)
    answer = client.rerank(query=QUERY, documents=DOCUMENTS, model="any", return_documents=True)
    assert [(result.index, result.relevance_score) for result in answer.results] == expected
    assert [result.document.text for result in answer.results] == [DOCUMENTS[index] for index, _ in expected]
    documents = [{"title": "x", "text": text} for text in DOCUMENTS]
    first = client.rerank(query=QUERY, documents=documents, model="any", top_n=1)
    assert [(result.index, result.relevance_score) for result in first.results] == expected[:1]


def test_cohere_v2(server: Server, expected: list[tuple[int, float]]) -> None:
    client = cohere.ClientV2(KEY, base_url=server.url)
    answer = client.rerank(model="any", query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=4096)
    assert [(result.index, result.relevance_score) for result in answer.results] == expected[:2]
    assert answer.meta.billed_units.search_units == 1


def test_cohere_raises_its_own_errors(server: Server) -> None:
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2("feil", base_url=server.url).rerank(model="any", query=QUERY, documents=DOCUMENTS)
    with pytest.raises(cohere.UnprocessableEntityError) as caught:
        cohere.ClientV2(KEY, base_url=server.url).rerank(model="any", query=QUERY, documents=["x"] * 1001)
    assert "1001" in caught.value.body["message"]


def test_langchain_cohere(server: Server, expected: list[tuple[int, float]]) -> None:
    compressor = CohereRerank(model="any", cohere_api_key=KEY, base_url=server.url, top_n=2)
    given = [Document(page_content=text, metadata={"place": place}) for place, text in enumerate(DOCUMENTS)]
    found = compressor.compress_documents(given, QUERY)
    assert [(document.metadata["place"], document.metadata["relevance_score"]) for document in found] == expected[:2]
    assert [document.page_content for document in found] == [DOCUMENTS[index] for index, _ in expected[:2]]


def test_llama_index_for_tei(server: Server, expected: list[tuple[int, float]]) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(place))) for place, text in enumerate(DOCUMENTS)]
    for token in (f"Bearer {KEY}", KEY):
        postprocessor = TextEmbeddingInference(base_url=server.url, auth_token=token, top_n=2)
        found = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
        assert [(int(node.node_id), node.score) for node in found] == expected[:2]


def litellm_rerank(provider: str, base: str, **more: Any) -> Any:
    litellm.suppress_debug_info = True
    return litellm.rerank(model=f"{provider}/any", query=QUERY, documents=DOCUMENTS, api_base=base, api_key=KEY, **more)


@pytest.mark.parametrize(
    ("provider", "path", "more"),
    [
        ("cohere", "", {}),
        ("cohere", "", {"max_tokens_per_doc": 512}),  # that is version 2
        ("jina_ai", "", {}),
        ("infinity", "", {"return_documents": False}),
        ("infinity", "/infinity", {}),  # it takes documents for strings, which others take for objects
        ("hosted_vllm", "", {}),
        ("hosted_vllm", "/v1/rerank", {}),
        ("huggingface", "", {}),
        ("voyage", "", {}),
    ],
)
def test_litellm(server: Server, expected: list[tuple[int, float]], provider: str, path: str, more: dict[str, Any]) -> None:
    answer = litellm_rerank(provider, server.url + path, top_n=2, **more)
    assert [(result["index"], result["relevance_score"]) for result in answer.results] == expected[:2]
    if more.get("return_documents", True) and provider not in ("cohere",):
        assert answer.results[0]["document"]["text"] == DOCUMENTS[BEST]


def test_voyage(server: Server, expected: list[tuple[int, float]]) -> None:
    client = voyageai.Client(api_key=KEY, base_url=f"{server.url}/v1")
    answer = client.rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=2)
    assert [(result.index, result.relevance_score) for result in answer.results] == expected[:2]
    assert answer.total_tokens == Reranker.load().rank(QUERY, DOCUMENTS).tokens
    assert len(client.rerank(QUERY, DOCUMENTS, model="rerank-2.5").results) == len(DOCUMENTS)


@pytest.mark.parametrize("source", [Path(__file__).with_name("recorded.json")], ids=["recorded"])
def test_recorded_requests(server: Server, expected: list[tuple[int, float]], source: Path) -> None:
    """What applications that are no library send, and a library that has no place beside another here, and what they read of
    the answer."""
    for record in json.loads(source.read_text("utf-8")):
        body = json.loads(json.dumps(record["body"]).replace('"DOCUMENTS"', json.dumps(DOCUMENTS)).replace("QUERY", QUERY))
        headers = {name.replace("-", "_"): value.replace("KEY", KEY) for name, value in record["headers"].items()}
        answer = server.post(record["path"], body, **headers)
        assert answer.status == 200, record["client"]
        rows = answer.json["results"] if record["results"] else answer.json
        assert [(row["index"], row[record["score"]]) for row in rows] == expected, record["client"]
        if record["tokens"]:
            assert answer.json["usage"]["total_tokens"] > 0
        if record["document"]:
            assert rows[0]["document"]["text"] == DOCUMENTS[BEST]
