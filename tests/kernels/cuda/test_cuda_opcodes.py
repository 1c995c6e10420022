"""Each opcode of the translator's table against the PTX ISA, on hand-written PTX.

The oracle is exact arithmetic (`fractions`) rounded here, or plain Python integers: nothing of it is shared
with emulator/semantics.h. The last tests close the circle: what the kernels use, what the table knows and what
is tested are one set.
"""

import itertools
import re
import struct

import numpy as np
import pytest
from emulation import build
from ptx import OPCODES, PtxError, parse_module, translate
from ptx.instructions import Memory, Value
from ptx_oracles import BFLOAT, FLOATS, HALF, LOP3_TABLE, ORACLES, SINGLE, lop3, value_of
from raw_ptx import RawModule, entry

pytestmark = pytest.mark.quick

VECTORS = 96  # three warps
WORDS = [0, 1, 2, 15, 31, 32, 33, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


WIDTHS = {"p": 1, "h": 16, "w": 32, "d": 64}


def kernel_name(opcode: str) -> str:
    return re.sub(r"\W+", "_", opcode)


def value_entry(opcode: str, semantics: Value) -> str:
    """out[t] = opcode(in[t][0], in[t][1], ...), 8 bytes each."""
    registers = {"p": "%p{}", "h": "%rs{}", "w": "%r{}", "d": "%rd{}"}
    load = {
        "p": "ld.global.nc.u32 %r{0}, [%rd4+{1}];\n\tsetp.ne.s32 %p{0}, %r{0}, 0;",
        "h": "ld.global.u16 %rs{0}, [%rd4+{1}];",
        "w": "ld.global.nc.u32 %r{0}, [%rd4+{1}];",
        "d": "ld.global.u64 %rd{0}, [%rd4+{1}];",
    }
    kinds = semantics.operands
    loads = "\n".join("\t" + load[k].format(10 + i, 8 * i) for i, k in enumerate(kinds) if k != "i")
    sources = [str(LOP3_TABLE) if k == "i" else registers[k].format(10 + i) for i, k in enumerate(kinds)]
    result = registers[semantics.result].format(9)
    store = {
        "p": "selp.b32 %r9, 1, 0, %p9;\n\tst.global.u32 [%rd5], %r9;",
        "h": "st.global.u16 [%rd5], %rs9;",
        "w": "st.global.u32 [%rd5], %r9;",
        "d": "cvt.u32.u64 %r9, %rd9;\n\tshr.s64 %rd9, %rd9, 32;\n\tcvt.u32.u64 %r8, %rd9;\n"
        "\tst.global.v2.u32 [%rd5], {%r9, %r8};",
    }[semantics.result]
    return entry(
        kernel_name(opcode),
        f"\tld.param.u64 %rd1, [args];\n\tld.param.u64 %rd2, [args+8];\n\tmov.u32 %r1, %tid.x;\n"
        f"\tmul.wide.u32 %rd3, %r1, 32;\n\tadd.s64 %rd4, %rd1, %rd3;\n"
        f"\tmul.wide.u32 %rd3, %r1, 8;\n\tadd.s64 %rd5, %rd2, %rd3;\n{loads}\n"
        f"\t{opcode} {result}, {', '.join(sources)};\n\t{store}\n\tret;",
    )


def float_samples(form, rng, count):
    """Zeros, subnormals, ties, the largest number, and random numbers of nearby exponents."""
    precision, lowest, exponent_bits = form
    one = -lowest + 1 << precision - 1
    largest = (((1 << exponent_bits) - 1) << (precision - 1)) - 1
    edges = [0, 1, 2, (1 << precision - 1) - 1, 1 << precision - 1, one, one + 1, one - 1, largest, largest - 1]
    spread = rng.integers(-3 << precision - 1, 3 << precision - 1, count)
    values = [*edges, *(one + int(s) for s in spread), *(int(v) for v in rng.integers(0, largest + 1, count))]
    sign = 1 << (precision - 1 + exponent_bits)
    return [v | sign * int(s) for v, s in zip(values, rng.integers(0, 2, len(values)), strict=True)]


def operands_for(opcode: str, semantics: Value) -> list[list[int]]:
    """VECTORS operand lists: edge values against each other, then random ones."""
    rng = np.random.default_rng(len(opcode))
    kinds = semantics.operands.replace("i", "")
    if opcode in FLOATS:
        samples = float_samples(FLOATS[opcode], rng, 150)
        pick = lambda: [int(v) for v in rng.choice(samples, len(kinds))]  # noqa: E731
        if not opcode.endswith("x2"):
            return [[samples[i]] * len(kinds) if i < 10 and len(kinds) == 1 else pick() for i in range(VECTORS)]
        return [[a | b << 16 for a, b in zip(pick(), pick(), strict=True)] for _ in range(VECTORS)]
    edges = list(itertools.product(WORDS, repeat=min(len(kinds), 2)))
    chosen = []
    for i in range(VECTORS):
        row = [int(v) for v in rng.integers(0, 1 << 64, len(kinds), dtype=np.uint64)]
        if i < VECTORS // 2:
            edge = edges[int(rng.integers(len(edges)))]
            row[: len(edge)] = edge
        chosen.append([v & ((1 << WIDTHS[k]) - 1) for v, k in zip(row, kinds, strict=True)])
    return chosen


VALUE_OPCODES = {opcode: s for opcode, s in OPCODES.items() if isinstance(s, Value)}


@pytest.fixture(scope="module")
def values():
    return RawModule(*(value_entry(opcode, s) for opcode, s in VALUE_OPCODES.items()))


@pytest.mark.parametrize("opcode", VALUE_OPCODES)
def test_values(values, opcode):
    semantics = VALUE_OPCODES[opcode]
    rows = operands_for(opcode, semantics)
    packed = np.zeros((VECTORS, 4), np.uint64)
    for i, row in enumerate(rows):
        packed[i, : len(row)] = row
    out = np.zeros(VECTORS, np.uint64)
    assert values.launch(kernel_name(opcode), [packed, out], threads=VECTORS, outputs=[1]) == ""
    width = WIDTHS[semantics.result]
    stored = 32 if semantics.result == "p" else width
    for row, got in zip(rows, out, strict=True):
        expected = int(ORACLES[opcode](*row)) & ((1 << width) - 1)
        actual = int(got) & ((1 << stored) - 1)
        if opcode in FLOATS and is_nan(opcode, expected):
            continue  # a NaN's payload is not specified
        assert actual == expected, f"{opcode} {[hex(v) for v in row]}: {actual:#x}, expected {expected:#x}"


def is_nan(opcode: str, bits: int) -> bool:
    form = {"cvt.rn.f16.f32": HALF, "cvt.rn.bf16.f32": BFLOAT, "cvt.f32.f16": SINGLE}.get(opcode, FLOATS[opcode])
    halves = [bits & 0xFFFF, bits >> 16] if opcode.endswith("x2") else [bits]
    return any(isinstance(v := value_of(b, form), float) and v != v for b in halves)


def test_every_truth_table():
    tables = [0, 0xEA, 0x80, 0xC0, 0xF8, 0x96, 0xFF]
    lines = "\n".join(
        f"\tlop3.b32 %r{20 + i}, %r10, %r11, %r12, {t};\n\tst.global.u32 [%rd2+{4 * i}], %r{20 + i};"
        for i, t in enumerate(tables)
    )
    body = (
        "\tld.param.u64 %rd1, [args];\n\tld.param.u64 %rd2, [args+8];\n\tmov.u32 %r1, %tid.x;\n"
        "\tsetp.ne.s32 %p1, %r1, 0;\n\t@%p1 bra $DONE;\n"
        "\tld.global.nc.u32 %r10, [%rd1];\n\tld.global.nc.u32 %r11, [%rd1+4];\n\tld.global.nc.u32 %r12, [%rd1+8];\n"
        f"{lines}\n$DONE:\n\tret;"
    )
    inputs, out = np.array([0xF0F0F0F0, 0xCCCCCCCC, 0xAAAA5555], np.uint32), np.zeros(len(tables), np.uint32)
    assert RawModule(entry("tables", body)).launch("tables", [inputs, out], outputs=[1]) == ""
    assert [int(v) for v in out] == [lop3(*map(int, inputs), t) for t in tables]


MEMORY_OPCODES = {opcode: s for opcode, s in OPCODES.items() if isinstance(s, Memory)}


def memory_entry(opcode: str, semantics: Memory) -> str:
    """Moves size * count bytes per thread from in[16 t] to out[16 t], through `opcode` once."""
    prefix = {1: "%rs", 2: "%rs", 4: "%r", 8: "%rd"}[semantics.size]
    names = [f"{prefix}{10 + i}" for i in range(semantics.count)]
    operand = "{" + ", ".join(names) + "}" if semantics.count > 1 else names[0]
    places = {"global": "[%rd4]" if not semantics.store else "[%rd5]", "shared": "[%r3]", "param": "[args]"}
    element = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}[semantics.size]
    one_by_one = lambda verb, base: "\n".join(  # noqa: E731
        f"\t{verb.format(element)} " + (f"{n}, [{base}+{semantics.size * i}];" if verb.startswith("ld") else
                                       f"[{base}+{semantics.size * i}], {n};")
        for i, n in enumerate(names)
    )  # fmt: skip
    use = f"\t{opcode} " + (f"{places[semantics.space]}, {operand};" if semantics.store else
                            f"{operand}, {places[semantics.space]};")  # fmt: skip
    move_in = (
        "\tld.global.nc.v4.u32 {%r20, %r21, %r22, %r23}, [%rd4];\n"
        "\tst.shared.v2.u32 [%r3], {%r20, %r21};\n\tst.shared.v2.u32 [%r3+8], {%r22, %r23};\n"
    )
    move_out = (
        "\tld.shared.v4.u32 {%r20, %r21, %r22, %r23}, [%r3];\n\tst.global.v4.u32 [%rd5], {%r20, %r21, %r22, %r23};"
    )
    store = {1: "st.global.u16", 2: "st.global.u16", 4: "st.global.u32", 8: ""}[semantics.size]
    results = "\n".join(f"\t{store} [%rd5+{max(semantics.size, 2) * i}], {n};" for i, n in enumerate(names))
    if semantics.size == 8:
        results = ("\tcvt.u32.u64 %r9, %rd10;\n\tshr.s64 %rd10, %rd10, 32;\n\tcvt.u32.u64 %r8, %rd10;\n"
                   "\tst.global.v2.u32 [%rd5], {%r9, %r8};")  # fmt: skip
    if semantics.space == "shared":
        middle = move_in + (one_by_one("ld.global.nc.{}", "%rd4") + "\n" if semantics.store else "") + use + "\n"
        middle += move_out if semantics.store else results
    else:
        middle = (one_by_one("ld.global.nc.{}" if semantics.size > 1 else "ld.global.{}", "%rd4") + "\n" + use
                  if semantics.store else use + "\n" + results)  # fmt: skip
    middle = middle.replace("ld.global.nc.u64", "ld.global.u64")
    return entry(
        kernel_name(opcode),
        "\tld.param.u64 %rd1, [args];\n\tld.param.u64 %rd2, [args+8];\n\tmov.u32 %r1, %tid.x;\n"
        "\tmul.wide.u32 %rd3, %r1, 16;\n\tadd.s64 %rd4, %rd1, %rd3;\n\tadd.s64 %rd5, %rd2, %rd3;\n"
        f"\tshl.b32 %r3, %r1, 4;\n{middle}\n\tret;",
        module="raw_1",
        shared=512,
    )


@pytest.fixture(scope="module")
def memory():
    return RawModule(*(memory_entry(opcode, s) for opcode, s in MEMORY_OPCODES.items()), module="raw_1")


@pytest.mark.parametrize("opcode", MEMORY_OPCODES)
def test_memory(memory, opcode):
    semantics = MEMORY_OPCODES[opcode]
    data = np.random.default_rng(1).integers(0, 256, (32, 16), dtype=np.uint8)
    out = np.zeros_like(data)
    assert memory.launch(kernel_name(opcode), [data, out], outputs=[1]) == ""
    size = semantics.size * semantics.count
    source = data if semantics.space != "param" else None
    if source is None:  # the parameter begins with a pointer nobody knows here: all threads agree, and not on zero
        assert np.all(out[:, :size] == out[0, :size])
        assert out[0, :size].any()
    else:
        assert np.array_equal(out[:, :size], source[:, :size])


def test_signed_loads_extend_and_unsigned_loads_do_not():
    lines = []
    for i, opcode in enumerate(("ld.global.s32", "ld.global.nc.u32")):
        lines.append(f"\t{opcode} %rd{10 + i}, [%rd1];\n\tshr.s64 %rd{10 + i}, %rd{10 + i}, 32;")
        lines.append(f"\tcvt.u32.u64 %r{10 + i}, %rd{10 + i};\n\tst.global.u32 [%rd2+{4 * i}], %r{10 + i};")
    body = (
        "\tld.param.u64 %rd1, [args];\n\tld.param.u64 %rd2, [args+8];\n\tmov.u32 %r1, %tid.x;\n"
        "\tsetp.ne.s32 %p1, %r1, 0;\n\t@%p1 bra $DONE;\n" + "\n".join(lines) + "\n$DONE:\n\tret;"
    )
    out = np.zeros(2, np.uint32)
    module = RawModule(entry("extend", body))
    assert module.launch("extend", [np.array([-5], np.int32), out], outputs=[1]) == ""
    assert list(out) == [0xFFFFFFFF, 0]


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_mma_fragments(kind):
    """The PTX ISA's fragment tables, read from the text: who holds which element of a, b, c and d."""
    loads = "\n".join(f"\tld.global.nc.u32 %r{10 + i}, [%rd4+{4 * i}];" for i in range(10))
    mma = (
        f"\tmma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 {{%r20,%r21,%r22,%r23}}, "
        "{%r10,%r11,%r12,%r13}, {%r14,%r15}, {%r16,%r17,%r18,%r19};"
    )
    body = (
        "\tld.param.u64 %rd1, [args];\n\tld.param.u64 %rd2, [args+8];\n\tmov.u32 %r1, %tid.x;\n"
        "\tmul.wide.u32 %rd3, %r1, 40;\n\tadd.s64 %rd4, %rd1, %rd3;\n"
        f"\tmul.wide.u32 %rd3, %r1, 16;\n\tadd.s64 %rd5, %rd2, %rd3;\n{loads}\n{mma}\n"
        "\tst.global.v4.u32 [%rd5], {%r20, %r21, %r22, %r23};\n\tret;"
    )
    rng = np.random.default_rng(3)
    a, b = rng.integers(-8, 9, (16, 16)), rng.integers(-8, 9, (16, 8))
    c = rng.standard_normal((16, 8)).astype(np.float32)

    def sixteen(v):
        bits = struct.unpack("<I", struct.pack("<f", float(v)))[0] >> 16
        return int(np.float16(v).view(np.uint16)) if kind == "f16" else bits

    lanes = np.zeros((32, 10), np.uint32)
    for lane in range(32):
        group, quad = lane >> 2, lane & 3
        for i in range(8):  # a0..a7 of the ISA's figure
            row = group if i in (0, 1, 4, 5) else group + 8
            column = quad * 2 + (i & 1) + (8 if i >= 4 else 0)
            lanes[lane, i // 2] |= np.uint32(sixteen(a[row, column]) << 16 * (i & 1))
        for i in range(4):  # b0..b3
            row = quad * 2 + (i & 1) + (8 if i >= 2 else 0)
            lanes[lane, 4 + i // 2] |= np.uint32(sixteen(b[row, group]) << 16 * (i & 1))
        for i in range(4):
            lanes[lane, 6 + i] = c[group + 8 * (i >> 1), quad * 2 + (i & 1)].view(np.uint32)
    out = np.zeros((32, 4), np.float32)
    assert RawModule(entry("mma", body)).launch("mma", [lanes, out], outputs=[1]) == ""
    exact = (a @ b + c.astype(np.float64)).astype(np.float32)
    for lane, i in itertools.product(range(32), range(4)):
        assert out[lane, i] == exact[(lane >> 2) + 8 * (i >> 1), (lane & 3) * 2 + (i & 1)]


def used_by_kernels() -> set[str]:
    found = set()
    for variant in (build.Variant(e, b) for e in build.ELEMENTS for b in build.WIDTHS):
        for item in itertools.chain(*(e.body for e in parse_module(build.ptx(variant).read_text()).entries)):
            if hasattr(item, "opcode"):
                found.add(item.opcode)
    return found


def test_the_table_is_exactly_what_the_kernels_use():
    """An opcode that no kernel uses is code that no kernel tests."""
    assert set(OPCODES) == used_by_kernels()


def test_an_array_before_the_entries_is_each_user_s_own():
    """As nvcc writes one of a function that two entries have inlined; an entry that does not name it has none."""
    head = "\n.version 9.0\n.target sm_80\n.shared .align 4 .b8 sums[64];\n.extern .shared .align 16 .b8 rest[];\n"
    uses = entry("a", "\tmov.u32 %r1, sums;") + entry("b", "\tmov.u32 %r1, sums;")
    module = parse_module(head + uses + entry("c", "\tmov.u32 %r1, sums2;"))
    assert [item.shared for item in module.entries] == [{"sums": 0}, {"sums": 0}, {}]
    assert [item.static_shared_bytes for item in module.entries] == [64, 64, 0]


def test_every_value_opcode_has_an_oracle():
    assert set(ORACLES) == set(VALUE_OPCODES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("add.sat.s32 %r1, %r2, %r3;", "unknown opcode 'add.sat.s32'"),
        ("add.s32 %r1, %r2;", "2 source operands expected"),
        ("add.s32 %r1, %rd2, %r3;", "%rd2 is b64"),
        ("bar.sync 1;", "only barrier 0"),
        ("bar.sync 0, 64;", "only barrier 0"),
        ("mov.u32 %r1, %clock;", "register '%clock'"),
        ("add.s32 %r1, %r99, 1;", "beyond its declaration"),
        ("cp.async.cg.shared.global [%r1], [%rd1], 8, %r2;", "only 16-byte copies"),
        (".local .b8 depot[8];", "directive"),
    ],
)
def test_what_is_unknown_fails_the_build(line, message):
    text = "\n.version 9.0\n.target sm_80\n" + entry("x", "\t" + line)
    with pytest.raises(PtxError, match=re.escape(message)):
        translate(parse_module(text), source="x.ptx")
