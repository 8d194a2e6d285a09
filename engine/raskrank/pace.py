"""How long runs take, learned from those that were made."""

# A measurement below what is expected counts by so much: a machine that was busy once is trusted again after ten runs or so.
FALL = 0.25
# Work of a run that counts in full. In a shorter one, what is not proportional to its tokens weighs more than they do.
FULL = 256.0


class Pace:
    """Seconds for a unit of work, whichever unit. One for all calls of a Reranker, from any thread.

    It rises to what was measured last and falls slowly: that a deadline is kept matters more than the last run before it.
    """

    def __init__(self) -> None:
        self._recent: float | None = None
        self._best = 0.0

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return self._recent is not None

    def expected(self, work: float) -> float:
        """Seconds that so much work is expected to take; 0 where nothing is known."""
        return 0.0 if self._recent is None else self._recent * work

    def note(self, work: float, seconds: float) -> None:
        """So much work, at least 1, took so many seconds."""
        measured, recent = seconds / work, self._recent
        if recent is None:
            self._recent = self._best = measured
            return
        self._best = min(self._best, measured)
        weight = min(1.0, work / FULL)
        self._recent = recent + (measured - recent) * weight * (1.0 if measured > recent else FALL)

    def doubt(self) -> None:
        """A call began nothing, since too long a time was expected. Undoubted, that would stay so."""
        if self._recent is not None:
            self._recent = (self._recent + self._best) / 2
