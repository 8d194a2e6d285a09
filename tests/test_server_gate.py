"""The gate, its estimates, and the keys. Needs no server."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import SENTENCES
from raskrank import Reranker, Windows
from raskrank.errors import InputError
from raskrank.server.asks import Ask, Dialect
from raskrank.server.estimate import estimated_tokens
from raskrank.server.gate import BUSY_TOKENS, Gate, Room
from raskrank.server.keys import Keys
from raskrank.server.options import ServerOptions
from raskrank.server.problems import Problem
from raskrank.windows import LongDocuments


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    """Room for 10 seconds of 1,000 tokens each, and for 4 requests."""
    made = Gate(ServerOptions(max_wait=10, max_requests=4), clock)
    made.measured(1000, 1.0)
    return made


@pytest.fixture
def inside() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def refused(gate: Gate, tokens: int) -> Problem:
    with pytest.raises(Problem) as caught, gate.admitted(tokens):
        pass
    return caught.value


def test_what_would_wait_too_long_is_refused_with_the_time_until_there_is_room(gate: Gate, inside: ExitStack) -> None:
    inside.enter_context(gate.admitted(5_500))
    problem = refused(gate, 8_000)
    assert (problem.status, problem.headers["Retry-After"]) == (429, "4")  # 3,500 too many, at 1,000 a second
    inside.enter_context(gate.admitted(4_500))
    assert refused(gate, 4_000).headers["Retry-After"] == "2"
    assert (gate.tokens, gate.requests) == (10_000, 2)
    inside.close()
    assert (gate.tokens, gate.requests) == (0, 0)
    with gate.admitted(8_000):
        assert gate.tokens == 8_000


def test_a_small_request_does_not_wait_for_a_large_one_and_is_let_in_beside_it(gate: Gate, inside: ExitStack) -> None:
    inside.enter_context(gate.admitted(1_000_000))
    inside.enter_context(gate.admitted(3_000))  # until it is done, 3,000 of each
    assert refused(gate, 3_501).status == 429
    inside.enter_context(gate.admitted(3_500))


@settings(max_examples=200)
@given(st.lists(st.integers(1, 20_000), max_size=60))
def test_what_is_inside_is_bounded_whatever_comes(sizes: list[int]) -> None:
    gate = Gate(ServerOptions(max_tokens=10_000, max_requests=40))
    with ExitStack() as inside:
        for size in sizes:
            with suppress(Problem):
                inside.enter_context(gate.admitted(size))
        assert gate.requests <= 40
        first = sizes[0] if sizes else 0
        assert gate.tokens - first <= 10_000 * sum(1 / place for place in range(1, gate.requests + 1))
    assert gate.tokens == 0


def test_a_request_of_any_size_is_let_in_where_nothing_waits(gate: Gate, inside: ExitStack) -> None:
    inside.enter_context(gate.admitted(1_000_000))
    assert refused(gate, 1_000_000).headers["Retry-After"] == "60"  # the longest that clients honour


def test_requests_are_counted_too(gate: Gate, inside: ExitStack) -> None:
    for _ in range(4):
        inside.enter_context(gate.admitted(1))
    assert refused(gate, 1).status == 429


def test_a_bound_in_tokens_holds_at_any_speed(clock: Clock, inside: ExitStack) -> None:
    gate = Gate(ServerOptions(max_tokens=100), clock)
    gate.measured(10**9, 1.0)
    inside.enter_context(gate.admitted(60))
    assert refused(gate, 51).status == 429
    inside.enter_context(gate.admitted(50))


def test_a_request_that_fails_leaves_its_room_and_says_nothing_of_the_speed(gate: Gate, clock: Clock) -> None:
    before = gate.speed
    with pytest.raises(RuntimeError), gate.admitted(BUSY_TOKENS):
        raise RuntimeError
    assert (gate.tokens, gate.requests, gate.speed) == (0, 0, before)


def test_the_speed_follows_what_is_measured(gate: Gate, clock: Clock) -> None:
    for _ in range(60):  # the machine has become four times as slow
        with gate.admitted(9_000) as read:
            clock.now += 20.0
            read(5_000)
    assert gate.speed == pytest.approx(250, rel=0.01)
    assert gate.capacity == pytest.approx(2_500, rel=0.01)


def test_small_and_idle_times_say_nothing_of_the_speed(gate: Gate, clock: Clock) -> None:
    for _ in range(60):
        clock.now += 100.0
        with gate.admitted(BUSY_TOKENS - 1) as read:
            clock.now += 1.0
            read(1)
    assert gate.speed == 1000


def test_bodies_share_a_room_in_bytes() -> None:
    room = Room(100)
    with room.taking() as first, room.taking() as second:
        first(60)
        second(30)
        with pytest.raises(Problem) as caught:
            second(11)
        assert caught.value.status == 429
        second(10)
    with room.taking() as third:
        third(100)


def ask(query: str, documents: list[str], long_documents: LongDocuments = "truncate") -> Ask:
    return Ask(dialect=Dialect.RESULTS, query=query, documents=documents, long_documents=long_documents)


@pytest.mark.parametrize("long_documents", ["truncate", "windows", Windows(max_windows=3, overlap=0)])
@pytest.mark.parametrize("text", [*SENTENCES[:12], " ".join(SENTENCES), " ".join(SENTENCES * 8), "", "x", "鰻" * 3000])
def test_an_estimate_is_within_its_bounds(nano: Reranker, text: str, long_documents: LongDocuments) -> None:
    most = nano.info().max_length
    tokens = nano.rank(SENTENCES[0], [text], long_documents=long_documents).tokens
    estimate = estimated_tokens(ask(SENTENCES[0], [text], long_documents), most)
    windows = {"truncate": 1, "windows": 16}.get(str(long_documents), 3)
    assert 4 <= estimate <= windows * most
    assert tokens <= 4 * estimate  # no order at all: a token a character
    assert estimate <= 2.5 * tokens


def test_documents_add_up(nano: Reranker) -> None:
    texts = SENTENCES[:20]
    parts = [estimated_tokens(ask("q", [text]), 512) for text in texts]
    assert estimated_tokens(ask("q", list(texts)), 512) == sum(parts)
    assert estimated_tokens(ask("q" * 10**6, ["d" * 10**6] * 3), 512) == 3 * 512


KEY = "b9f4-Hemmelig"


def test_a_key_opens_in_the_forms_that_clients_send() -> None:
    keys = Keys(["annen", KEY])
    for header in (f"Bearer {KEY}", f"bearer  {KEY}", KEY, "Bearer annen", f" Bearer {KEY} "):
        keys.check(header.encode())


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer b9f4", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe5"]
)
def test_anything_else_does_not(header: str | None) -> None:
    with pytest.raises(Problem) as caught:
        Keys([KEY]).check(None if header is None else header.encode("latin-1"))
    assert (caught.value.status, caught.value.headers) == (401, {"WWW-Authenticate": "Bearer"})
    assert KEY not in caught.value.message


def test_without_keys_everyone_is_let_in() -> None:
    Keys().check(None)
    assert not Keys()
    assert Keys([KEY])


def test_keys_are_read_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"\n{KEY}\n\nannen\n")
    keys = Keys.read(str(file))
    keys.check(b"Bearer annen")
    keys.check(KEY.encode())


@pytest.mark.parametrize("content", [b"", b"\n \n", "nøkkel".encode(), b"k" * 70_000])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(InputError, match="one key a line"):
        Keys.read(str(file))


@pytest.mark.parametrize(("name", "value"), [("max_body", 0), ("max_wait", 0.0), ("deadline", -1.0), ("max_tokens", True)])
def test_options_are_checked(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"ServerOptions.{name}"):
        ServerOptions(**{name: value})  # type: ignore[arg-type]
