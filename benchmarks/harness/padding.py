"""How many tokens a contender computes on that nobody asked for, from the batches that it makes. Pure."""

from collections.abc import Sequence
from typing import Literal

# unpadded    every run has pairs of one length: Raskrank
# tokens      sorted by tokens, batches of n
# characters  sorted by characters of query and document, batches of n: sentence-transformers
# given       in the order given, batches of n: fastembed
# one         everything in one batch: FlashRank
Batching = Literal["unpadded", "tokens", "characters", "given", "one"]


def padding_waste(batching: Batching, size: int, lengths: Sequence[int], characters: Sequence[int]) -> float:
    """Padded tokens / real tokens - 1, at least 0: a batch counts its pairs times its longest pair.

    lengths: tokens of each pair as the model reads them, after truncation. characters: of each pair, query included.
    size: pairs in a batch, where the batching has one.
    """
    if batching == "unpadded" or not lengths:
        return 0.0
    order = list(range(len(lengths)))
    if batching != "given":
        key = characters if batching == "characters" else lengths
        order.sort(key=lambda index: -key[index])
    step = len(order) if batching == "one" else size
    batches = [order[start : start + step] for start in range(0, len(order), step)]
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return padded / sum(lengths) - 1
