"""Constants become initializers, so that every weight can be found in one place.

1. `Constant` nodes (any attribute kind, any scope) become initializers of their own graph.
2. `Identity` nodes disappear, chains of them too. One that names a graph output stays: it carries the name,
   and its input may live in another scope.
3. In models older than IR 4 initializers had to be listed as inputs too: that listing is removed, and the model
   becomes one of IR 4. In newer models an input with a default is a choice of the author, and is kept.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

__all__ = ["constants_to_initializers"]

_FIRST_IR_WITH_FREE_INITIALIZERS = 4


def constants_to_initializers(model: ir.Model) -> bool:
    """Apply cases 1-3 in place; tells whether anything changed."""
    changed = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model).modified  # 1
    changed |= _bypass_identities(model)  # 2
    if model.ir_version < _FIRST_IR_WITH_FREE_INITIALIZERS:
        changed |= common.RemoveInitializersFromInputsPass()(model).modified  # 3
        model.ir_version = _FIRST_IR_WITH_FREE_INITIALIZERS
    return changed


def _bypass_identities(model: ir.Model) -> bool:
    changed = False
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type != "Identity" or node.domain != "" or node.outputs[0].is_graph_output():
            continue
        source, graph = node.inputs[0], node.graph
        if source is None or graph is None:
            continue
        node.outputs[0].replace_all_uses_with(source)
        graph.remove(node, safe=True)
        changed = True
    return changed
