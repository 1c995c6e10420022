"""Print the bounds of every card and shape, beside what others published."""

from __future__ import annotations

from benchmarks.cuda_bounds.cards import CARDS, MARLIN_OVER_FP16, SHAPES
from benchmarks.cuda_bounds.model import BANDWIDTH_SHARE, LAUNCH, bound

HEADING = "modelled bounds, unverified on hardware"
TOKENS = (1, 2, 4, 8, 16, 64, 512)


def main() -> None:
    print(f"# {HEADING}\n")
    print(
        f"Microseconds no kernel of ours can beat: bytes at {BANDWIDTH_SHARE:.0%} of the data sheet's bandwidth,\n"
        f"issue slots, tensor rate, the largest of them plus {LAUNCH * 1e6:.0f} us. fp16, 4 bits, block 32.\n"
        "`published` is another kernel's measured time on an A100 (onnxruntime MatMulNBits); nothing of ours was\n"
        "measured anywhere.\n"
    )
    print("| card | shape | tokens | memory | issue | tensor | bound | by | published | published / bound |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for card in CARDS:
        for shape in SHAPES:
            for m in TOKENS:
                b = bound(card, m, shape.k, shape.n)
                peer = shape.matmulnbits.get(m) if card.name == "A100-80" else None
                times = (f"{v * 1e6:.1f}" for v in (b.memory, b.issue, b.tensor, b.total))
                ratio = f"{peer / b.total / 1e6:.2f}" if peer else ""
                columns = [card.name, shape.name, m, *times, b.by, peer or "", ratio]
                print("| " + " | ".join(map(str, columns)) + " |")
    print(f"\nMarlin publishes about {MARLIN_OVER_FP16} times fp16 cuBLAS up to 16-32 tokens on an A10.")


if __name__ == "__main__":
    main()
