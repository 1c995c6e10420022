"""The integer part of a network: which nodes run on codes, with what scales, and how that is written.

`rule` and `families/` say what each operator can do; `blocks` and `layout` apply them to a graph; `activations`
turns ranges into scales; `bias` and `insert` write codes, QuantizeLinear and DequantizeLinear into it; `trained`
takes over what a model trained with quantization brings along.
"""
