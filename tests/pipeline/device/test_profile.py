"""Reading a block profile, and estimating cycles from it."""

import pytest

from pipeline.device import llvm
from pipeline.device.cycles import CORE_MODELS, block_cycles, estimate_cycles, hottest
from pipeline.device.llvm import disassemble, find_llvm_tool
from pipeline.device.profile import (
    INSTRUCTION_CLASSES,
    Block,
    BlockProfile,
    classify,
    count_classes,
    parse_profile,
)
from pipeline.errors import UserError

SDOT, LDR_Q, SUBS, B_NE, FADD, BAD = (
    "4e8f9400",  # sdot v0.4s, v0.16b, v15.16b
    "3cc10401",  # ldr q1, [x0], #16
    "f1000421",  # subs x1, x1, #1
    "54ffffc1",  # b.ne #-8
    "1e222820",  # fadd s0, s1, s2
    "ffffffff",
)
TEXT = f"""1010 4 {SDOT} {LDR_Q} {SUBS} {B_NE}
9000 2 {SUBS}
total 18
maps
1000-2000 r-xp 00000000 08:01 12 /tmp/session/lib.so
9000-a000 r-xp 00000000 08:01 13 /lib/libc.so.6
f000-ffff rw-p 00000000 00:00 0
"""


@pytest.fixture
def tools() -> None:
    """Skips where LLVM is not installed."""
    try:
        find_llvm_tool("llvm-mc"), find_llvm_tool("llvm-mca")
    except UserError as error:
        pytest.skip(str(error))


def test_instructions_are_attributed_to_libraries_per_inference() -> None:
    assert parse_profile(TEXT, inferences=2).instructions() == {"lib.so": 8.0, "libc.so.6": 1.0}


def test_truncated_profile_is_noticed() -> None:
    with pytest.raises(ValueError, match="incomplete"):
        parse_profile(TEXT.replace("total 18", "total 19"), 1)
    with pytest.raises(ValueError, match="incomplete"):
        parse_profile("", 1)


def test_classes_add_up_to_the_instructions(tools: None) -> None:
    profile = parse_profile(TEXT, 2)
    counts = count_classes(profile, "lib.so")
    names = ("dot product", "vector load", "other scalar", "branch")
    assert counts == dict.fromkeys(names, 2.0)
    assert sum(counts.values()) == profile.instructions()["lib.so"]


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("sdot v24.4s, v0.16b, v25.4b[1]", "dot product"),
        ("smmla v24.4s, v0.16b, v25.16b", "matrix product"),
        ("smlal2 v0.4s, v1.8h, v2.8h", "vector multiply"),
        ("sqdmulh v0.4s, v1.4s, v2.4s", "vector multiply"),
        ("mul v0.4s, v1.4s, v2.4s", "vector multiply"),
        ("mul x0, x1, x2", "other scalar"),
        ("smull x0, w1, w2", "other scalar"),
        ("ld1r { v0.4s }, [x0]", "vector load"),
        ("ldp q0, q1, [x2, #32]", "vector load"),
        ("ldrb w0, [x1, x2]", "scalar load"),
        ("ldr x0, [x1, d2]", "scalar load"),
        ("stp d8, d9, [sp, #-16]!", "vector store"),
        ("strb w0, [x1]", "scalar store"),
        ("fmov s0, w1", "other vector"),
        ("fmla v0.4s, v1.4s, v2.4s", "floating point"),
        ("scvtf s0, w1", "floating point"),
        ("bfi w0, w1, #4, #4", "other scalar"),
        ("bfmmla v0.4s, v1.8h, v2.8h", "floating point"),
        ("srshl v0.4s, v0.4s, v1.4s", "other vector"),
        ("tbl v0.16b, { v1.16b }, v2.16b", "other vector"),
        ("b.ne #-16", "branch"),
        ("bl #4", "branch"),
        ("cbnz x0, #8", "branch"),
        ("bic w0, w1, w2", "other scalar"),
        ("ret", "branch"),
        ("?", "other scalar"),
    ],
)
def test_class_of_instruction(instruction: str, expected: str) -> None:
    assert classify(instruction) == expected
    assert expected in INSTRUCTION_CLASSES


def test_words_without_meaning_do_not_shift_the_others(tools: None) -> None:
    text = disassemble([BAD, SDOT, FADD, SUBS])
    assert text == {
        BAD: "?",
        SDOT: "sdot v0.4s, v0.16b, v15.16b",
        FADD: "fadd s0, s1, s2",
        SUBS: "subs x1, x1, #1",
    }


def test_hottest_blocks_cover_the_share_asked_for() -> None:
    blocks = [Block("a", runs, (SUBS,)) for runs in (1, 90, 9)]
    assert [block.runs for block in hottest(blocks, 0.9)] == [90]
    assert [block.runs for block in hottest(blocks, 0.95)] == [90, 9]
    assert hottest([], 0.9) == []


def test_dependent_chain_costs_the_latency_of_the_core(tools: None) -> None:
    # by LLVM's model of Neoverse N1: an integer multiplication has a latency of 2 cycles
    assert block_cycles([["mul w0, w0, w0"]], "neoverse-n1")[0] == pytest.approx(2, rel=0.05)


def test_cycles_scale_with_runs_and_inferences(tools: None) -> None:
    block = Block("lib.so", 10, (SDOT, LDR_Q, SUBS, B_NE))
    once = estimate_cycles(BlockProfile(1, (block,)), "lib.so", ["cortex-a76"])
    halved = estimate_cycles(BlockProfile(2, (block,)), "lib.so", ["cortex-a76"])
    assert once["cortex-a76"] == pytest.approx(2 * halved["cortex-a76"]) and once["cortex-a76"] > 0


def test_every_core_has_a_model(tools: None) -> None:
    profile = BlockProfile(1, (Block("lib.so", 1, (SDOT, BAD)), Block("lib.so", 1, (BAD,))))
    cycles = estimate_cycles(profile, "lib.so", CORE_MODELS)
    assert set(cycles) == set(CORE_MODELS) and min(cycles.values()) > 0


def test_missing_or_old_llvm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        llvm.shutil, "which", lambda name: f"/bin/{name}" if "-" not in name[5:] else None
    )
    monkeypatch.setattr(llvm, "_release", lambda path: 14)
    with pytest.raises(UserError, match="llvm-mca of LLVM 19 or newer .*apt-get install llvm-22"):
        find_llvm_tool("llvm-mca")
    monkeypatch.setattr(llvm, "_release", lambda path: 19)
    assert find_llvm_tool("llvm-mca") == "/bin/llvm-mca"
