"""A loaded bundle beside PyTorch, judged by the thresholds of its export."""

from collections.abc import Sequence

from raskrank import gate
from raskrank.errors import InputError
from raskrank.gate import Verification
from raskrank.loading import Loaded
from raskrank.parity import compare
from raskrank.reference import LazyReference
from raskrank.scoring import Pair, Scorer


def verify(pairs: Sequence[Pair], loaded: Loaded, reference: LazyReference, scorer: Scorer) -> Verification:
    """See `Reranker.verify`. pairs: checked."""
    manifest, choice = loaded.manifest, loaded.choice
    if loaded.backend.name == "torch" or manifest is None or choice is None:
        raise InputError("this Reranker runs PyTorch itself; load the bundle without backend='torch' to verify it")
    if not pairs:
        raise InputError("pairs: there are none, so there is nothing to verify")
    thresholds, rounding = gate.recorded(manifest, choice.path)
    expected = reference.expected_logits(pairs, loaded.encoder, scorer.advance)
    found = scorer.logits(pairs)
    parity = compare(pairs, ("torch fp32", expected), (f"{loaded.backend.name} {manifest.precision}", found), rounding=rounding)
    return gate.verification(parity, thresholds, gate.judged(manifest))
