"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from raskrank.info import Info
from raskrank.ranking import Ranking
from raskrank.server.gate import Gate

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
OUTCOMES = (
    "ok",
    "partial",
    "invalid",
    "unauthorized",
    "too_large",
    "overloaded",
    "late",
    "disconnected",
    "unavailable",
    "failed",
)
BY_STATUS = {401: "unauthorized", 413: "too_large", 429: "overloaded", 504: "late", 503: "unavailable"}


def outcome_of(status: int) -> str:
    """The outcome of a request that was refused with this status."""
    return BY_STATUS.get(status, "failed" if status >= 500 or status == 424 else "invalid")


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, gate: Gate) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter("raskrank_requests", "Requests to rerank, by outcome", ["outcome"], registry=registry)
        for outcome in OUTCOMES:  # a rate of what has not happened yet is 0, and not nothing
            self._requests.labels(outcome)
        self._documents = Counter("raskrank_documents", "Documents that were ranked", registry=registry)
        self._tokens = Counter("raskrank_tokens", "Tokens that the model read", registry=registry)
        self._truncated = Counter("raskrank_truncated_texts", "Documents not read to their ends", registry=registry)
        self._seconds = Histogram(
            "raskrank_request_seconds", "From a request's arrival to its ranking", buckets=SECONDS, registry=registry
        )
        self._tokenize = Histogram("raskrank_tokenize_seconds", "Tokenizing a request", buckets=SECONDS, registry=registry)
        self._score = Histogram("raskrank_score_seconds", "Scoring a request", buckets=SECONDS, registry=registry)
        for name, text, value in (
            ("raskrank_queue_tokens", "Tokens at work or waiting, as estimated", lambda: gate.tokens),
            ("raskrank_queue_requests", "Requests at work or waiting", lambda: gate.requests),
            ("raskrank_queue_capacity_tokens", "Tokens that may be at work or waiting", lambda: gate.capacity),
        ):
            Gauge(name, text, registry=registry).set_function(value)
        self._model = Gauge("raskrank_model", "What runs; always 1", ["model", "backend", "version"], registry=registry)

    def serves(self, info: Info) -> None:
        self._model.labels(info.name, info.backend, info.versions["raskrank"]).set(1)

    def refused(self, outcome: str) -> None:
        self._requests.labels(outcome).inc()

    def ranked(self, hits: Ranking, seconds: float) -> None:
        """hits: of all documents of a request. seconds: from its arrival."""
        self._requests.labels("partial" if hits.partial else "ok").inc()
        self._documents.inc(len(hits))
        self._tokens.inc(hits.tokens)
        self._truncated.inc(sum(hit.truncated for hit in hits))
        self._seconds.observe(seconds)
        self._tokenize.observe(hits.tokenize_seconds)
        self._score.observe(hits.score_seconds)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its media type, in the format that the header Accept prefers."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type
