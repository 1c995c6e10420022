"""Recipe: what the user asked for, whole and checked before any work begins.

The same words on the command line, in the Python API and in a TOML file:

    bits = 4
    block_size = 32
    skip = ["lm_head"]

    [[override]]
    nodes = "layers\\\\.0/"
    bits = 8
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from onnxq.errors import RecipeError
from onnxq.scheme import BITS, BLOCK_SIZES, TABLE_BITS
from onnxq.sizes import parse_size

__all__ = ["BlockSize", "Override", "Recipe", "parse_override", "recipe_from", "recipe_from_file"]


def _check_bits(value: Any) -> Any:
    if value not in BITS:
        raise ValueError(f"is not one of {', '.join(map(str, BITS))}")
    return value


def _check_block_size(value: Any) -> Any:
    if value != "channel" and value not in BLOCK_SIZES:
        raise ValueError(f"is not one of {', '.join(map(str, BLOCK_SIZES))} or 'channel'")
    return value


def _check_table_bits(value: Any) -> Any:
    if value != "float" and value not in TABLE_BITS:
        raise ValueError(f"is not one of {', '.join(map(str, TABLE_BITS))} or 'float'")
    return value


Bits = Annotated[int, BeforeValidator(_check_bits)]
TableBits = Annotated[int | Literal["float"], BeforeValidator(_check_table_bits)]
BlockSize = Annotated[int | Literal["channel"], BeforeValidator(_check_block_size)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Override(_Strict):
    """Other wishes for the nodes whose name a regular expression finds (`re.search`); the last match wins."""

    nodes: str
    bits: Bits | None = None
    block_size: BlockSize | None = None
    symmetric: bool | None = None
    method: str | None = None
    activation_bits: Literal[8, 16] | None = None
    activation_symmetric: bool | None = None
    calibrator: str | None = None

    @field_validator("nodes")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _checked_regex(value)


class Recipe(_Strict):
    """What to do, with the defaults that suit most models.

    Attributes:
        format: how quantized weights are written; `auto` chooses per node.
        bits: of matmul weights.
        block_size: weights along K that share a scale; "channel" gives one scale per output channel. For CUDA, unless
            given, it is chosen by weight (onnxq.cuda_target).
        symmetric: signed codes without zero points; None means symmetric at 6 and 8 bits, asymmetric below.
        codebook: write matmul weights as indices into a codebook (4 bits each) instead of integers.
        table_bits: of embedding tables and the head tied to one; "float" leaves them.
        target_bpw: bits and blocks of each weight are chosen so that the quantized weights take at most this many bits
            each, scales and zero points counted; with it, `table_bits` is chosen too unless given.
        target_size: the same, so that the output takes at most this much, e.g. "80MB".
        method: weight quantizer, by plugin name; weights of integer kernels, and with a target all, get "gptq" with
            data and "mse" without, unless one is given.
        activation_bits: of activations that run on codes; 16 is computed in float by onnxruntime's CPU.
        activation_signed: int8 activations instead of uint8.
        activation_symmetric: zero is the middle code of every activation that can be negative.
        per_channel: weights of integer kernels have one scale per output channel, else one in all.
        calibrator: plugin that finds activation ranges, with parameters if any: `percentile:99.99`.
        bias_correction: biases of integer kernels make up for the mean error of their rounded weights; None: where
            there is data.
        reduce_range: integer weights keep to 7 bits; None: where the target's kernels would saturate otherwise.
        integer_nodes: run a node on codes where that is faster ("fast"), or wherever there is a kernel for it ("all").
        target: where the model will run; decides which kernels are predicted.
        compute: what kernels may do with activations.
        skip: regular expressions; a node whose name one finds stays float.
        override: exceptions, later ones winning; of the nodes that a codebook is for, other bits or another method make
            integers again.
        state: of a stateful model, output name -> name of the input that it is fed back to.
        seed: of everything random (synthetic feeds).
    """

    format: str = "auto"
    bits: Bits = 4
    block_size: BlockSize = 32
    symmetric: bool | None = None
    codebook: Literal["nf4"] | None = None
    table_bits: TableBits = 8
    target_bpw: float | None = Field(default=None, gt=0)
    target_size: str | None = None
    method: str = "rtn"
    activation_bits: Literal[8, 16] = 8
    activation_signed: bool = False
    activation_symmetric: bool = False
    per_channel: bool = True
    calibrator: str = "mse"
    bias_correction: bool | None = None
    reduce_range: bool | None = None
    integer_nodes: Literal["fast", "all"] = "fast"
    target: Literal["cpu", "cuda", "portable"] = "cpu"
    compute: Literal["int8", "bf16", "float"] = "int8"
    skip: tuple[str, ...] = ()
    override: tuple[Override, ...] = ()
    state: Mapping[str, str] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)

    @field_validator("skip")
    @classmethod
    def _skips_compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked_regex(pattern) for pattern in value)

    @model_validator(mode="after")
    def _codebook_is_alone(self) -> Self:
        methods = [self.method, *(rule.method for rule in self.override)]
        if self.codebook is None:
            if "nf4" in methods:
                raise ValueError("method nf4 gives indices into a codebook; use --codebook nf4")
            return self
        if self.bits != 4:
            raise ValueError(f"codebook {self.codebook} has 4 bits, not {self.bits}; drop one of the two")
        if self.block_size == "channel":
            raise ValueError(f"codebook {self.codebook} goes by blocks; give a block_size of {BLOCK_SIZES[0]} or more")
        if "method" in self.model_fields_set:
            raise ValueError(
                f"codebook {self.codebook} is a method of its own; drop --method {self.method}, or give it to some "
                "nodes by --override"
            )
        return self

    @field_validator("target_size")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_size(value)
            except RecipeError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _target_chooses_the_bits(self) -> Self:
        if not self.has_budget:
            return self
        target = "target_size" if self.target_bpw is None else "target_bpw"
        if "bits" in self.model_fields_set:
            raise ValueError(
                f"{target} chooses the bits; drop bits {self.bits}, or fix those of some nodes by an override"
            )
        if self.codebook is not None:
            raise ValueError(f"codebook {self.codebook} has 4 bits; drop {target}")
        return self

    @property
    def has_budget(self) -> bool:
        """Bits are chosen weight by weight."""
        return self.target_bpw is not None or self.target_size is not None

    @property
    def all_bits(self) -> frozenset[int]:
        """Every width that this recipe may produce."""
        if self.has_budget:
            return frozenset(BITS)
        tables = () if self.table_bits == "float" else (self.table_bits,)
        return frozenset({self.bits, *tables, *(rule.bits for rule in self.override if rule.bits)})


def recipe_from(**wishes: Any) -> Recipe:
    """A checked recipe from keyword values; None means the default.

    Raises:
        RecipeError: an unknown key (with the nearest one) or a value that cannot be.
    """
    return _validated({key: value for key, value in wishes.items() if value is not None}, "recipe")


def recipe_from_file(path: Path, **wishes: Any) -> Recipe:
    """A recipe from a TOML file, with other wishes (not None) laid over it; its lists (skip, override) are added to.

    Raises:
        RecipeError: the file cannot be read or parsed, or holds unknown keys or bad values.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; give the path of a TOML recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}; see docs/recipes.md for the format") from error
    given = {key: value for key, value in wishes.items() if value is not None}
    for key in ("skip", "override"):
        if isinstance(content.get(key), list) and isinstance(given.get(key), list | tuple):
            given[key] = (*content[key], *given[key])
    return _validated({**content, **given}, str(path))


def parse_override(text: str) -> Override:
    """`REGEX=key:value,key:value` as the command line writes it.

    Raises:
        RecipeError: no `=`, an unknown key or a bad value.
    """
    pattern, separator, rest = text.rpartition("=")
    if not separator or not pattern:
        raise RecipeError(f"override '{text}' is not REGEX=key:value,...; e.g. 'layers.0/=bits:8,method:rtn'")
    fields: dict[str, Any] = {"nodes": pattern}
    for item in rest.split(","):
        key, colon, value = (part.strip() for part in item.partition(":"))
        if not colon:
            raise RecipeError(f"override '{text}': '{item}' is not key:value; e.g. bits:8")
        key = key.replace("-", "_")
        if key == "nodes":
            raise RecipeError(f"override '{text}': unknown key 'nodes'; the nodes are what stands before the =")
        fields[key] = int(value) if value.isdigit() else {"true": True, "false": False}.get(value.lower(), value)
    try:
        return Override(**fields)
    except ValidationError as error:
        raise RecipeError(f"override '{text}': {_first_problem(error, Override)}") from None


def _validated(values: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe(**values)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_first_problem(error, Recipe)}") from None


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    if not problem["loc"]:  # of the recipe as a whole
        return problem["msg"].removeprefix("Value error, ")
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part for part in location if part != "int" and not part.startswith(("function-", "literal[")))
    if problem["type"] == "extra_forbidden":
        known = Override if location[0] == "override" and len(location) > 1 else model
        near = difflib.get_close_matches(location[-1], known.model_fields, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known.model_fields)}"
        return f"unknown key '{key}'; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}={problem['input']!r}: {message}"


def _checked_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    return pattern
