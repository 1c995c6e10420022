"""The registry: finds plugins through entry points, refuses broken ones by name, and guards every call."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Generic, TypeVar

import pluggy

from onnxq.errors import OnnxqError, PluginError, RecipeError
from onnxq.plugin import hookspecs
from onnxq.plugin.contracts import Calibrator, Format, WeightQuantizer

__all__ = ["Plugin", "Registry", "build_registry", "find_plugins", "load_registry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugin(Generic[T]):
    """One provided object and where it comes from."""

    name: str
    family: str
    provided: T
    distribution: str
    version: str

    @contextmanager
    def guarded(self, site: str) -> Iterator[T]:
        """Use the provided object; whatever it raises becomes a PluginError that names it and the site."""
        try:
            yield self.provided
        except OnnxqError:
            raise
        except Exception as error:  # a stranger's code may raise anything
            raise self.error(site, f"raised {type(error).__name__}: {error}") from error

    def error(self, site: str, problem: str) -> PluginError:
        """A PluginError naming this plugin, its distribution and the site."""
        return PluginError(
            f"{self.family} plugin '{self.name}' ({self.distribution} {self.version}) at {site}: {problem}; "
            "choose another one or report it to its author"
        )


@dataclass(frozen=True, slots=True)
class Registry:
    """All plugins by family and name."""

    calibrators: Mapping[str, Plugin[type[Calibrator]]]
    weight_quantizers: Mapping[str, Plugin[WeightQuantizer]]
    formats: Mapping[str, Plugin[Format]]

    def weight_quantizer(self, name: str) -> Plugin[WeightQuantizer]:
        """The weight quantizer of this name, or a RecipeError with the nearest one."""
        return _lookup(self.weight_quantizers, name, "method")

    def format(self, name: str) -> Plugin[Format]:
        """The format of this name, or a RecipeError with the nearest one."""
        return _lookup(self.formats, name, "format")

    def calibrator(self, name: str) -> Plugin[type[Calibrator]]:
        """The calibrator of this name, or a RecipeError with the nearest one."""
        return _lookup(self.calibrators, name, "calibrator")

    def all(self) -> Iterator[Plugin[object]]:
        """Every plugin, family by family, sorted by name."""
        for family in (self.calibrators, self.weight_quantizers, self.formats):
            for name in sorted(family):
                yield family[name]  # type: ignore[misc]


def load_registry() -> Registry:
    """Load every plugin that an installed distribution announces.

    Raises:
        PluginError: a plugin cannot be imported, or the checks of `build_registry` fail.
    """
    return build_registry(_load(entry) for entry in _entries())


def find_plugins() -> tuple[Registry, tuple[PluginError, ...]]:
    """Every plugin that works, and what is wrong with the others: for `onnxq doctor`, which must not stop at one."""
    good: list[tuple[object, str, str]] = []
    problems: list[PluginError] = []
    for entry in _entries():
        try:
            loaded = _load(entry)
            build_registry([*good, loaded])
        except PluginError as error:
            problems.append(error)
        else:
            good.append(loaded)
    return build_registry(good), tuple(problems)


def _entries() -> list[metadata.EntryPoint]:
    return sorted(metadata.entry_points(group=hookspecs.GROUP), key=lambda entry: entry.name)


def _load(entry: metadata.EntryPoint) -> tuple[object, str, str]:
    """The module of an entry point, its distribution and version."""
    distribution = entry.dist.name if entry.dist else "unknown distribution"
    version = entry.dist.version if entry.dist else ""
    try:
        return entry.load(), distribution, version
    except Exception as error:  # importing a stranger's module may raise anything
        raise PluginError(
            f"plugin '{entry.name}' of {distribution} {version} cannot be imported: "
            f"{type(error).__name__}: {error}; repair it or pip uninstall {distribution}"
        ) from error


def build_registry(found: Iterable[tuple[object, str, str]]) -> Registry:
    """Check plugin modules and collect what they provide.

    Args:
        found: (module or object with hook implementations, distribution, version) of each plugin.
    Raises:
        PluginError: a hook that does not exist, a hook that raises or returns the wrong thing, two
            plugins of one family and name.
    """
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    origins: dict[object, tuple[str, str]] = {}
    for module, distribution, version in found:
        try:
            manager.register(module)
            manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(
                f"plugin {getattr(module, '__name__', module)!r} of {distribution} {version}: "
                f"{str(error).splitlines()[0]}; the hooks are {', '.join(_hook_names())}"
            ) from error
        origins[module] = (distribution, version)
    return Registry(
        calibrators=_collect(manager, "calibrators", "calibrator", Calibrator, origins),
        weight_quantizers=_collect(manager, "weight_quantizers", "weight quantizer", WeightQuantizer, origins),
        formats=_collect(manager, "formats", "format", Format, origins),
    )


def _collect(
    manager: pluggy.PluginManager,
    hook: str,
    family: str,
    contract: type,
    origins: Mapping[object, tuple[str, str]],
) -> Mapping[str, Plugin[T]]:
    collected: dict[str, Plugin[T]] = {}
    for implementation in getattr(manager.hook, f"onnxq_{hook}").get_hookimpls():
        if implementation.plugin is hookspecs:
            continue
        distribution, version = origins[implementation.plugin]
        where = f"hook onnxq_{hook} of {distribution} {version}"
        try:
            provided = list(implementation.function())
        except Exception as error:  # a stranger's code may raise anything
            raise PluginError(f"{where} raised {type(error).__name__}: {error}; report it to its author") from error
        for item in provided:
            name = getattr(item, "name", None)
            missing = [member for member in _members(contract) if not hasattr(item, member)]
            if not isinstance(name, str) or not name or missing:
                problem = f"lacks {', '.join(missing)}" if missing else "has no name"
                raise PluginError(f"{where}: {item!r} {problem}, so it is no {family}; see docs/plugins.md")
            if name in collected:
                other = collected[name]
                raise PluginError(
                    f"{family} '{name}' is provided twice, by {other.distribution} {other.version} and by "
                    f"{distribution} {version}; uninstall one of them"
                )
            collected[name] = Plugin(name, family, item, distribution, version)
    return MappingProxyType(collected)


def _members(contract: type) -> list[str]:
    return [name for name in vars(contract) if not name.startswith("_") and callable(getattr(contract, name))]


def _hook_names() -> list[str]:
    return [name for name in hookspecs.__all__ if name.startswith("onnxq_")]


def _lookup(family: Mapping[str, Plugin[T]], name: str, what: str) -> Plugin[T]:
    if name in family:
        return family[name]
    near = difflib.get_close_matches(name, family, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"installed: {', '.join(sorted(family)) or 'none'}"
    raise RecipeError(f"{what} '{name}' is not installed; {hint} (see onnxq plugins)")
