"""Shared kernels: formats whose nodes onnxruntime fuses otherwise where several of them read one activation.

Two products with one activation quantize it alike; onnxruntime finds that out and does it once, so that neither can be
fused with it (see `shared_kernel` in onnxq.plugin.contracts.Format).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import onnx_ir as ir

from onnxq.plugin.registry import Registry
from onnxq.survey import find_nodes

__all__ = ["shared_kernels"]


def shared_kernels(model: ir.Model, formats: Mapping[str, str], registry: Registry) -> dict[str, str]:
    """The operator to expect of each node that shares its activation with another one of its format.

    Args:
        model: normalised.
        formats: name of the format of each node that will be quantized.
        registry: where the formats are.
    Returns:
        By node name; nodes to which none of this applies are left out.
    """
    nodes = find_nodes(model)
    groups: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for name, form in formats.items():
        if getattr(registry.format(form).provided, "shared_kernel", None) is not None:
            groups[form, id(nodes[name].graph), id(nodes[name].inputs[0])].append(name)
    return {
        name: str(getattr(registry.format(form).provided, "shared_kernel"))  # noqa: B009 - no member of the contract
        for (form, _, _), members in groups.items()
        for name in members
        if len(members) > 1
    }
