"""Elementwise operators with one activation.

| operator | on codes |
|---|---|
| Relu, Clip | absorbed by the node in front: its output's range ends where theirs does, and saturation does the rest |
| Sigmoid, LeakyRelu | a table of 256 entries: QLinearSigmoid, QLinearLeakyRelu; .05 ms where float takes .13 |
| Softmax | QLinearSoftmax is three times slower than DQ, Softmax, Q (.44 / .14 ms), and coarser |
| HardSigmoid, HardSwish, Gelu, Erf, Tanh, Elu | no integer kernel |
"""

from __future__ import annotations

from onnxq.qdq.rule import FloatRule, Rule, always

__all__ = ["FLOAT_RULES", "RULES", "SATURATING"]

SATURATING = frozenset({"Relu", "Clip"})
"""What a QuantizeLinear does by itself."""

RULES = (
    *(
        Rule(
            ops=(op,),
            kernel=f"QLinear{op}",
            joins="between",
            reason="on codes it is one look-up per element",
        )
        for op in ("Sigmoid", "LeakyRelu")
    ),
    Rule(
        ops=("Softmax",),
        kernel="QLinearSoftmax",
        joins="between",
        reason="asked for by --integer-nodes all",
        slower=always("onnxruntime's integer Softmax is three times slower than the float one, and coarser"),
    ),
)

FLOAT_RULES = (
    FloatRule(
        ("HardSigmoid", "HardSwish", "Gelu", "Erf", "Tanh", "Elu", "Selu", "Celu", "Mish", "Softplus", "Softsign"),
        "onnxruntime has no integer kernel for it",
    ),
    FloatRule(("LSTM", "GRU", "RNN"), "onnxruntime fuses no Q/DQ with recurrent layers"),
    FloatRule(("Cast", "CastLike"), "it changes the type of its input"),
    FloatRule(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization", "LogSoftmax"),
        "norms need more than 8 bits, and onnxruntime has no integer kernel for them",
    ),
)
