"""Each detector of the emulator on a small kernel that deserves its report, and on its twin that does not."""

import numpy as np
import pytest
from raw_ptx import RawModule, entry

pytestmark = pytest.mark.quick

START = (
    "\tld.param.u64 %rd1, [args];\n\tld.param.u64 %rd2, [args+8];\n\tmov.u32 %r1, %tid.x;\n"
    "\tshl.b32 %r2, %r1, 2;\n\tmul.wide.u32 %rd3, %r1, 4;\n\tadd.s64 %rd4, %rd1, %rd3;\n"
    "\tadd.s64 %rd5, %rd2, %rd3;\n\txor.b32 %r3, %r2, 4;\n\tshl.b32 %r4, %r1, 4;\n"
    "\tmul.wide.u32 %rd6, %r1, 16;\n\tadd.s64 %rd7, %rd1, %rd6;\n"
)
END = "\n\tret;"
STORE = "\tst.global.u32 [%rd5], %r10;"
COPY = "\tcp.async.cg.shared.global [%r4], [%rd7], 16, %r11;\n\tcp.async.commit_group;\n"
MMA = (
    "\tmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r20,%r21,%r22,%r23}, {%r1,%r1,%r1,%r1}, {%r1,%r1}, "
    "{%r1,%r1,%r1,%r1};\n"
)

# name: (body, threads, words in the report of the fault; "" for a clean run)
CASES = {
    "neighbour_with_barrier": (
        "\tst.shared.f32 [%r2], %r1;\n\tbar.sync 0;\n\tld.shared.u32 %r10, [%r3];\n" + STORE, 64, ""),
    "neighbour_without_barrier": (
        "\tst.shared.f32 [%r2], %r1;\n\tld.shared.u32 %r10, [%r3];\n" + STORE, 64, "shared race"),
    "write_after_others_read": (
        "\tst.shared.f32 [%r2], %r1;\n\tbar.sync 0;\n\tld.shared.u32 %r10, [%r3];\n"
        "\tst.shared.f32 [%r2], %r10;\n" + STORE, 64, "shared race"),
    "everybody_reads_one_word": (
        "\tst.shared.f32 [%r2], %r1;\n\tbar.sync 0;\n\tmov.u32 %r5, 0;\n\tld.shared.u32 %r10, [%r5];\n"
        "\tbar.sync 0;\n\tst.shared.f32 [%r2], %r10;\n" + STORE, 64, ""),
    "never_written": ("\tld.shared.u32 %r10, [%r2];\n" + STORE, 32, "uninitialised"),
    "beyond_shared": ("\tst.shared.f32 [%r2+4096], %r1;\n", 32, "shared bounds"),
    "misaligned_shared": ("\tst.shared.f32 [%r2+2], %r1;\n", 32, "misaligned"),
    "beyond_global": ("\tld.global.nc.u32 %r10, [%rd4+4096];\n" + STORE, 32, "global bounds"),
    "misaligned_global": ("\tld.global.nc.v2.u32 {%r10, %r12}, [%rd4+4];\n" + STORE, 32, "misaligned"),
    "uninitialised_global": ("\tld.global.nc.u32 %r10, [%rd5];\n", 32, "uninitialised"),
    "write_twice": ("\tst.global.u32 [%rd2], %r1;\n", 32, "global race"),
    "read_what_another_wrote": (
        "\tst.global.u32 [%rd5], %r1;\n\tbar.sync 0;\n\txor.b32 %r6, %r1, 1;\n\tmul.wide.u32 %rd8, %r6, 4;\n"
        "\tadd.s64 %rd9, %rd2, %rd8;\n\tld.global.nc.u32 %r10, [%rd9];\n", 32, "global race"),
    "some_miss_the_barrier": (
        "\tsetp.lt.u32 %p1, %r1, 5;\n\t@%p1 bra $SKIP;\n\tbar.sync 0;\n$SKIP:\n", 64, "deadlock"),
    "some_miss_the_mma": ("\tsetp.lt.u32 %p1, %r1, 5;\n\t@%p1 bra $SKIP;\n" + MMA + "$SKIP:\n", 32, "deadlock"),
    "two_different_mmas": (
        "\tsetp.lt.u32 %p1, %r1, 5;\n\t@%p1 bra $ELSE;\n" + MMA + "\tbra.uni $END;\n$ELSE:\n" + MMA + "$END:\n",
        32, "divergent"),
    "spins_for_ever": ("$LOOP:\n\tbra.uni $LOOP;\n", 32, "livelock"),
    "copy_waited_for": (
        "\tmov.u32 %r11, 16;\n" + COPY + "\tcp.async.wait_group 0;\n\tld.shared.u32 %r10, [%r4];\n" + STORE, 32, ""),
    "copy_waited_for_one_group_late": (
        "\tmov.u32 %r11, 16;\n" + COPY + "\tcp.async.wait_group 1;\n\tld.shared.u32 %r10, [%r4];\n" + STORE,
        32, "async race"),
    "copy_of_a_neighbour_without_barrier": (
        "\tmov.u32 %r11, 16;\n" + COPY + "\tcp.async.wait_group 0;\n\txor.b32 %r5, %r4, 16;\n"
        "\tld.shared.u32 %r10, [%r5];\n" + STORE, 32, "shared race"),
    "copy_never_waited_for": ("\tmov.u32 %r11, 16;\n" + COPY, 32, "copy not waited for"),
    "copy_beyond_its_source": (
        "\tmov.u32 %r11, 16;\n\tadd.s64 %rd7, %rd7, 4096;\n" + COPY + "\tcp.async.wait_group 0;\n",
        32, "global bounds"),
    "copy_of_nothing_reads_nothing": (
        "\tmov.u32 %r11, 0;\n\tadd.s64 %rd7, %rd7, 4096;\n" + COPY + "\tcp.async.wait_group 0;\n"
        "\tld.shared.u32 %r10, [%r4];\n" + STORE, 32, ""),
    "parameter_out_of_range": ("\tld.param.u32 %r10, [args+64];\n", 32, "param bounds"),
}  # fmt: skip


@pytest.fixture(scope="module")
def module():
    bodies = ((name, START + case[0] + END) for name, case in CASES.items())
    return RawModule(*(entry(name, body, module="raw_2", shared=1024) for name, body in bodies),
                     module="raw_2")  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_detectors(module, name):
    _, threads, words = CASES[name]
    data, out = np.arange(256, dtype=np.uint32), np.zeros(256, np.uint32)
    for seed in range(4):  # a race is reported in every order, not in the unlucky one
        said = module.launch(name, [data, out], threads=threads, outputs=[1], seed=seed)
        if not words:
            assert said == ""
        else:
            assert words in said


def test_a_report_names_cta_thread_and_instruction(module):
    data, out = np.arange(256, dtype=np.uint32), np.zeros(256, np.uint32)
    said = module.launch("never_written", [data, out], outputs=[1])
    assert "CTA 0,0 thread " in said
    assert "at ld.shared.u32 (instruction " in said


def test_zero_fill_and_late_arrival():
    """A partial cp.async leaves zeros, and what it brings is there after the wait."""
    body = (
        START + "\tmov.u32 %r11, 8;\n" + COPY + "\tcp.async.wait_group 0;\n"
        "\tld.shared.v4.u32 {%r20, %r21, %r22, %r23}, [%r4];\n\tmul.wide.u32 %rd10, %r1, 16;\n"
        "\tadd.s64 %rd11, %rd2, %rd10;\n\tst.global.v4.u32 [%rd11], {%r20, %r21, %r22, %r23};" + END
    )
    data, out = np.arange(1, 129, dtype=np.uint32), np.zeros((32, 4), np.uint32)
    module = RawModule(entry("fill", body, module="raw_3", shared=1024), module="raw_3")
    assert module.launch("fill", [data, out], outputs=[1]) == ""
    assert np.array_equal(out[:, :2], data.reshape(32, 4)[:, :2])
    assert not out[:, 2:].any()


@pytest.mark.parametrize("truncate", [False, True])
def test_truncating_sums_lose_what_tensor_cores_may_lose(truncate):
    """2^24 + 1 + 1: one rounding gives 2^24 + 2; a unit cut at each addition gives less."""
    body = (
        START
        + (
            "\tsetp.lt.u32 %p1, %r1, 32;\n\tmov.u32 %r10, 1006648320;\n"  # 0x3c003c00: two halves of 1
            "\tmov.u32 %r11, 0;\n\tmov.b32 %r12, 0f4B800000;\n"  # 2^24
            "\tmov.u32 %r13, 0;\n"
            "\tmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r20,%r21,%r22,%r23}, {%r10,%r10,%r13,%r13}, "
            "{%r10,%r13}, {%r12,%r12,%r12,%r12};\n\tst.global.f32 [%rd5], %r20;"
        )
        + END
    )
    out = np.zeros(32, np.float32)
    module = RawModule(entry("sums", body, module="raw_4"), module="raw_4")
    assert module.launch("sums", [np.zeros(32, np.uint32), out], outputs=[1], truncate_sums=truncate) == ""
    exact = 2.0**24 + 8
    assert np.all(out == exact) or (truncate and np.all((out < exact) & (out >= 2.0**24)))
