"""Insert: write the planned QuantizeLinear and DequantizeLinear into a graph whose weights are codes already.

1. Nodes that a kernel absorbs (bias Add, Relu, Clip) are taken out; the kernel's node takes their output's name.
2. A tensor that an integer node writes becomes NAME.raw -> Q -> NAME.quantized -> DQ -> NAME, for all its readers:
   the float value exists no more, and NAME is what verification compares.
3. A float tensor stays as it is for float readers: NAME -> Q -> NAME.quantized -> DQ -> NAME.dequantized, for integer
   readers only.
4. A constant in an activation's place becomes codes and DQ.
5. Pad, with which onnxruntime fuses nothing, is put between Q and DQ, over the codes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxq.qdq.activations import ActivationDecision
from onnxq.qdq.layout import IntegerNode
from onnxq.survey import find_nodes

__all__ = ["insert_activations"]


def insert_activations(
    model: ir.Model, integers: Sequence[IntegerNode], activations: Sequence[ActivationDecision]
) -> None:
    """Write the integer part of a plan into the main graph, in place.

    Args:
        model: weights and biases of the integer nodes are quantized; the nodes have their names.
        integers: what runs on codes.
        activations: what becomes codes.
    """
    nodes = find_nodes(model)
    for integer in integers:  # 1
        _absorb(nodes, integer)
    readers: dict[str, set[str]] = {}
    for integer in integers:
        for name in integer.inputs:
            readers.setdefault(name, set()).add(integer.node)
    values = _values(model.graph)
    for decision in activations:
        _quantize(model.graph, values[decision.tensor], decision, readers.get(decision.tensor, set()))
    for integer in integers:
        if integer.op_type == "Pad":
            _pad_codes(nodes[integer.node])  # 5


def _absorb(nodes: Mapping[str, ir.Node], integer: IntegerNode) -> None:
    if not integer.absorbs:
        return
    output = nodes[integer.node].outputs[0]
    last = nodes[integer.absorbs[-1]]
    graph, old = last.graph, last.outputs[0]
    assert isinstance(graph, ir.Graph)
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    name, old.name = old.name, None
    output.name, output.type, output.shape = name, old.type, old.shape
    graph.remove([nodes[absorbed] for absorbed in reversed(integer.absorbs)], safe=True)


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    values = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
    return {value.name or "": value for value in values}


def _quantize(graph: ir.Graph, value: ir.Value, decision: ActivationDecision, readers: set[str]) -> None:
    name = decision.tensor
    scale = _scalar(graph, f"{name}.scale", np.float32(decision.scale), ir.DataType.FLOAT)
    zero_point = _scalar(graph, f"{name}.zero_point", decision.zero_point, decision.format.dtype)
    uses = [usage for usage in value.uses() if decision.integer or usage.node.name in readers]
    leaves = decision.integer and value.is_graph_output()
    if decision.constant:  # 4
        codes = _constant_codes(graph, value, decision)
        first = uses[0].node
        last = _node("DequantizeLinear", [codes, scale, zero_point], name, ir.DataType.FLOAT)
        last.outputs[0].name = f"{name}.dequantized"
        _insert_before_all(graph, [last], [usage.node for usage in uses], first)
    else:
        quantize = _node("QuantizeLinear", [value, scale, zero_point], name, decision.format.dtype)
        last = _node("DequantizeLinear", [quantize.outputs[0], scale, zero_point], name, ir.DataType.FLOAT)
        quantize.outputs[0].name = f"{name}.quantized"
        last.outputs[0].name = f"{name}.dequantized"
        producer = value.producer()
        if producer is None:
            _insert_before_all(graph, [quantize, last], [usage.node for usage in uses], uses[0].node)
        else:
            graph.insert_after(producer, [quantize, last])
    output = last.outputs[0]
    output.shape = value.shape
    if leaves:
        for index, leaving in enumerate(graph.outputs):
            if leaving is value:
                graph.outputs[index] = output
    for usage in uses:
        usage.node.replace_input_with(usage.idx, output)
    if decision.integer:  # 2
        value.name, output.name = f"{name}.raw", name


def _insert_before_all(graph: ir.Graph, new: Sequence[ir.Node], readers: Sequence[ir.Node], first: ir.Node) -> None:
    """Put nodes in front of the earliest of their readers."""
    wanted = {id(node) for node in readers}
    graph.insert_before(next((node for node in graph if id(node) in wanted), first), new)


def _node(op_type: str, inputs: Sequence[ir.Value], tensor: str, dtype: ir.DataType) -> ir.Node:
    node = ir.node(op_type, inputs, name=f"{tensor}/{op_type}")
    node.outputs[0].type = ir.TensorType(dtype)
    return node


def _scalar(graph: ir.Graph, wanted: str, number: np.float32 | int, dtype: ir.DataType) -> ir.Value:
    name = _free_name(graph, wanted)
    tensor = ir.Tensor(np.array(number, dtype.numpy()), dtype=dtype, name=name)
    value = ir.Value(name=name, shape=ir.Shape(()), type=ir.TensorType(dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _free_name(graph: ir.Graph, wanted: str) -> str:
    """A model may have an initializer of that name already."""
    name, count = wanted, 1
    while name in graph.initializers:
        count += 1
        name = f"{wanted}_{count}"
    return name


def _constant_codes(graph: ir.Graph, value: ir.Value, decision: ActivationDecision) -> ir.Value:
    assert value.const_value is not None
    form, name = decision.format, _free_name(graph, f"{decision.tensor}.quantized")
    array = value.const_value.numpy().astype(np.float32)
    codes = np.clip(np.rint(array / np.float32(decision.scale)) + decision.zero_point, form.qmin, form.qmax)
    tensor = ir.Tensor(codes.astype(form.dtype.numpy()), dtype=form.dtype, name=name)
    stored = ir.Value(name=name, shape=ir.Shape(codes.shape), type=ir.TensorType(form.dtype), const_value=tensor)
    graph.register_initializer(stored)
    return stored


def _pad_codes(pad: ir.Node) -> None:
    padded = pad.inputs[0]
    dequantize = padded.producer() if padded is not None else None
    (quantize,) = (usage.node for usage in pad.outputs[0].uses())
    assert dequantize is not None
    assert isinstance(pad.graph, ir.Graph)
    codes, _, zero_point = dequantize.inputs
    pad.replace_input_with(0, codes)
    if pad.attributes.get_string("mode", "constant") == "constant":
        pad.resize_inputs(max(3, len(pad.inputs)))
        pad.replace_input_with(2, zero_point)
    old, new = quantize.outputs[0], pad.outputs[0]
    old.replace_all_uses_with(new)
    name, old.name = old.name, None
    new.name, new.type = name, old.type
    pad.graph.remove(quantize, safe=True)
