"""Bugs to plant in the kernels, one edit each. All must be noticed, or be proved to change nothing.

`kernel` is where the bug lies; `run` of test_cuda_mutations.py puts every bug of a kernel through the same
products. "conflict" means that only the bank-conflict counter can notice: the numbers stay right.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    kernel: str  # decode, mid, wide, gather or codebook
    file: str  # under kernels/cuda
    old: str
    new: str
    equivalent: str = ""  # why it changes nothing; empty: must be noticed

    def __str__(self) -> str:
        return f"{self.kernel}: {self.name}"


DECODE, TILE, STAGE, EPILOGUE = (
    "device/decode.cuh",
    "device/tile.cuh",
    "device/tile_stage.cuh",
    "device/tile_epilogue.cuh",
)
WEIGHTS, PTX, ELEMENTS, GATHER = "device/weights.cuh", "device/ptx.cuh", "device/elements.cuh", "device/gather.cuh"
CODEBOOK = "device/codebook.cuh"

BUGS = [
    # Barriers and waits
    Bug("no barrier before the warps' sums are added", "decode", DECODE, "  __syncthreads();\n", ""),
    Bug("no barrier in the main loop", "mid", TILE, "    __syncthreads();  // the stage is", "    // the stage is"),
    Bug("no barrier in the main loop", "wide", TILE, "    __syncthreads();  // the stage is", "    // the stage is"),
    Bug("cp.async waited for one stage late", "mid", TILE, "wait<kLayout.stages - 2>", "wait<kLayout.stages - 1>"),
    Bug("cp.async waited for one stage late", "wide", TILE, "wait<kLayout.stages - 2>", "wait<kLayout.stages - 1>"),
    Bug("cp.async wait with the wrong count in the instruction", "mid", PTX, '"n"(Pending)', '"n"(3)'),
    Bug(
        "a group is not committed",
        "wide",
        TILE,
        "    ptx::copy_async_commit();\n    warp.multiply",
        "    warp.multiply",
    ),
    Bug(
        "the stage being read is filled",
        "wide",
        TILE,
        "const int free = stage == 0 ? kLayout.stages - 1 : stage - 1;",
        "const int free = stage;",
    ),
    Bug(
        "no barrier before the stages become the sums' room",
        "mid",
        TILE,
        "  __syncthreads();\n  store_product",
        "  store_product",
    ),
    Bug(
        "no barrier between writing and adding the sums",
        "mid",
        EPILOGUE,
        "  __syncthreads();\n\n  const int quads",
        "\n  const int quads",
    ),
    # Fragments and swizzles
    Bug("b0 and b1 swapped in the mma", "decode", PTX, '"r"(b0), "r"(b1)', '"r"(b1), "r"(b0)'),
    Bug("a1 and a2 swapped in the mma", "wide", PTX, '"r"(a[1]), "r"(a[2])', '"r"(a[2]), "r"(a[1])'),
    Bug(
        "swizzle dropped where tokens are read",
        "mid",
        TILE,
        "row + swizzle(token, Step / 2 * 4 + quad) * 16",
        "row + (Step / 2 * 4 + quad) * 16",
    ),
    Bug(
        "swizzle dropped altogether: only slower",
        "wide",
        "tile_shape.h",
        "return piece ^ ((token & 1) << 2 | (token & 2));",
        "return piece + 0 * token;",
    ),
    Bug("banks not turned where sums wait: only slower", "decode", DECODE, "column + token / 2 * 8)", "column)"),
    Bug(
        "row stride of the sums not skewed: only slower",
        "wide",
        "tile_shape.h",
        "return shape.columns() + 4;",
        "return shape.columns();",
    ),
    # Guards
    Bug("tokens beyond m are stored", "decode", DECODE, "if (token >= args.m || ", "if ("),
    Bug("columns beyond n are stored", "decode", DECODE, " || column >= args.n", ""),
    Bug("columns beyond n are stored", "mid", EPILOGUE, "    if (i < present) to[i]", "    to[i]"),
    Bug("tokens beyond m are copied", "wide", STAGE, "p.token < args_.m && p.depth < args_.k", "p.depth < args_.k"),
    Bug("depths beyond k are copied", "mid", STAGE, "p.token < args_.m && p.depth < args_.k", "p.token < args_.m"),
    Bug("zero-fill operand of cp.async is not the count", "mid", PTX, "[%0], [%1], 16, %2;", "[%0], [%1], 16, 16;"),
    Bug(
        "column tiles beyond n are copied",
        "wide",
        STAGE,
        "tile < depth_tiles_ && group < groups_",
        "tile < depth_tiles_",
    ),
    Bug("the last, partial token tile is skipped", "mid", TILE, "(left + 7) / 8", "left / 8"),
    Bug(
        "guarded reads are not guarded",
        "decode",
        ELEMENTS,
        "2 * w < present ? from[2 * w] : Storage<E>{}",
        "from[2 * w]",
    ),
    Bug(
        "the tail of k is skipped",
        "decode",
        DECODE,
        "tile < tiles_; tile += Decode::kWarps) finish",
        "tile < 0; ++tile) finish",
    ),
    Bug(
        "the running weight pointer stands still",
        "decode",
        DECODE,
        "      weights += Decode::kAhead * kWeightStride;\n",
        "",
    ),
    Bug(
        "the running scale pointer stands still",
        "decode",
        DECODE,
        "        scales += Decode::kAhead * kScaleStride;\n",
        "",
    ),
    Bug(
        "the running zero pointer stands still",
        "decode",
        DECODE,
        "        zeros += Decode::kAhead * kZeroStride;\n",
        "",
    ),
    # Scales, zero points, blocks
    Bug(
        "scale row off by one",
        "decode",
        DECODE,
        "const unsigned row = row_of(tile * kTileDepth);",
        "const unsigned row = row_of(tile * kTileDepth) + 1;",
    ),
    Bug("scale row of the wrong group of columns", "wide", STAGE, "present ? group * scale_rows_ +", "present ?"),
    Bug(
        "zero points of the first block used throughout",
        "decode",
        DECODE,
        "      if (done < kSteps) dequantizer.next_block(zeros.zeros(block + 1));\n",
        "",
    ),
    Bug("zero points ignored", "decode", DECODE, "static_cast<unsigned>(args_.zero_stride)", "0u"),
    Bug(
        "zero points of both columns swapped",
        "mid",
        WEIGHTS,
        "r % 2 ? spread<1>(zeros, 0) : spread<0>",
        "r % 2 ? spread<0>(zeros, 0) : spread<1>",
    ),
    Bug("scales of both columns swapped", "wide", TILE, "(r < 2 ? low : high)", "(r < 2 ? high : low)"),
    Bug("block sums not cleared", "mid", TILE, "          block_sums[g][t][r] = 0.0f;\n", ""),
    Bug(
        "deep blocks scaled only at their last tile, depth shared",
        "mid",
        TILE,
        "const bool ends = kShape.warps_depth > 1 ||",
        "const bool ends =",
    ),
    Bug("blocks of 32 scaled once a tile", "wide", TILE, "multiply_tile<32>", "multiply_tile<64>"),
    Bug("one depth warp's sums forgotten", "mid", EPILOGUE, "d < WarpsDepth; ++d", "d < WarpsDepth - 1; ++d"),
    # Dequantization
    Bug(
        "factor of the second nibble wrong",
        "decode",
        WEIGHTS,
        "0x3c003c00u - 0x04000400u * p",
        "0x3c003c00u - 0x03000300u * p",
    ),
    Bug(
        "lop3 table 0xea -> 0xe2",
        "decode",
        PTX,
        "%3, 0xea;",
        "%3, 0xe2;",
        equivalent="0xe2 differs from 0xea where bits = 1, mask = 1 and value = 0 only in entry 3 "
        "(a=0, b=1, c=1); mask and "
        "magic bits share no position, so b and c are never both 1",
    ),
    Bug("lop3 table 0xea -> 0xca", "decode", PTX, "%3, 0xea;", "%3, 0xca;"),
    # Gather
    Bug("negative indices not wrapped", "gather", GATHER, "index += args.vocabulary", "index += 0"),
    Bug(
        "wrong half of the lane's columns",
        "gather",
        GATHER,
        "const int upper = column_ / kGroups;",
        "const int upper = 0;",
    ),
    Bug("an index beyond the table is read", "gather", GATHER, "|| index >= args.vocabulary", ""),
    # Codebooks
    Bug(
        "entries 8 to 15 are never chosen",
        "codebook",
        CODEBOOK,
        "permute(0, 0xffffffffu, upper)",
        "permute(0, 0, upper)",
    ),
    Bug("top bits of the indices left in the selectors", "codebook", CODEBOOK, "indices & 0x77777777u", "indices"),
    Bug(
        "low and high bytes of a value swapped",
        "codebook",
        CODEBOOK,
        "permute(low, high, 0x6240u)",
        "permute(high, low, 0x6240u)",
    ),
    Bug(
        "halves of a register swapped",
        "codebook",
        CODEBOOK,
        "permute(low, high, 0x7351u)",
        "permute(low, high, 0x5173u)",
    ),
    Bug("the mask of registers 0 and 1 taken for 2 and 3", "codebook", CODEBOOK, "upper >> 16, a[3", "upper, a[3"),
    Bug("bytes 1 and 2 of the indices not exchanged", "codebook", CODEBOOK, "0, 0x3120u)", "0, 0x3210u)"),
    Bug(
        "part of the table instead of all of it",
        "codebook",
        CODEBOOK,
        "permute(table[2], table[3], select)",
        "permute(table[2], table[2], select)",
    ),
]
