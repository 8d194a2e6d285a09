"""Address space that is left under RLIMIT_AS (`ulimit -v`). Native code that gets no memory ends the process.

So where such a limit is set, loads and calls are refused unless there is left what they may need.
"""

import contextlib
import os
import sys

from raskrank.errors import InferenceError
from raskrank.planning import GROUP_TOKENS

MIB = 2**20
# In the text of native exceptions for memory that was not to be had.
SIGNS = ("bad_alloc", "Failed to allocate memory", "Cannot allocate memory")
# Of each thread: what glibc reserves for its stack and its heap, and keeps for all that follows.
THREAD = 72 * MIB
# Libraries and the embedded model. With two threads of the tokenizer's 200 MiB in all did not do in trials, 400 did.
LOAD = 320 * MIB
# A tokenizer takes about 15 times the bytes of its file, a graph is parsed, weights are mapped and may be packed anew.
PER_TOKENIZER_BYTE, PER_GRAPH_BYTE, PER_WEIGHT_BYTE = 20, 4, 2
# A call: texts and tokens of a chunk; and for each thread the activations of a run, by its tokens and the width of the model.
# onnxruntime reserves more than it uses: address space grew by 200 to 356 bytes, by the family (`python -m
# benchmarks.studies.long_texts` prints it), of which it used 100 to 230.
CALL, PER_TOKEN = 16 * MIB, 384


def need(size: int, what: str) -> None:
    """Raises InferenceError where less than `size` bytes may be had. what: is to be done, for the message."""
    left = _left()
    if left is not None and left < size:
        raise InferenceError(
            f"{what} may need {size // MIB} MiB of memory, and the limit on address space (RLIMIT_AS, ulimit -v) leaves "
            f"{max(left, 0) // MIB} MiB: raise it"
        )


def for_call(concurrency: int, hidden_size: int, max_length: int, *, starting: int) -> int:
    """Bytes that a call of `concurrency` runs side by side may need, of pairs of max_length tokens.

    starting: threads that it will start for them.
    """
    tokenizing = 1 if starting else 0
    tokens = max(max_length, GROUP_TOKENS)  # of a run
    return CALL + (starting + tokenizing) * THREAD + concurrency * tokens * hidden_size * PER_TOKEN


def for_load(cpus: int) -> int:
    """Bytes that loading the embedded model may need. cpus: for each the tokenizer has a thread."""
    return LOAD + cpus * THREAD


def for_files(tokenizer: int, graph: int, weights: int) -> int:
    """Bytes that a bundle's files of these sizes may need to be loaded."""
    return CALL + tokenizer * PER_TOKENIZER_BYTE + graph * PER_GRAPH_BYTE + weights * PER_WEIGHT_BYTE


def shortage(error: Exception) -> str:
    """Why native code failed, to be added to a message; "" unless it got no memory."""
    left = _left() if isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS) else None
    return (
        ""
        if left is None
        else (f" (the limit on address space (RLIMIT_AS, ulimit -v) leaves {max(left, 0) // MIB} MiB: raise it)")
    )


def _left() -> int | None:
    """None where nothing limits it, or that is not known."""
    if sys.platform != "linux":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:  # noqa: PTH123  on the way of each call
        return limit - int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return None
