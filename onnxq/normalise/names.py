"""Every node gets a name of its own, since users select and read about nodes by name.

1. A node without a name is called `<op_type>:<name of its first output>`.
2. A name that stands twice gets `_2`, `_3`... in graph order, over all scopes.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["name_nodes"]


def name_nodes(model: ir.Model) -> int:
    """Apply cases 1 and 2 in place; returns how many nodes were renamed."""
    taken: set[str] = set()
    renamed = 0
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        wanted = node.name or f"{node.op_type}:{node.outputs[0].name if node.outputs else ''}"
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}_{count}"
        taken.add(name)
        renamed += name != node.name
        node.name = name
    return renamed
