"""The repair ladder: where plain int8 ranks differently, what is tried next, cheapest first, until the gate lets one pass."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path

from raskrank import gate, kernels
from raskrank.backend import Float32Array
from raskrank.encoding import EncodedPair
from raskrank.manifest import MODEL, WEIGHTS
from raskrank.measure.timing import interleaved
from raskrank.parity import Parity, Part, compare
from raskrank_export.calibrate import channel_magnitudes
from raskrank_export.graph import LeanGraph, save
from raskrank_export.halves import MIN_RANKED, Halves
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.products import constant_products
from raskrank_export.progress import Clock
from raskrank_export.quantization import EXACT, GROUP, PORTABLE, SEVEN_BIT, Floats, Quantization
from raskrank_export.quantize import kernel_parts, quantize
from raskrank_export.rungs import Attempt, Climb, Cost, Rung, Verdict
from raskrank_export.scoring import graph_backend, graph_logits, native_logits
from raskrank_export.sensitivity import sensitivity, sensitivity_pairs
from raskrank_export.smoothing import find_smoothing

# Of the weights, that products left in fp32 may have. With more of them int8 in groups is smaller, more exact, and as fast.
MOST_EXCLUDED = 0.25
TIMED_TOKENS, TIMED_ROUNDS, TIMED_SECONDS = 128, 20, 10.0


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What every rung is held to. pairs, encoded and the reference's logits are in one order.

    rounding: of the reference, as in Parity. halves: None where the samples are too few for two.
    """

    pairs: Sequence[tuple[str, str]]
    encoded: Sequence[EncodedPair]
    reference: tuple[str, Float32Array]
    rounding: float
    halves: Halves | None
    inputs: tuple[str, ...]
    thresholds: gate.Thresholds

    def compare(self, name: str, logits: Float32Array, part: Part = "all") -> Parity:
        """logits: float32, of the pairs of that part, in order."""
        indices, (reference, expected) = self.indices(part), self.reference
        pairs = [self.pairs[index] for index in indices]
        return compare(pairs, (reference, expected[indices]), (name, logits), rounding=self.rounding, part=part)

    def part(self, part: Part) -> list[EncodedPair]:
        return [self.encoded[index] for index in self.indices(part)]

    def indices(self, part: Part) -> list[int]:
        if part == "all" or self.halves is None:
            return list(range(len(self.pairs)))
        return list(self.halves.chosen_on if part == "chosen on" else self.halves.held_back)


def climb(
    graph: LeanGraph, folder: Path, scratch: Path, plain: Quantization, judge: Judge, fp32: Parity, clock: Clock
) -> Climb:
    """Try the rungs until one passes, and leave its graph and weights in `folder`, where those of `graph` lie now.

    graph: in fp32, which stays as it is. It is the last rung: with parity `fp32` it has passed the gate before.
    """
    ladder = _Ladder(graph, folder, scratch, judge, fp32, clock)
    for rung in ladder.rungs(plain):
        if not ladder.attempt(rung).failed:
            break
    return ladder.done()


class _Ladder:
    def __init__(self, graph: LeanGraph, folder: Path, scratch: Path, judge: Judge, fp32: Parity, clock: Clock) -> None:
        self.graph, self.folder, self.judge, self.fp32, self.clock = graph, folder, judge, fp32, clock
        self.plain, self.repaired = scratch / "plain", scratch / "repaired"
        self.sample = sensitivity_pairs(judge.part("chosen on"))
        self.attempts: list[Attempt] = []
        self.skipped: dict[str, str] = {}
        self.moved: dict[str, float] = {}

    def rungs(self, plain: Quantization) -> Iterator[Rung]:
        """Each is asked for after the one before it has failed."""
        yield Rung("int8", plain)
        if self.judge.halves is None:
            self.skipped["every repair"] = (
                f"it is chosen on half of the samples and judged on the other, with at least {MIN_RANKED} queries in each "
                "whose documents score differently: give more samples"
            )
            yield Rung("fp32", None)
            return
        yield from self._exclusions() if plain.scheme == "group" else self._beside_groups(plain)
        yield Rung("weight-only int8", Quantization(scheme="weights", levels=EXACT))
        yield Rung("fp32", None)

    def _beside_groups(self, plain: Quantization) -> Iterator[Rung]:
        """What repairs rows and constant ranges, and at last groups."""
        if plain.scheme != "row":
            yield Rung("int8, row ranges", replace(plain, scheme="row"))
        if plain.levels == PORTABLE:
            name, base = self._best()
            yield Rung(f"{name}, 7-bit weights", replace(base, levels=SEVEN_BIT))
        else:
            self.skipped["7-bit weights"] = "this target has 8 bits for weights and for activations"
        if plain.smoothing:
            self.skipped["smoothing"] = "all activations are smoothed already"
        elif smoothing := self._smoothing():
            name = f"int8, {_count(len(smoothing), 'activation')} smoothed"
            yield Rung(name, replace(plain, scheme="row", smoothing=smoothing))
        else:
            self.skipped["smoothing"] = "no channel has outliers"
        yield from self._exclusions()
        yield Rung("int8 in groups", GROUP)

    def attempt(self, rung: Rung) -> Attempt:
        if rung.quantization is None:
            made = Attempt(rung, self.fp32, self.fp32, {}, _size(self.folder))
        else:
            folder = self.repaired if self.attempts else self.plain
            folder.mkdir(exist_ok=True)
            with self.clock.step(f"quantize to {rung.name}"):
                model = deepcopy(self.graph.model)
                products, embeddings = quantize(model, rung.quantization, self.graph.kernels)
                save(model, folder)
            # Ranges that were found on the samples are a choice, too.
            chosen = self.judge.halves is not None and (bool(self.attempts) or bool(rung.quantization.smoothing))
            verdict = self.judged(rung, folder, "chosen on" if chosen else "all")
            parity = chosen_on = verdict.parity
            if chosen and not verdict.failed:
                verdict = self.judged(rung, folder, "held back")
            elif self.judge.halves is not None and not chosen:
                half = list(self.judge.halves.chosen_on)
                chosen_on = self.judge.compare(parity.candidate, parity.candidate_logits[half], "chosen on")
            made = Attempt(rung, verdict.parity, chosen_on, verdict.failed, _size(folder), products, embeddings, verdict.native)
        self.attempts.append(made)
        return made

    def judged(self, rung: Rung, folder: Path, part: Part) -> Verdict:
        """The graph in `folder` on a part of the samples, and what it fails there: in onnxruntime, and in our own kernels."""
        encoded, groups = self.judge.part(part), rung.quantization is None or rung.quantization.groups
        where = ", held back" if part == "held back" else ""
        with self.clock.step(f"score with ONNX {rung.name}{where}", len(encoded)):
            logits = graph_logits(folder, self.judge.inputs, encoded, self.clock.progress, groups=groups)
        parity = self.judge.compare(f"onnx {rung.name}", logits, part)
        failed = gate.failures(parity, self.judge.thresholds, "int8")
        parts = kernel_parts(self.graph.kernels, rung.quantization)
        if failed or parts is None or kernels.unavailable() is not None:
            return Verdict(parity, None, failed)
        with self.clock.step(f"score with our kernels {rung.name}{where}", len(encoded)):
            logits = native_logits(folder, self.judge.inputs, encoded, self.clock.progress, parts.encoder)
        native = self.judge.compare(f"native {rung.name}", logits, part)
        return Verdict(parity, native, gate.failures(native, self.judge.thresholds, "int8"))

    def done(self) -> Climb:
        quantization, repaired, cost = self.attempts[-1].rung.quantization, len(self.attempts) > 1, None
        passed = self.folder if quantization is None else self.repaired if repaired else self.plain
        if repaired:
            with self.clock.step("repair: measure its cost"):
                cost = self._cost(passed)
        if quantization is not None:
            for name in (MODEL, WEIGHTS):
                (passed / name).replace(self.folder / name)
        return Climb(
            attempts=tuple(self.attempts),
            skipped=self.skipped,
            moved=self.moved,
            sensitivity_pairs=len(self.sample),
            cost=cost,
        )

    def _best(self) -> tuple[str, Quantization]:
        """What failed by the least."""
        tried = [
            (attempt.chosen_on.mean_drift, attempt.rung.name, attempt.rung.quantization)
            for attempt in self.attempts
            if attempt.rung.quantization is not None
        ]
        _, name, quantization = min(tried, key=lambda item: math.inf if math.isnan(item[0]) else item[0])
        return name, quantization

    def _smoothing(self) -> dict[str, Floats]:
        with self.clock.step("repair: look for outliers", len(self.sample)):
            return find_smoothing(self.folder, channel_magnitudes(self.folder, self.sample, self.clock.progress))

    def _exclusions(self) -> Iterator[Rung]:
        """The most sensitive products in fp32: 1, 2, 4, 8 ... of them, and at last as many as are worth it."""
        (name, base), editor = self._best(), GraphEditor(self.graph.model)
        sizes = {
            product.output[0]: math.prod(editor.initializers[product.input[1]].dims) for product in constant_products(editor)
        }
        with self.clock.step("repair: measure sensitivity", (len(sizes) + 1) * len(self.sample)):
            self.moved = sensitivity(self.folder, self.judge.inputs, self.sample, base, self.clock.progress)
        ranked = list(self.moved)
        for count in exclusion_counts([sizes[product] for product in ranked]):
            yield Rung(f"{name}, {_count(count, 'product')} in fp32", replace(base, excluded=frozenset(ranked[:count])))

    def _cost(self, passed: Path) -> Cost:
        pair = max(self.judge.encoded, key=lambda pair: len(pair.input_ids))
        input_ids, token_type_ids = pair.input_ids[None, :TIMED_TOKENS], pair.token_type_ids[None, :TIMED_TOKENS]
        backends = {
            name: graph_backend(folder, self.judge.inputs, concurrency=1, groups=False)
            for name, folder in (("plain", self.plain), ("passed", passed))
        }
        try:
            timings = interleaved(
                {name: partial(backend.logits, input_ids, token_type_ids) for name, backend in backends.items()},
                rounds=TIMED_ROUNDS,
                budget_s=TIMED_SECONDS,
            )
        finally:
            for backend in backends.values():
                backend.close()
        plain_ms, passed_ms = (timings[name].median * 1e3 for name in ("plain", "passed"))
        return Cost(input_ids.shape[1], plain_ms, passed_ms)


def exclusion_counts(sizes: Sequence[int]) -> list[int]:
    """1, 2, 4, 8 ... and last the most that together have MOST_EXCLUDED of the weights.

    sizes: of the products' weights, the most sensitive product first.
    """
    most = sum(taken <= MOST_EXCLUDED * sum(sizes) for taken in accumulate(sizes))
    return [1 << power for power in range(most.bit_length()) if 1 << power < most] + ([most] if most else [])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in (MODEL, WEIGHTS))
