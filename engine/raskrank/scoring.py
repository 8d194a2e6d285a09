"""From checked pairs to logits: look up -> encode -> plan -> run -> collect, a chunk at a time."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raskrank.backend import Float32Array
from raskrank.cache import ScoreCache
from raskrank.encoding import EncodedPair, Span
from raskrank.errors import NonFiniteScore
from raskrank.loading import Loaded, logger, warn
from raskrank.prefixes import CHARS_PER_TOKEN
from raskrank.process.beside import ahead
from raskrank.process.until import Until
from raskrank.ranking import Ranked, Ranking
from raskrank.reference import LazyReference
from raskrank.running import Workers, run_until
from raskrank.scored import Scored, best_window
from raskrank.windows import Windows

# Pairs, or windows, encoded, planned and run together: bounds memory for any number of documents, and is enough for
# longest-first.
CHUNK_PAIRS = 512
# Characters for each core that are tokenized together where there is a deadline: 2 to 4 ms, by which it may be missed.
DEADLINE_CHARS = 8_000

Pair = tuple[str, str]  # query, document


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a call wants its pairs scored, from its checked arguments.

    windows: over documents that are too long; None cuts them. until: as long as this allows, more of them are scored.
    """

    windows: Windows | None = None
    until: Until = field(default_factory=Until)

    @property
    def most_windows(self) -> int:
        """Of one pair."""
        return 1 if self.windows is None else self.windows.max_windows


@dataclass(kw_only=True)
class Outcome:
    """What became of n pairs, in order. broken: places of those whose logits are no finite numbers."""

    logits: Float32Array  # (n,): NaN where a deadline came before
    done: npt.NDArray[np.bool_]  # (n,): whether it did not
    truncated: npt.NDArray[np.bool_]  # (n,)
    spans: list[Span | None]
    tokens: int = 0
    tokenize_seconds: float = 0.0
    score_seconds: float = 0.0
    broken: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, count: int) -> "Outcome":
        return cls(
            logits=np.full(count, np.nan, np.float32),
            done=np.zeros(count, np.bool_),
            truncated=np.zeros(count, np.bool_),
            spans=[None] * count,
        )

    def put(self, place: int, scored: Scored) -> None:
        self.logits[place], self.truncated[place], self.spans[place] = scored
        self.done[place] = True
        if not scored.finite:
            self.broken.append(place)

    def leave_broken(self) -> None:
        """Those that are broken were not scored in time."""
        self.logits[self.broken], self.done[self.broken], self.truncated[self.broken] = np.nan, False, False
        for place in self.broken:
            self.spans[place] = None
        self.broken = []

    def spread(self, places: npt.NDArray[np.intp]) -> None:
        """Make it the outcome of other pairs: `places` has, for each of them, the place of its equal here."""
        self.logits, self.done, self.truncated = self.logits[places], self.done[places], self.truncated[places]
        self.spans = [self.spans[place] for place in places]
        self.broken = np.flatnonzero(np.isin(places, self.broken)).tolist()

    def ranking(self, scores: Float32Array, order: Iterable[int]) -> Ranking:
        """Hits in the order of these places. scores: float32 (n), of the logits."""
        places = list(order)
        found = zip(
            places, scores[places].tolist(), self.truncated[places].tolist(), [self.spans[i] for i in places], strict=True
        )
        return Ranking(
            map(Ranked._make, found),
            partial=not self.done.all(),
            tokens=self.tokens,
            tokenize_seconds=self.tokenize_seconds,
            score_seconds=self.score_seconds,
        )


class _Chunk(NamedTuple):
    """A part of a call's pairs, ready to run. Places count from its first pair."""

    pairs: int  # how many
    keys: list[bytes]  # of all of them; none without a cache
    known: list[tuple[int, Scored]]  # from the cache
    encoded: list[tuple[int, list[EncodedPair]]]  # the windows of all others, or the pair alone
    seconds: float


class Scorer:
    """Scores pairs with a loaded model. May be used from several threads.

    advance: hears of pairs that are done, from worker threads. rescued: how many pairs PyTorch has scored so far.
    """

    def __init__(self, loaded: Loaded, workers: Workers, rescuer: LazyReference | None, cache: ScoreCache | None) -> None:
        """rescuer: PyTorch, for pairs whose logits are not finite. None makes them an error."""
        self._loaded, self._workers, self._rescuer, self._cache = loaded, workers, rescuer, cache
        self.advance: Callable[[int], None] | None = None
        self.rescued, self._counting = 0, threading.Lock()

    def score(self, pairs: Sequence[Pair], request: Request) -> Outcome:
        """Finite logits of checked pairs, or of those that are done in time; each is scored once, however often it is there.

        Raises NonFiniteScore, or Stopped where the call was stopped.
        """
        distinct = list(dict.fromkeys(pairs))
        if len(distinct) == len(pairs):
            outcome = self._rescued(pairs, [1] * len(pairs), request)
        else:
            at = {pair: place for place, pair in enumerate(distinct)}
            places = np.fromiter((at[pair] for pair in pairs), np.intp, len(pairs))
            outcome = self._rescued(distinct, np.bincount(places).tolist(), request)
            outcome.spread(places)
        if broken := outcome.broken:
            shown = ", ".join(map(str, broken[:10])) + (", ..." if len(broken) > 10 else "")
            raise NonFiniteScore(f"{len(broken)} of {len(pairs)} scores are NaN or infinite, at {shown}", broken)
        return outcome

    def logits(self, pairs: Sequence[Pair]) -> Float32Array:
        """float32 (n): what the model gives for the pairs now, finite or not."""
        return self._run(pairs, [1] * len(pairs), Request(), None).logits

    def _rescued(self, pairs: Sequence[Pair], copies: Sequence[int], request: Request) -> Outcome:
        outcome = self._run(pairs, copies, request, self._cache)
        if outcome.broken and self._rescuer is not None:
            if request.until.left() > 0:
                self._rescue(self._rescuer, pairs, request, outcome)
            else:
                outcome.leave_broken()
        return outcome

    def _run(self, pairs: Sequence[Pair], copies: Sequence[int], request: Request, cache: ScoreCache | None) -> Outcome:
        """copies: how many of the caller's pairs each stands for."""
        outcome, start = Outcome.of(len(pairs)), 0
        encoder, backend, until = self._loaded.encoder, self._loaded.backend, request.until
        if pairs:
            self._workers.expect(backend, len(pairs))
        chunks = _chunks(pairs, request, encoder.max_length, backend.concurrency)
        in_time = takewhile(lambda _: until.left() > 0, chunks)  # looked at before each is encoded
        with closing(ahead(lambda part: self._prepare(part, request, cache), in_time)) as prepared:
            for chunk in prepared:
                end = start + chunk.pairs
                self._complete(chunk, start, copies[start:end], outcome, until, cache)
                start = end
        until.check()
        return outcome

    def _prepare(self, pairs: Sequence[Pair], request: Request, cache: ScoreCache | None) -> _Chunk:
        begin, encoder = time.perf_counter(), self._loaded.encoder
        keys = [] if cache is None else cache.keys(pairs, repr(request.windows))
        found = [None] * len(pairs) if cache is None else cache.find(keys)
        new = [place for place, scored in enumerate(found) if scored is None]
        encoded = encoder.encode_windows([pairs[place] for place in new], request.windows)
        known = [(place, scored) for place, scored in enumerate(found) if scored is not None]
        return _Chunk(len(pairs), keys, known, list(zip(new, encoded, strict=True)), time.perf_counter() - begin)

    def _complete(
        self,
        chunk: _Chunk,
        start: int,
        copies: Sequence[int],
        outcome: Outcome,
        until: Until,
        cache: ScoreCache | None,
    ) -> None:
        """Run what is not known, and put all that was done of the chunk into the outcome, from place `start` on."""
        begin = time.perf_counter()
        windows = [window for _, of_pair in chunk.encoded for window in of_pair]
        # A pair counts as done with its last window, which is the shortest.
        counts = [count for place, of_pair in chunk.encoded for count in (*[0] * (len(of_pair) - 1), copies[place])]
        logits, done = run_until(until, self._loaded.backend, self._workers, windows, self.advance, counts)
        for place, scored in chunk.known:
            outcome.put(start + place, scored)
        end = 0
        for place, of_pair in chunk.encoded:
            first, end = end, end + len(of_pair)
            if not done[first:end].all():
                continue
            scored = best_window(of_pair, logits[first:end].tolist())
            outcome.put(start + place, scored)
            if cache is not None and scored.finite:
                cache.keep(chunk.keys[place], scored)
        if self.advance is not None and chunk.known:
            self.advance(sum(copies[place] for place, _ in chunk.known))
        outcome.tokens += sum(len(window.input_ids) for window, read in zip(windows, done.tolist(), strict=True) if read)
        outcome.tokenize_seconds += chunk.seconds
        outcome.score_seconds += time.perf_counter() - begin

    def _rescue(self, rescuer: LazyReference, pairs: Sequence[Pair], request: Request, outcome: Outcome) -> None:
        broken, outcome.broken = outcome.broken, []
        for place, scored in zip(broken, rescuer.score([pairs[place] for place in broken], request.windows), strict=True):
            outcome.put(place, scored)
        with self._counting:
            first, self.rescued = not self.rescued, self.rescued + len(broken)
        message = f"{len(broken)} of {len(pairs)} logits were not finite and were computed by PyTorch instead"
        if first:
            warn(message)
        else:
            logger.warning(message)


def _chunks(pairs: Sequence[Pair], request: Request, max_length: int, cores: int = 1) -> Iterator[Sequence[Pair]]:
    """The pairs in order, in parts that have about CHUNK_PAIRS windows at most, and with a deadline about as many characters
    to read as DEADLINE_CHARS allows. Each is made when it is asked for."""
    most_chars = DEADLINE_CHARS * cores if request.until.limited else math.inf
    start, windows, chars = 0, 0, 0
    for place, (_, document) in enumerate(pairs):
        of_pair = min(request.most_windows, 1 + len(document) // max_length)  # a token has a character or more, mostly
        read = min(len(document), of_pair * max_length * CHARS_PER_TOKEN)
        if place > start and (windows + of_pair > CHUNK_PAIRS or chars + read > most_chars):
            yield pairs[start:place]
            start, windows, chars = place, 0, 0
        windows, chars = windows + of_pair, chars + read
    if pairs:
        yield pairs[start:]
