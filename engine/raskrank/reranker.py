"""The main path: check -> encode -> plan -> run -> collect -> rank."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Literal, Self

from raskrank import texts, verifying
from raskrank.backend import Float32Array
from raskrank.gate import Verification
from raskrank.loading import load
from raskrank.options import BackendName, Options, absolute_path_text, named_bundle
from raskrank.ranking import Ranking
from raskrank.samples import as_pairs, read_samples
from raskrank.scoring import Request
from raskrank.session import Session
from raskrank.texts import Limits
from raskrank.wanted import Wanted
from raskrank.windows import LongDocuments, as_windows


class Reranker(Session):
    """A loaded cross-encoder. Make one with `Reranker.load`.

    It may be used from several threads and event loops, whose calls share its cores in turns. Every score depends on its pair
    alone, bit for bit, whatever else is computed at the same time. It belongs to the process that loaded it: after a fork its
    methods raise ForkError, and the child loads its own. Pickling stores the arguments of `load` and which bundle they meant;
    unpickling loads that bundle again, with an empty score cache. Use it as a context manager, or call `close`, to free its
    memory early.
    """

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | None = None,
        *,
        threads: int | None = None,
        backend: BackendName | None = None,
        fallback: Literal["torch"] | None = None,
        checkpoint: str | Path | None = None,
        expected_sha256: str | None = None,
        ignore_target: bool = False,
        map_weights: bool = True,
        limits: Limits | None = None,
        cache_bytes: int = 0,
    ) -> Self:
        """Load and verify a bundle.

        bundle: the id of a hub model, "owner/name", whose bundle `raskrank export owner/name` left in the cache folder
            (RASKRANK_CACHE, else `raskrank` in the platform's folder for caches), or a bundle's folder. A folder whose path
            has the form of an id is written "./owner/name", or given as a Path. Default: what the environment variable
            RASKRANK_MODEL names, else the embedded model. raskrank.toml and pyproject.toml are for the command line alone.
        threads: pairs scored at the same time, one core each, 1 to 1024. Default: the environment variable RASKRANK_THREADS,
            else the CPUs that affinity and cgroup quota allow. OMP_NUM_THREADS has no effect. Where the system allows fewer
            threads, it works with those.
        backend: "native" runs the bundle in Raskrank's own kernels, "onnx" in onnxruntime, "torch" the checkpoint it was made
            from, with the same truncation and activation. Default: "native" where this installation, this CPU and the bundle
            allow, else "onnx"; `info()` says which, and why. Their scores differ by rounding.
        fallback: "torch" lets PyTorch rescue pairs whose logits are not finite, or a bundle that cannot be used on this
            machine. The first rescue warns (RaskrankWarning), each is logged and shown by `info()`.
        checkpoint: folder with the original checkpoint, for PyTorch and `verify`. With backend="torch" and no bundle it is run
            by itself. Default: where the bundle's manifest says.
        expected_sha256: SHA-256 of manifest.json, in hexadecimal; the manifest pins every file of the bundle. Default: any.
        ignore_target: load a bundle that was made for another kind of CPU although int8 products overflow on this one, so that
            its scores may be wrong; that warns. Default: such a bundle is refused (Incompatible).
        map_weights: map the weights' file into memory, shared with other processes. Whoever writes into that file then changes
            scores, and whoever makes it shorter ends calls (InferenceError) or, in the middle of one, this process. False reads
            the file into this process's own memory, where nothing done to the file later matters: for bundles on disks that
            others write to.
        limits: upper bounds on one call. Default: `Limits()`.
        cache_bytes: bytes of memory in which to keep scores, at least 0, for pairs that are asked for again: the most recently
            used, 512 bytes each, whatever the length of their texts, of which only digests are kept. `info()` counts hits and
            misses. Default: 0, none.

        Raises InputError for a wrong argument. For the bundle: MissingFile, Corrupt, Incompatible, or BundleError where a file
        may not be read. InferenceError where a limit on memory or this thread's stack is too small. With PyTorch also
        CheckpointError, or MissingExtra where it is not installed.
        """
        options = Options(
            bundle=named_bundle(bundle),
            threads=threads,
            backend=backend,
            fallback=fallback,
            checkpoint=absolute_path_text(checkpoint, "checkpoint"),
            expected_sha256=expected_sha256,
            ignore_target=ignore_target,
            map_weights=map_weights,
            limits=Limits() if limits is None else limits,
            cache_bytes=texts.whole(cache_bytes, "cache_bytes"),
        )
        return cls(options, load(options))

    def rank(
        self,
        query: str,
        documents: Collection[str],
        top_k: int | None = None,
        *,
        raw_scores: bool = False,
        score_threshold: float | None = None,
        long_documents: LongDocuments = "truncate",
        deadline: float | None = None,
    ) -> Ranking:
        """The documents by falling logit, ties by input index; only the `top_k` best if given. Empty for no documents.

        query: what the documents are ranked for; may be empty.
        documents: str in a list, tuple, NumPy array, pandas column or whatever else has a length and an order. Equal ones are
            scored once.
        top_k: how many to return, at least 1. Default: all.
        raw_scores: give the logit itself as `Ranked.score`. Default: the score after the model's activation. The order is that
            of the logits either way, so it is right also where a sigmoid rounds two of them to one score.
        score_threshold: leave out documents whose `Ranked.score` is less, before `top_k` counts. Default: none are.
        long_documents: what becomes of a document that is too long for the model. "truncate": its end is not read. "windows":
            it is read in overlapping windows, each with the query, and its score is that of the best; `Ranked.span` says where
            that is. `Windows(...)`: the same, with other numbers than its defaults.
        deadline: seconds from now, above 0, after which the answer is due with what is scored by then. Documents are then taken
            in the caller's order, and none is begun that is not expected to be done in time, as measured since `load`. Where
            not all were scored, `Ranking.partial` is True, and the others follow in the caller's order with the score NaN,
            truncated False and span None; with a `score_threshold` they are left out. A document in windows is scored when all
            of them are. Default: none.

        An answer is late by what is under way at the deadline: by one run of the longest pair or window at most, and that only
        where the machine is slower than it was, or by tokenizing about 8,000 characters for each core, or one document
        (see `Limits`); and by some microseconds for each document, to check it and to list it. With fallback="torch", what
        PyTorch has begun to rescue is finished.

        Raises InputError or LimitError before anything is computed; NonFiniteScore, InferenceError, ClosedError, ForkError.
        """
        return self._rank(query, documents, Wanted.of(top_k, raw_scores, score_threshold, long_documents, deadline))

    async def arank(
        self,
        query: str,
        documents: Collection[str],
        top_k: int | None = None,
        *,
        raw_scores: bool = False,
        score_threshold: float | None = None,
        long_documents: LongDocuments = "truncate",
        deadline: float | None = None,
    ) -> Ranking:
        """As `rank`, for asyncio: the event loop goes on meanwhile. A task that is cancelled ends at once, and none of its runs
        begins any more.

        Up to 32 calls are in progress together and share the cores; others wait for their turn, and a deadline counts from the
        call all the same. The loop's own thread copies the list, which may be changed at once, and no more. Context variables
        are those of the task.

        Raises as `rank` does; InferenceError also where no thread can be started.
        """
        wanted = Wanted.of(top_k, raw_scores, score_threshold, long_documents, deadline)
        held = texts.as_list(documents, "documents", self._options.limits)
        return await self._aside(lambda: self._rank(query, held, wanted), wanted.request.until)

    def score(
        self,
        query: str,
        documents: Collection[str],
        *,
        raw_scores: bool = False,
        long_documents: LongDocuments = "truncate",
    ) -> Float32Array:
        """float32 (n): the score of each document, in input order.

        Their range is that of the model's activation: [0, 1] for sigmoid, [-1, 1] for tanh, [0, inf) for softplus, unbounded
        for identity.

        query, documents, long_documents: as for `rank`.
        raw_scores: give the logits, before the activation. They still differ where a model is so sure that scores are all 1.0.

        Raises as `rank` does.
        """
        request = Request(windows=as_windows(long_documents))
        return self._score(query, documents, raw=texts.flag(raw_scores, "raw_scores"), request=request)

    async def ascore(
        self,
        query: str,
        documents: Collection[str],
        *,
        raw_scores: bool = False,
        long_documents: LongDocuments = "truncate",
    ) -> Float32Array:
        """As `score`, float32 (n), for asyncio, in the way of `arank`.

        Raises as `arank` does.
        """
        raw, request = texts.flag(raw_scores, "raw_scores"), Request(windows=as_windows(long_documents))
        held = texts.as_list(documents, "documents", self._options.limits)
        return await self._aside(lambda: self._score(query, held, raw=raw, request=request), request.until)

    def score_pairs(
        self,
        pairs: Collection[tuple[str, str]],
        *,
        raw_scores: bool = False,
        long_documents: LongDocuments = "truncate",
    ) -> Float32Array:
        """float32 (n): the score of each (query, document) pair, in input order.

        pairs: in a list or the like, as `rank` takes documents, or a NumPy array of shape (n, 2).
        raw_scores: as for `score`. long_documents: as for `rank`.

        Raises as `rank` does.
        """
        raw = texts.flag(raw_scores, "raw_scores")
        return self._scores(self._outcome(self._checked(pairs), Request(windows=as_windows(long_documents))).logits, raw=raw)

    def assess(
        self,
        pairs: Collection[tuple[str, str]],
        *,
        raw_scores: bool = False,
        long_documents: LongDocuments = "truncate",
    ) -> Ranking:
        """Score, truncation and span of each (query, document) pair, in input order: what `rank` says of documents.

        pairs, raw_scores, long_documents: as for `score_pairs`.

        Raises as `rank` does.
        """
        raw = texts.flag(raw_scores, "raw_scores")
        outcome = self._outcome(self._checked(pairs), Request(windows=as_windows(long_documents)))
        return outcome.ranking(self._scores(outcome.logits, raw=raw), range(len(outcome.logits)))

    def verify(self, pairs: Collection[tuple[str, str]] | None = None) -> Verification:
        """Score pairs with PyTorch and with this bundle, and judge the bundle by the thresholds of its export.

        Needs the checkpoint. PyTorch is given what transformers' own tokenizer makes of the pairs.

        pairs: (query, document) pairs. Default: the 422 sample pairs that come with Raskrank.

        Raises MissingExtra where PyTorch is not installed; CheckpointError where the checkpoint is missing, or where
        transformers encodes the pairs differently from the bundle; Incompatible where the bundle was made from another
        checkpoint; Corrupt for a manifest without thresholds; InputError for a Reranker that runs PyTorch itself, for no pairs,
        and for pairs whose words the model does not know. Otherwise as `rank` does.
        """
        checked = self._checked(as_pairs(read_samples()) if pairs is None else pairs)
        return self._call(len(checked), lambda: verifying.verify(checked, self._loaded, self._reference, self._scorer))

    def _rank(self, query: object, documents: object, wanted: Wanted) -> Ranking:
        outcome = self._outcome(self._with_query(query, documents), wanted.request)
        return wanted.ranking(outcome, self._scores(outcome.logits, raw=wanted.raw))

    def _score(self, query: object, documents: object, *, raw: bool, request: Request) -> Float32Array:
        return self._scores(self._outcome(self._with_query(query, documents), request).logits, raw=raw)
