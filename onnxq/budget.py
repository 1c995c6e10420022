"""Budget: one option per item, so that all of them together fit a limit and cost as little as they can.

This is the multiple-choice knapsack problem, solved exactly, since the costs are separable:

1. Options that are as large as another one and cost no less are dropped.
2. A price per unit of size turns the limit into a cost: at each price every item takes its best option by itself.
   Bisection finds the lowest price at which the total fits; the answer there is feasible, and the price gives a
   lower bound on the cost of any answer (Lagrangian relaxation).
3. What room is left is filled by the upgrades that gain most per size: the upper bound.
4. Knapsack repair: an option that is worse at that price than its item's best by more than the gap between the bounds
   cannot be in a better answer. Over those that are left, all undominated (size, cost) totals are built item by item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Option", "cheapest"]

_BISECTIONS = 200
"""Halvings of the price: more than a float64 has steps between two prices that matter."""

_MOST_TOTALS = 100_000
"""Totals kept per item in step 4. Only above it, with thousands of items of odd sizes, may the answer miss the
optimum, and then by less than the gap between the bounds."""

_ROUNDING = 1e-9
"""Relative slack of the comparisons, far above float64's rounding of sums of thousands of costs."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to have an item.

    Attributes:
        size: what it takes of the limit, e.g. bits; not negative.
        cost: what it costs; finite.
    """

    size: int
    cost: float


def cheapest(items: Sequence[Sequence[Option]], limit: int) -> tuple[int, ...] | None:
    """Index of the option to take for each item, at the least total cost with a total size of at most `limit`.

    None when even the smallest options are too large together. Of equal costs, the smaller size is taken.
    """
    if sum(min(option.size for option in options) for options in items) > limit:
        return None
    frontiers = [_undominated(options) for options in items]
    price, chosen = _priced(items, frontiers, limit)
    chosen = _filled(items, frontiers, chosen, limit)
    if price == 0.0:  # everything's best fits
        return chosen
    return _repaired(items, frontiers, limit, price, chosen)


def _undominated(options: Sequence[Option]) -> list[int]:
    """Indices by rising size and falling cost."""
    kept: list[int] = []
    for index in sorted(range(len(options)), key=lambda index: (options[index].size, options[index].cost)):
        if not kept or options[index].cost < options[kept[-1]].cost:
            kept.append(index)
    return kept


def _priced(
    items: Sequence[Sequence[Option]], frontiers: Sequence[Sequence[int]], limit: int
) -> tuple[float, tuple[int, ...]]:
    """The lowest price at which the items' own choices fit (0: without one), and those choices."""

    def choices(price: float) -> tuple[int, ...]:
        return tuple(
            min(frontier, key=lambda index: (options[index].cost + price * options[index].size, options[index].size))
            for options, frontier in zip(items, frontiers, strict=True)
        )

    free = choices(0.0)
    if _size(items, free) <= limit:
        return 0.0, free
    low, high = 0.0, 1.0
    spread = max(options[f[0]].cost - options[f[-1]].cost for options, f in zip(items, frontiers, strict=True))
    high = max(2.0 * spread, np.finfo(np.float64).tiny)  # one unit of size less is worth more than any cost
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if _size(items, choices(middle)) <= limit else (middle, high)
    return high, choices(high)


def _filled(
    items: Sequence[Sequence[Option]], frontiers: Sequence[Sequence[int]], chosen: Sequence[int], limit: int
) -> tuple[int, ...]:
    """The choice with upgrades, the ones that gain most per size first, as long as they fit."""
    taken, room = list(chosen), limit - _size(items, chosen)
    while True:
        best: tuple[float, int, int] | None = None
        for item, (options, frontier) in enumerate(zip(items, frontiers, strict=True)):
            now = options[taken[item]]
            for index in frontier[frontier.index(taken[item]) + 1 :]:
                more = options[index].size - now.size
                gain = (now.cost - options[index].cost) / more
                if more <= room and (best is None or gain > best[0]):
                    best = gain, item, index
        if best is None:
            return tuple(taken)
        _, item, index = best
        room -= items[item][index].size - items[item][taken[item]].size
        taken[item] = index


def _repaired(
    items: Sequence[Sequence[Option]],
    frontiers: Sequence[Sequence[int]],
    limit: int,
    price: float,
    chosen: tuple[int, ...],
) -> tuple[int, ...]:
    """The optimum, given a feasible choice and the price of step 2 (see the module)."""
    bests = [
        min(options[i].cost + price * options[i].size for i in f) for options, f in zip(items, frontiers, strict=True)
    ]
    upper = _cost(items, chosen)
    gap = upper - (sum(bests) - price * limit)
    gap += _ROUNDING * (abs(upper) + price * limit)
    smallest = [min(options[i].size for i in f) for options, f in zip(items, frontiers, strict=True)]
    rest = sum(smallest)
    totals = _Totals(np.zeros(1, np.int64), np.zeros(1))
    history: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
    for options, frontier, best, least in zip(items, frontiers, bests, smallest, strict=True):
        rest -= least
        totals, came_from, took = totals.extended(options, frontier, price, best, room=limit - rest, gap=gap)
        history.append((came_from, took))
    costs = totals.excess - price * totals.size  # up to a constant
    at = int(np.lexsort((totals.size, costs))[0])
    found: list[int] = []
    for came_from, took in reversed(history):
        found.append(int(took[at]))
        at = int(came_from[at])
    answer = tuple(reversed(found))
    return answer if _cost(items, answer) <= upper else chosen


@dataclass(frozen=True, slots=True)
class _Totals:
    """Totals over the first items: int64 sizes, and float64 priced costs above the items' bests; [totals] each."""

    size: npt.NDArray[np.int64]
    excess: npt.NDArray[np.float64]

    def extended(
        self, options: Sequence[Option], frontier: Sequence[int], price: float, best: float, *, room: int, gap: float
    ) -> tuple[_Totals, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """With one more item; and for each new total the old one and the option that it is made of."""
        sizes = np.array([options[index].size for index in frontier], np.int64)
        excess = np.array([options[index].cost + price * options[index].size - best for index in frontier])
        size = (self.size[:, None] + sizes).ravel()
        over = (self.excess[:, None] + excess).ravel()
        alive = np.flatnonzero((size <= room) & (over <= gap))
        alive = alive[np.lexsort((over[alive] - price * size[alive], size[alive]))]
        cost = over[alive] - price * size[alive]
        cheaper = np.ones(len(alive), bool)
        cheaper[1:] = cost[1:] < np.minimum.accumulate(cost)[:-1]  # than all that are smaller
        alive = alive[cheaper]
        if len(alive) > _MOST_TOTALS:
            alive = np.sort(alive[np.argsort(over[alive], kind="stable")[:_MOST_TOTALS]])
        return (
            _Totals(size[alive], over[alive]),
            alive // len(frontier),
            np.asarray(frontier, np.intp)[alive % len(frontier)],
        )


def _size(items: Sequence[Sequence[Option]], chosen: Sequence[int]) -> int:
    return sum(options[index].size for options, index in zip(items, chosen, strict=True))


def _cost(items: Sequence[Sequence[Option]], chosen: Sequence[int]) -> float:
    return sum(options[index].cost for options, index in zip(items, chosen, strict=True))
