"""Options that several commands share, and how they become a Recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from onnxq.recipe import Recipe, parse_override, recipe_from, recipe_from_file
from onnxq.scheme import BITS, BLOCK_SIZES, TABLE_BITS

__all__ = ["FILE", "custom_op_option", "data_option", "recipe_options", "recipe_wishes"]

FILE = click.Path(path_type=Path)

_RECIPE_OPTIONS = [
    click.option(
        "--format",
        metavar="NAME",
        help="How weights are written: auto (default) or a format plugin, e.g. packed or qdq.",
    ),
    click.option("--bits", type=click.Choice([str(bits) for bits in BITS]), help="Bits of matmul weights [4]."),
    click.option(
        "--block-size",
        type=click.Choice([*map(str, BLOCK_SIZES), "channel"]),
        help="Weights that share one scale [32; by weight for cuda]; channel: one scale per output channel.",
    ),
    click.option(
        "--symmetric/--asymmetric",
        default=None,
        help="Signed codes, or unsigned ones with zero points [asymmetric below 6 bits].",
    ),
    click.option(
        "--codebook",
        type=click.Choice(["nf4"]),
        help="Write matmul weights as 4-bit indices into a codebook, for onnxq's kernels; takes no --method.",
    ),
    click.option(
        "--table-bits",
        type=click.Choice([*map(str, TABLE_BITS), "float"]),
        help="Bits of embedding tables and the heads tied to them [8].",
    ),
    click.option(
        "--target-bpw",
        type=click.FloatRange(min=0, min_open=True),
        help="Choose bits and blocks of each weight so that they take this many bits per weight together, scales "
        "counted; 3, 5 and 6 bits are held as 8 by stock onnxruntime.",
    ),
    click.option(
        "--target-size",
        metavar="SIZE",
        help="The same for the whole output, e.g. 80MB.",
    ),
    click.option(
        "--method",
        metavar="NAME",
        help="Weight quantizer plugin [rtn; for integer kernels and with a target gptq with --data, else mse]; see "
        "onnxq plugins.",
    ),
    click.option(
        "--activation-bits",
        type=click.Choice(["8", "16"]),
        help="Bits of activations that run on codes [8]; 16 is computed in float by onnxruntime's CPU.",
    ),
    click.option(
        "--activation-signed/--activation-unsigned", default=None, help="int8 activations, or uint8 [unsigned]."
    ),
    click.option(
        "--activation-symmetric/--activation-asymmetric",
        default=None,
        help="Zero is the middle code of activations that can be negative [asymmetric].",
    ),
    click.option(
        "--per-channel/--per-tensor",
        default=None,
        help="Weights of integer kernels: one scale per output channel, or one in all [per channel].",
    ),
    click.option(
        "--calibrator",
        metavar="NAME[:PARAMETERS]",
        help="Plugin that finds activation ranges, e.g. percentile:99.99; see onnxq plugins.",
    ),
    click.option(
        "--bias-correction/--no-bias-correction",
        default=None,
        help="Biases of integer kernels make up for the mean error of their rounded weights [with --data].",
    ),
    click.option(
        "--reduce-range/--full-range",
        default=None,
        help="Integer weights keep to 7 bits [where the target's kernels would saturate: x86 without VNNI].",
    ),
    click.option(
        "--integer-nodes",
        type=click.Choice(["fast", "all"]),
        help="Run nodes on integer codes where that is faster, or wherever onnxruntime can [fast].",
    ),
    click.option("--target", type=click.Choice(["cpu", "cuda", "portable"]), help="Where the model will run [cpu]."),
    click.option("--skip", multiple=True, metavar="REGEX", help="Keep nodes with a matching name float. Repeatable."),
    click.option(
        "--override",
        multiple=True,
        metavar="REGEX=KEY:VALUE,...",
        help="Other bits, block_size, symmetric, method, activation_bits, activation_symmetric or calibrator for "
        "matching nodes, e.g. 'layers.0/=bits:8,method:mse'. Repeatable, the last match wins.",
    ),
    click.option(
        "--recipe",
        type=FILE,
        metavar="FILE.toml",
        help="Read all of these from a TOML file; options given here are laid over it, --skip and --override added.",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="Of synthetic feeds [0]."),
]


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that make a Recipe."""
    for option in reversed(_RECIPE_OPTIONS):
        command = option(command)
    return command


def recipe_wishes(options: dict[str, Any]) -> Recipe:
    """The Recipe that the parsed options of `recipe_options` ask for."""
    path: Path | None = options["recipe"]
    wishes: dict[str, Any] = {
        "format": options["format"],
        "bits": _number(options["bits"]),
        "block_size": _number(options["block_size"]),
        "symmetric": options["symmetric"],
        "codebook": options["codebook"],
        "table_bits": _number(options["table_bits"]),
        "target_bpw": options["target_bpw"],
        "target_size": options["target_size"],
        "method": options["method"],
        "activation_bits": _number(options["activation_bits"]),
        "activation_signed": options["activation_signed"],
        "activation_symmetric": options["activation_symmetric"],
        "per_channel": options["per_channel"],
        "calibrator": options["calibrator"],
        "bias_correction": options["bias_correction"],
        "reduce_range": options["reduce_range"],
        "integer_nodes": options["integer_nodes"],
        "target": options["target"],
        "skip": options["skip"] or None,
        "override": tuple(parse_override(text) for text in options["override"]) or None,
        "seed": options["seed"],
    }
    return recipe_from(**wishes) if path is None else recipe_from_file(path, **wishes)


def _number(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


data_option = click.option(
    "--data",
    metavar="DATA",
    help="Real batches: a folder of .npz or .npy, one .npz of stacked samples, a test_data_set_* folder, "
    "or module:function that yields dicts of arrays.",
)

custom_op_option = click.option(
    "--custom-op-lib",
    "custom_op_libraries",
    type=FILE,
    multiple=True,
    metavar="LIB",
    help="Shared library with the model's custom operators. Repeatable.",
)
