"""Budget: the solver against brute force, and the properties that hold at any size."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.budget import Option, cheapest

OPTIONS = st.builds(Option, st.integers(0, 40), st.floats(0, 100).map(lambda value: round(value, 2)))
ITEMS = st.lists(st.lists(OPTIONS, min_size=1, max_size=5), min_size=1, max_size=5)


def totals(items: Sequence[Sequence[Option]], chosen: Sequence[int]) -> tuple[int, float]:
    taken = [options[index] for options, index in zip(items, chosen, strict=True)]
    return sum(option.size for option in taken), sum(option.cost for option in taken)


@given(ITEMS, st.integers(0, 150))
def test_no_choice_that_fits_costs_less(items: list[list[Option]], limit: int) -> None:
    every = [totals(items, choice) for choice in itertools.product(*(range(len(options)) for options in items))]
    fitting = [cost for size, cost in every if size <= limit]
    found = cheapest(items, limit)
    if not fitting:
        assert found is None
        return
    assert found is not None
    size, cost = totals(items, found)
    assert size <= limit
    assert cost == pytest.approx(min(fitting), rel=1e-9, abs=1e-9)


def test_filling_greedily_would_not_do() -> None:
    # by gain per size, the first upgrade of A comes first, and then B's does not fit any more
    items = [[Option(0, 10.0), Option(3, 6.0)], [Option(0, 10.0), Option(5, 4.0)]]
    assert cheapest(items, 5) == (0, 1)
    assert cheapest(items, 4) == (1, 0)
    assert cheapest(items, 8) == (1, 1)


def test_equal_items_share_what_there_is() -> None:
    # convex costs: the best of many equal items lies within one step for all of them
    options = [Option(bits, 4.0**-bits) for bits in (2, 3, 4, 5, 6, 8)]
    found = cheapest([options] * 100, 350)
    assert found is not None
    assert {options[index].size for index in found} == {3, 4}
    assert totals([options] * 100, found)[0] == 350


def test_hundreds_of_items_take_a_moment() -> None:
    shapes = [576 * 576, 576 * 1536, 576 * 1536 + 192, 960 * 576]
    items = [
        [Option(int(shapes[i % 4] * bits), (1 + (i * 7919) % 13) * 4.0**-bits) for bits in (2.5, 3.25, 4.5, 5.25, 8.5)]
        for i in range(300)
    ]
    limit = int(3.7 * sum(shapes) * 75)
    found = cheapest(items, limit)
    assert found is not None
    size, _ = totals(items, found)
    assert 0.999 * limit < size <= limit
