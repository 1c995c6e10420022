"""Acceptance: the width in which a format can write a weight, where it cannot write the one that was wished for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxq.errors import RecipeError
from onnxq.plugin.contracts import Format
from onnxq.plugin.registry import Plugin
from onnxq.scheme import BITS, TABLE_BITS, Scheme
from onnxq.survey import Site

__all__ = ["acceptable", "accepted"]


def accepted(sites: Sequence[Site], scheme: Scheme, form: Plugin[Format]) -> tuple[Scheme, str | None]:
    """The scheme, or with a warning the next wider one that the format can write for all sites of a weight."""
    found, refusals = acceptable(sites, scheme, form)
    site, why = refusals[0] if refusals else (sites[0], "")
    if found is None:
        raise RecipeError(f"{site.op_type} '{site.node}': {why}")
    return found, f"'{site.node}' gets {found.bits} bits: {why}" if refusals else None


def acceptable(
    sites: Sequence[Site], scheme: Scheme, form: Plugin[Format]
) -> tuple[Scheme | None, list[tuple[Site, str]]]:
    """The scheme in the least width from its own on that the format can write, if any; and why not in those before."""
    refusals: list[tuple[Site, str]] = []
    widths = TABLE_BITS if scheme.bits in TABLE_BITS else BITS  # a width of ONNX gives way to one of ONNX
    for bits in (bits for bits in widths if bits >= scheme.bits):
        candidate = replace(scheme, bits=bits)
        with form.guarded(sites[0].node) as plugin:
            refused = [(site, why) for site in sites if (why := plugin.refuses(site, candidate)) is not None]
        if not refused:
            return candidate, refusals
        refusals += refused
    return None, refusals
