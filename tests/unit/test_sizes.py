"""Sizes as people write them."""

import pytest

from onnxq.errors import RecipeError
from onnxq.sizes import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100", 100),
        ("8GB", 8 * 10**9),
        ("512 MiB", 512 * 2**20),
        ("1.5g", 1_500_000_000),
        ("2kb", 2000),
        ("1 Ti", 2**40),
        (" 3 b ", 3),
    ],
)
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8 XB", "1,5GB", "8iB", "8 G B"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(RecipeError, match=r"8GB or 512MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (8e9, "8.00 GB")]
)
def test_sizes_are_written_with_the_unit_that_fits(count, expected):
    assert size_text(count) == expected
