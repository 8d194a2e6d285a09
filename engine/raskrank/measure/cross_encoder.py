"""A cross-encoder that is measured: a bundle, or a checkpoint in PyTorch."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from raskrank.backend import Float32Array
from raskrank.bundle import read_manifest
from raskrank.checkpoint import read_checkpoint
from raskrank.checkpoint.modules import weights_files
from raskrank.encoding import PairEncoder
from raskrank.errors import NonFiniteScore
from raskrank.manifest import FILES, MANIFEST, TOKENIZER
from raskrank.measure.contender import Contender, Ranking
from raskrank.measure.fresh import FreshProcess, fresh_process
from raskrank.options import BackendName
from raskrank.process import rayon
from raskrank.reference_tokenizer import tokenizer_json
from raskrank.reranker import Reranker
from raskrank.tokenizer import load_encoder, read_tokenizer

BUNDLE_FILES = (MANIFEST, *FILES)
CHECKPOINT_FILES = ("config.json", TOKENIZER)  # beside its weights


class CrossEncoder:
    """A Contender of `raskrank compare`, and all that `raskrank bench` measures."""

    def __init__(
        self,
        *,
        bundle: Path | None = None,
        checkpoint: Path | None = None,
        threads: int,
        backend: BackendName | None = None,
        reference: Contender | None = None,
    ) -> None:
        """bundle: its folder. backend: of it, as in `Reranker.load`. checkpoint: its folder; PyTorch runs it. With both it runs
        the checkpoint as the bundle's, with the same max_length, and any other checkpoint is refused. threads: of the bundle,
        and of a fresh process; PyTorch's in this process are set by whoever loads it. reference: as in Contender.

        Raises as `Reranker.load` does.
        """
        self.folder = folder = checkpoint or bundle or Path()
        self._checkpoint, self._threads, self.reference = checkpoint, threads, reference
        self._backend: BackendName | None = "torch" if checkpoint else backend
        if checkpoint:
            self.manifest = None
            self.reranker = Reranker.load(bundle, backend="torch", checkpoint=checkpoint)
            config = read_checkpoint(checkpoint)
            self.parameters, self._vocab_size = config.parameters, config.vocab_size
            self._tokenizer_json = tokenizer_json(config)
        else:
            self.manifest, _ = read_manifest(folder)
            self.reranker = Reranker.load(folder, threads=threads, backend=backend)
            self.parameters, self._vocab_size = self.manifest.parameters, self.manifest.vocab_size
            self._tokenizer_json = (folder / TOKENIZER).read_bytes()
        self.info = self.reranker.info()
        self.name, self.license = self.info.name, self.info.license
        self.backend, self.runs, self.origin = self.info.backend, f"{self.info.backend} {self.info.precision}", str(folder)
        names = CHECKPOINT_FILES if checkpoint else BUNDLE_FILES
        files = [folder / name for name in names] + (weights_files(folder) if checkpoint else [])
        self.disk_bytes: int | None = sum(file.stat().st_size for file in files)

    def score(self, query: str, documents: Sequence[str]) -> Float32Array:
        """As `Reranker.score`."""
        return self.reranker.score(query, documents)

    def rank(self, query: str, documents: Sequence[str]) -> Ranking:
        try:
            return Ranking(tuple(hit.index for hit in self.reranker.rank(query, documents)), 0)
        except NonFiniteScore as error:
            # A score depends on its pair alone, so the others can be ranked by themselves.
            finite = [index for index in range(len(documents)) if index not in error.indices]
            hits = self.reranker.rank(query, [documents[index] for index in finite])
            return Ranking((*(finite[hit.index] for hit in hits), *error.indices), len(error.indices))

    def run(self, query: str, documents: Sequence[str]) -> None:
        with suppress(NonFiniteScore):
            self.reranker.rank(query, documents)

    def pair_lengths(self, query: str, documents: Sequence[str]) -> list[int]:
        """Tokens that the model reads of each pair, special tokens included and truncated as for scoring."""
        return [len(pair.input_ids) for pair in self._encoder.encode([(query, document) for document in documents])]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        tokenizer = read_tokenizer(self._tokenizer_json, self.folder)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def start_anew(self, query: str, documents: Sequence[str]) -> FreshProcess:
        """Load it in a fresh process, and score there. Raises as `fresh_process` does."""
        # A checkpoint alone: that it is the bundle's is known by now, and the time of the digests is not PyTorch's.
        return fresh_process(
            None if self._checkpoint else self.folder,
            threads=self._threads,
            backend=self._backend,
            checkpoint=self._checkpoint,
            query=query,
            texts=documents,
        )

    def close(self) -> None:
        self.reranker.close()

    @cached_property
    def _encoder(self) -> PairEncoder:
        return load_encoder(self._tokenizer_json, self.info.max_length, self._vocab_size, self.folder, parallel=rayon.usable())
