"""Works in line: threads take part in them in turn, so that each gets an equal share and none waits for all of another.

`serve` runs in the test's own thread, so that the order of items is the same every time.
"""

import itertools
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from raskrank.process.line import Line
from raskrank.process.work import Work

TURN = 10


class Shop:
    """A line that ends with the last item, and what was done in which order: (work's name, cost)."""

    def __init__(self) -> None:
        self.line, self.done = Line[int](TURN), list[tuple[str, int]]()
        self._left = 0

    def work(
        self, name: str, costs: list[int], *, places: int = 1, at: int = 0, then: Callable[[], object] = lambda: None
    ) -> Work[int]:
        """Join the line; `then` is called in the middle of the item with the number `at`."""
        own = itertools.count()

        def do(cost: int) -> None:
            self._left -= 1
            if next(own) == at:
                then()
            self.done.append((name, cost))
            if not self._left:
                self.line.end()

        self._left += len(costs)
        work = Work(do, costs, cost=float)
        self.line.join(work, places)
        return work

    def leave(self, items: int) -> None:
        """So many items will not be done."""
        self._left -= items

    def order(self) -> str:
        self.line.serve()
        return "".join(name for name, _ in self.done)


def test_works_of_equal_items_take_turns() -> None:
    shop = Shop()
    shop.work("a", [TURN] * 4)
    shop.work("b", [TURN] * 2)
    assert shop.order() == "ababaa"


def test_a_small_work_beside_a_large_one_waits_for_an_item_of_it_for_each_of_its_own() -> None:
    shop = Shop()
    shop.work("L", [TURN] * 1000, then=lambda: shop.work("s", [TURN] * 10))
    order = shop.order()
    assert order.index("s") == 1
    assert order[: order.rindex("s")].count("L") == 10
    assert order.count("L") == 1000


def test_shares_are_equal_in_cost_and_not_in_items() -> None:
    shop = Shop()
    shop.work("L", [5 * TURN] * 20)
    shop.work("s", [TURN // 2] * 40)
    shop.order()
    last = max(place for place, (name, _) in enumerate(shop.done) if name == "s")
    beside = sum(cost for name, cost in shop.done[:last] if name == "L")
    assert beside == pytest.approx(40 * TURN // 2, abs=5 * TURN)


@pytest.mark.parametrize("cost", [1, TURN, 30 * TURN])
def test_a_work_goes_on_however_many_small_ones_come(cost: int) -> None:
    """Each small work is followed by another at once, before the large one has its turn."""
    shop, names = Shop(), map(chr, range(0x4E00, 0x4E00 + 500))

    def come() -> None:
        if name := next(names, None):
            shop.work(name, [TURN], then=come)

    shop.work("L", [cost] * 5)
    come()
    order = shop.order()
    assert order.rindex("L") < len(order) - 300


def test_a_work_that_was_alone_owes_nobody() -> None:
    shop = Shop()
    shop.work("L", [3 * TURN] * 20, at=9, then=lambda: shop.work("s", [TURN] * 20))
    order = shop.order()
    assert order[:10] == "L" * 10
    assert order[10:].index("L") <= 3, "it waits for what one item beside another cost, and not for all before"


def test_a_work_with_two_places_gets_two_turns_for_one_of_another() -> None:
    shop = Shop()
    shop.work("a", [TURN] * 8, places=2)
    shop.work("b", [TURN] * 4)
    assert shop.order() == "aabaabaabaab"


def test_what_is_stopped_leaves_the_line() -> None:
    shop = Shop()
    work = shop.work("a", [TURN] * 5)

    def stop() -> None:
        work.stop()
        shop.leave(4)

    shop.work("b", [TURN] * 2, then=stop)
    assert shop.order() == "abb"


def test_an_error_ends_one_work_and_not_the_others() -> None:
    shop = Shop()

    def fail() -> None:
        shop.leave(2)
        raise ValueError("the first item")

    work = shop.work("a", [TURN] * 3, then=fail)
    shop.work("b", [TURN] * 3)
    assert shop.order() == "bbb"
    with pytest.raises(ValueError, match="the first item"):
        work.complete()


def test_works_that_are_in_line_at_the_end_are_done() -> None:
    shop = Shop()
    shop.work("a", [TURN] * 3, then=shop.line.end)
    shop.work("b", [TURN] * 3)
    assert sorted(shop.order()) == list("aaabbb")


def test_a_work_that_is_put_back_behind_the_end_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends the line may do so while a thread looks whether anyone waits for its work's place."""
    line, done = Line[int](TURN), list[int]()
    places: SimpleQueue[None] = SimpleQueue()

    class Places:
        get, put, qsize = places.get, places.put, places.qsize

        def empty(self) -> bool:
            line.end()
            return False

    monkeypatch.setattr(line, "_places", Places())
    work = Work(done.append, [TURN] * 3, cost=float)
    line.join(work, 1)
    line.serve()
    assert done == [TURN] * 3
