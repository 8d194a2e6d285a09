"""How a graph finds the positions of tokens from their ids."""

import re

# Each as optimum's exporter spells it, or as PyTorch's own does.
_IDS = r"(?:(?:input|token_type)_ids|Gather\(values, input_ids\))"  # or what is looked up by them: of the same length
_LENGTH = rf"(?:Unsqueeze\(Gather\(Shape\({_IDS}\), 1, axis=0\), \[0\]\)|Shape\({_IDS}, end=2, start=1\))"
_COUNTED = r"Cast\(Not\(Equal\(input_ids, (\d+)\)\), to=6\)"
_SUM = rf"(?:CumSum\({_COUNTED}, 1\)|Cast\(CumSum\(Cast\({_COUNTED}, to=7\), 1, exclusive=0, reverse=0\), to=6\))"
_BERT = re.compile(rf"Slice\(counting\(\d+\), \[0\], {_LENGTH}, \[1\], \[1\]\)")
_ROBERTA = re.compile(rf"Add\(Cast\(Mul\({_SUM}, {_COUNTED}\), to=7\), (\d+)\)")


def first_position(ids: str) -> tuple[int, int | None] | None:
    """The first token's position, and the id that is not counted, if one is not; None where `ids`, spelled, is unknown."""
    if _BERT.fullmatch(ids):
        return 0, None
    match = _ROBERTA.fullmatch(ids)
    skipped = {int(id) for id in match.groups() if id} if match else set()
    if len(skipped) != 1:
        return None
    return max(skipped) + 1, max(skipped)
