"""Parameters: what the user writes behind a plugin's name."""

import pytest
from onnxq_plugins.minmax import MinMax

from onnxq.errors import PluginError, RecipeError
from onnxq.plugin.parameters import Choice, check_calibrator, new_calibrator, parse_choice
from onnxq.plugin.registry import Plugin


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("minmax", Choice("minmax")),
        ("percentile:99.99", Choice("percentile", (99.99,))),
        ("p:1, 2.5 ,x", Choice("p", (1, 2.5, "x"))),
        ("p:low=0.1,high=99", Choice("p", (), (("low", 0.1), ("high", 99)))),
        ("p:3,wide=true,to=x:y", Choice("p", (3,), (("wide", True), ("to", "x:y")))),
    ],
)
def test_parsed(text, choice):
    assert parse_choice(text) == choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":3", "names no plugin"),
        ("p:", "'' is not a parameter"),
        ("p:1,,2", "'' is not a parameter"),
        ("p:=1", "'=1' is not a parameter"),
        ("p:low=", "'low=' is not a parameter"),
        ("p:a=1,a=2", "'a=2' is not a parameter"),
        ("p:a=1,2", "the bare value '2' stands behind key=value"),
    ],
)
def test_refused(text, message):
    with pytest.raises(RecipeError, match=message):
        parse_choice(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("percentil", "not installed; did you mean 'percentile'"),
        ("percentile:width=3", "unexpected keyword argument 'width'; it is made as percentile:percent=99.99,low="),
        ("percentile:1,2,3,4", "too many positional arguments"),
        ("percentile:200", "percent=200 is not between 0 and 100"),
        ("minmax:3", r"too many positional arguments; it is made as minmax \(no parameters\)"),
    ],
)
def test_a_mistake_is_found_before_any_work(registry, text, message):
    with pytest.raises(RecipeError, match=message):
        check_calibrator(registry, text)


def test_a_constructor_that_breaks_is_the_plugins_fault():
    class Broken(MinMax):
        def __init__(self, size: int = 3) -> None:
            raise RuntimeError(f"size {size}")

    plugin = Plugin("broken", "calibrator", Broken, "somebody", "1.0")
    with pytest.raises(PluginError, match=r"'broken' \(somebody 1.0\) at calibrator 'broken:4': raised RuntimeError"):
        new_calibrator(plugin, "broken:4")
