"""Registry: every way in which a plugin can be wrong is a PluginError that names it and where it came from."""

from importlib import metadata
from types import SimpleNamespace

import pytest

from onnxq.errors import OnnxqError, PlanError, PluginError, RecipeError
from onnxq.plugin import registry as registry_module
from onnxq.plugin.hookspecs import hookimpl
from onnxq.plugin.registry import Plugin, build_registry, load_registry


def quantizer(name: str) -> object:
    """Something that looks like a weight quantizer."""
    return SimpleNamespace(name=name, quantize=lambda weight, scheme, evidence: None)


def weight_quantizer_plugin(provide) -> object:
    """A plugin whose weight quantizer hook calls `provide`."""

    class Module:
        @hookimpl
        def onnxq_weight_quantizers(self):
            return provide()

    return Module()


def found(*plugins: object) -> list[tuple[object, str, str]]:
    return [(plugin, f"dist{index}", f"{index}.0") for index, plugin in enumerate(plugins)]


def test_what_a_plugin_provides_is_found_by_name_with_its_origin():
    registry = build_registry(found(weight_quantizer_plugin(lambda: [quantizer("mine"), quantizer("other")])))
    plugin = registry.weight_quantizer("mine")
    assert (plugin.name, plugin.family, plugin.distribution, plugin.version) == (
        "mine",
        "weight quantizer",
        "dist0",
        "0.0",
    )
    assert [item.name for item in registry.all()] == ["mine", "other"]


def test_one_name_twice_names_both_distributions():
    twice = found(*(weight_quantizer_plugin(lambda: [quantizer("mine")]) for _ in range(2)))
    with pytest.raises(
        PluginError, match=r"weight quantizer 'mine' is provided twice, by dist0 0\.0 and by dist1 1\.0"
    ):
        build_registry(twice)


def test_one_name_in_two_families_is_fine():
    class Both:
        @hookimpl
        def onnxq_weight_quantizers(self):
            return [quantizer("same")]

        @hookimpl
        def onnxq_formats(self):
            members = ("refuses", "store", "place", "kernel", "resident_bits")
            return [SimpleNamespace(name="same", **dict.fromkeys(members, print))]

    registry = build_registry(found(Both()))
    assert registry.format("same").family == "format"
    assert registry.weight_quantizer("same").family == "weight quantizer"


def test_a_misspelt_hook_is_an_error_with_the_hooks_that_exist():
    class Misspelt:
        @hookimpl
        def onnxq_weight_quantiser(self):
            return []

    with pytest.raises(PluginError, match=r"(?s)dist0 0\.0.*onnxq_weight_quantiser.*onnxq_weight_quantizers"):
        build_registry(found(Misspelt()))


def test_a_hook_with_an_unknown_argument_is_an_error():
    class Wrong:
        @hookimpl
        def onnxq_formats(self, registry):
            return []

    with pytest.raises(PluginError, match=r"dist0 0\.0"):
        build_registry(found(Wrong()))


@pytest.mark.parametrize(
    ("provide", "message"),
    [
        (lambda: 1 / 0, "raised ZeroDivisionError"),
        (lambda: None, "raised TypeError"),
        (lambda: 3, "raised TypeError"),
        (lambda: [object()], "lacks quantize"),
        (lambda: ["rtn"], "lacks quantize"),
        (lambda: [SimpleNamespace(name="x")], "lacks quantize"),
        (lambda: [SimpleNamespace(quantize=print)], "has no name"),
        (lambda: [quantizer("")], "has no name"),
        (lambda: [SimpleNamespace(name=7, quantize=print)], "has no name"),
    ],
    ids=["raises", "None", "int", "object", "str", "no method", "no name", "empty name", "number as name"],
)
def test_a_hook_that_raises_or_returns_nonsense_is_named(provide, message):
    with pytest.raises(PluginError, match=message) as caught:
        build_registry(found(weight_quantizer_plugin(provide)))
    assert "onnxq_weight_quantizers of dist0 0.0" in str(caught.value)


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (lambda registry: registry.weight_quantizer("mien"), r"method 'mien' is not installed; did you mean 'mine'\?"),
        (lambda registry: registry.weight_quantizer("gptq"), r"method 'gptq' is not installed; installed: mine"),
        (lambda registry: registry.format("packed"), r"format 'packed' is not installed; installed: none"),
        (lambda registry: registry.calibrator("x"), r"calibrator 'x' is not installed"),
    ],
)
def test_an_unknown_name_gives_the_nearest_or_all(look_up, message):
    registry = build_registry(found(weight_quantizer_plugin(lambda: [quantizer("mine")])))
    with pytest.raises(RecipeError, match=message):
        look_up(registry)


def test_whatever_a_plugin_raises_in_use_names_it_and_the_site():
    plugin = Plugin("mine", "weight quantizer", object(), "dist", "1.0")
    with (
        pytest.raises(PluginError, match=r"'mine' \(dist 1\.0\) at /fc: raised KeyError: 'k'") as caught,
        plugin.guarded("/fc"),
    ):
        raise KeyError("k")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("error", [PlanError("as it is"), KeyboardInterrupt()])
def test_our_own_errors_and_interrupts_pass_through(error):
    plugin = Plugin("mine", "weight quantizer", object(), "dist", "1.0")
    with pytest.raises(type(error)) as caught, plugin.guarded("/fc"):
        raise error
    assert caught.value is error
    assert not isinstance(error, PluginError)


def test_a_plugin_that_cannot_be_imported_is_named_with_its_distribution(monkeypatch):
    entry = metadata.EntryPoint("broken", "onnxq_no_such_module", "onnxq")
    monkeypatch.setattr(registry_module.metadata, "entry_points", lambda group: [entry] if group == "onnxq" else [])
    with pytest.raises(OnnxqError, match=r"plugin 'broken' of .* cannot be imported: ModuleNotFoundError"):
        load_registry()


def test_first_party_plugins_come_through_entry_points_and_are_what_they_claim(registry):
    assert {"rtn", "mse"} <= set(registry.weight_quantizers)
    assert "packed" in registry.formats
    assert {registry.weight_quantizer(name).distribution for name in ("rtn", "mse")} == {"onnxq"}
    for plugin in registry.all():
        assert plugin.provided.name == plugin.name
