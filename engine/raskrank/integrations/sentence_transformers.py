"""`CrossEncoder` as sentence-transformers has it, on Raskrank: `predict` and `rank` with the same arguments and results.

    from raskrank.integrations.sentence_transformers import CrossEncoder

    CrossEncoder().rank("Hvem kan Python?", documents)

Neither torch nor sentence-transformers is needed; torch is imported by the call that asks for tensors.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from raskrank import InputError
from raskrank.backend import Float32Array
from raskrank.integrations.bundles import Bundle, reranker
from raskrank.integrations.cross_encoder_arguments import (
    ActivationFn,
    activated,
    check_activation,
    check_arguments,
    check_device,
    import_torch,
    old_names,
)
from raskrank.texts import positive
from raskrank.windows import LongDocuments


class ModelCardData:
    """Where sentence-transformers' evaluators write the results of a model. A bundle has no model card: nothing is kept."""

    def set_evaluation_metrics(self, *_: object) -> None:
        """Takes an evaluator, its metrics, an epoch and a step."""


class CrossEncoder:
    """A loaded bundle with the methods of sentence-transformers' CrossEncoder that score and rank.

    reranker: the Reranker that it runs; `reranker.close()` frees its memory.
    activation_fn: what makes scores of logits where a call names nothing else. May be set.
    num_labels: 1. device: "cpu". max_length, max_seq_length: tokens of a pair that are read, special tokens included; setting
        another number raises InputError.

    It may be used from several threads, and pickled.
    """

    num_labels = 1
    device = "cpu"

    def __init__(
        self,
        bundle: Bundle = None,
        *,
        max_length: int | None = None,
        activation_fn: ActivationFn | None = None,
        num_labels: int | None = None,
        device: object = None,
        long_documents: LongDocuments = "truncate",
    ) -> None:
        """Load a bundle.

        bundle: as `Reranker.load` takes it, or a Reranker.
        max_length: tokens of a pair; only what the bundle was made for. Default: that.
        activation_fn: "identity", "sigmoid", "softplus" or "tanh", or a function such as torch.nn.Sigmoid(), which is given a
            float32 tensor (n, 1) of logits. Default: the model's own.
        num_labels: 1. device: "cpu".
        long_documents: as for `Reranker.rank`.

        Raises InputError for what a bundle cannot do, and as `Reranker.load` does.
        """
        self.reranker = reranker(bundle)
        info = self.reranker.info()
        self._max_length = info.max_length
        if max_length is not None:
            self.max_length = max_length
        if num_labels not in (None, 1):
            raise InputError("num_labels: a bundle has one logit")
        check_device(device)
        self.model_card_data = ModelCardData()
        self._own, self._long_documents = info.activation, long_documents
        self.activation_fn: ActivationFn = self._own
        self.activation_fn = self._activation(activation_fn)

    @property
    def max_length(self) -> int:
        return self._max_length

    @max_length.setter
    def max_length(self, tokens: int) -> None:
        if tokens != self._max_length:
            raise InputError(f"max_length: this bundle reads {self._max_length} tokens; export one with --max-length")

    max_seq_length = max_length

    @old_names
    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationFn | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        pool: None = None,
        chunk_size: int | None = None,
    ) -> Any:
        """float32 (n): the score of each (query, document) pair, in input order.

        inputs: pairs in a list, a tuple, an array (n, 2), a column of a data set or whatever else has a length and an order; or
            one pair by itself, whose score is then a scalar.
        batch_size: at least 1. It has no effect: Raskrank plans its runs itself, and scores do not depend on it.
        show_progress_bar: whether to show one on stderr. Default: no.
        activation_fn: as for the class. Default: that of this object.
        convert_to_numpy: return a NumPy array; False: a list of tensors, one for each pair.
        convert_to_tensor: return one tensor, whatever convert_to_numpy says. Tensors need torch.
        prompt_name, prompt, apply_softmax, device, pool: only as they are by default, or device "cpu". chunk_size: no effect.

        Raises InputError, a ValueError, for what is not so, and as `Reranker.score_pairs` does; MissingExtra where torch is
        needed and not installed.
        """
        check_arguments(batch_size, device, prompt_name=prompt_name, prompt=prompt, apply_softmax=apply_softmax, pool=pool)
        activation, single = self._activation(activation_fn), self.is_singular_input(inputs)
        pairs = [inputs] if single else inputs
        with self._progress(pairs, show_progress_bar):
            scores = self._scores(pairs, activation)
        found: Any = scores
        if convert_to_tensor or not convert_to_numpy:
            tensor = import_torch("a tensor").from_numpy(scores)
            found = tensor if convert_to_tensor else list(tensor)
        return found[0] if single else found

    @old_names
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationFn | None = None,
        device: object = None,
        pool: None = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """The documents by falling score, ties by input index: {"corpus_id": int, "score": float} for each.

        documents: as `Reranker.rank` takes them.
        top_k: how many to return, at least 1. Default: all.
        return_documents: also give "text", the document.
        The rest: as for `predict`. A named activation never changes the order, a function may.

        Raises as `predict` does.
        """
        check_arguments(batch_size, device, prompt_name=prompt_name, prompt=prompt, pool=pool)
        activation = self._activation(activation_fn)
        with self._progress(documents, show_progress_bar):
            hits = self._ranked(query, documents, top_k, activation)
        if not return_documents:
            return [{"corpus_id": index, "score": score} for index, score in hits]
        texts = list(documents)
        return [{"corpus_id": index, "score": score, "text": texts[index]} for index, score in hits]

    def is_singular_input(self, inputs: Any) -> bool:
        """Whether `inputs` is one pair by itself and not pairs: whether its first item is a text."""
        if isinstance(inputs, str) or not isinstance(inputs, Collection):
            return False
        return isinstance(next(iter(inputs), None), str)

    def _ranked(
        self, query: str, documents: Sequence[str], top_k: int | None, activation: ActivationFn
    ) -> list[tuple[int, float]]:
        count, own, named = top_k, activation == self._own, isinstance(activation, str)
        if not named and top_k is not None:
            count, top_k = positive(top_k, "top_k"), None  # a function may change the order
        hits = self.reranker.rank(query, documents, top_k, raw_scores=not own, long_documents=self._long_documents)
        if own:
            return [(hit.index, hit.score) for hit in hits]
        scores = activated(activation, np.array([hit.score for hit in hits], np.float32)).tolist()
        ranked = list(zip((hit.index for hit in hits), scores, strict=True))
        return ranked if named else sorted(ranked, key=lambda hit: (-hit[1], hit[0]))[:count]

    def _scores(self, pairs: Any, activation: ActivationFn) -> Float32Array:
        own = activation == self._own
        scores = self.reranker.score_pairs(pairs, raw_scores=not own, long_documents=self._long_documents)
        return scores if own else activated(activation, scores)

    def _activation(self, activation: ActivationFn | None) -> ActivationFn:
        found = self.activation_fn if activation is None else activation
        check_activation(found)
        return found

    @contextmanager
    def _progress(self, inputs: Any, show: bool | None) -> Iterator[None]:
        if not show or not isinstance(inputs, Collection):
            yield
            return
        from tqdm import tqdm

        with tqdm(total=len(inputs), desc="Pairs") as bar, self.reranker.progress(bar.update):
            yield
