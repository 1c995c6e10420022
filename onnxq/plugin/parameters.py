"""Parameters of a plugin as the user writes them behind its name: `percentile:99.99`, `percentile:low=0.1,high=99.9`.

What stands behind the colon becomes arguments of the calibrator's constructor: a bare value positional, `key=value`
by keyword. Whole numbers, decimal numbers, `true` and `false` are converted; anything else stays text.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from onnxq.errors import RecipeError
from onnxq.plugin.contracts import Calibrator
from onnxq.plugin.registry import Plugin, Registry

__all__ = ["Choice", "check_calibrator", "new_calibrator", "parse_choice"]

Parameter = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Choice:
    """A plugin's name and the arguments for its constructor."""

    name: str
    positional: tuple[Parameter, ...] = ()
    keyword: tuple[tuple[str, Parameter], ...] = ()


def parse_choice(text: str) -> Choice:
    """Understand `NAME`, `NAME:VALUE,...` and `NAME:key=value,...`.

    Raises:
        RecipeError: no name, an empty parameter, or a bare value behind a keyword.
    """
    name, colon, rest = text.partition(":")
    positional: list[Parameter] = []
    keyword: dict[str, Parameter] = {}
    for item in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in item.partition("="))
        if not key or (equals and (not value or not key.isidentifier() or key in keyword)):
            raise RecipeError(f"'{text}': '{item}' is not a parameter; write NAME:value or NAME:key=value,key=value")
        if equals:
            keyword[key] = _value(value)
        elif keyword:
            raise RecipeError(f"'{text}': the bare value '{item}' stands behind key=value; put it first")
        else:
            positional.append(_value(key))
    if not name.strip():
        raise RecipeError(f"'{text}' names no plugin; e.g. percentile:99.99")
    return Choice(name.strip(), tuple(positional), tuple(keyword.items()))


def new_calibrator(plugin: Plugin[type[Calibrator]], text: str) -> Calibrator:
    """A fresh instance with the parameters that `text` has behind the plugin's name.

    Raises:
        RecipeError: parameters that the constructor does not take, or refuses with ValueError.
        PluginError: the constructor raised anything else.
    """
    choice = parse_choice(text)
    try:
        inspect.signature(plugin.provided).bind(*choice.positional, **dict(choice.keyword))
    except TypeError as error:
        raise RecipeError(f"calibrator '{text}': {error}; it is made as {_usage(plugin)}") from None
    except ValueError:
        pass  # a constructor without a signature: calling it will tell
    with plugin.guarded(f"calibrator '{text}'"):
        try:
            return plugin.provided(*choice.positional, **dict(choice.keyword))
        except ValueError as error:
            raise RecipeError(f"calibrator '{text}': {error}; it is made as {_usage(plugin)}") from error


def check_calibrator(registry: Registry, text: str) -> None:
    """Make one and throw it away, so that a mistake is found before the first inference.

    Raises:
        RecipeError: it is not installed, or does not take these parameters.
    """
    new_calibrator(registry.calibrator(parse_choice(text).name), text)


def _usage(plugin: Plugin[type[Calibrator]]) -> str:
    try:
        parameters = inspect.signature(plugin.provided).parameters.values()
    except (TypeError, ValueError):
        return plugin.name
    shown = [f"{item.name}={item.default}" if item.default is not item.empty else item.name for item in parameters]
    return f"{plugin.name}:{','.join(shown)}" if shown else f"{plugin.name} (no parameters)"


def _value(text: str) -> Parameter:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
