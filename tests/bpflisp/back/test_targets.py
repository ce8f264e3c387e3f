"""What each --mcpu brings: an instruction is used from its version on, and what stands for it before is right too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bpflisp import CompileError, compile_text
from bpflisp.back import BackError, compile_function
from bpflisp.ir.parse import parse_function
from bpflisp.ir.ssa import Atomic
from bpflisp.ir.validate import InvalidFunctionError, validate
from bpflisp.opt import run
from bpflisp.spec.isa import ALU32, JMP32, Kind, Op, Row

from .compared import run_code, run_function

VERSIONS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Feature:
    """A function's body, and which instructions it is compiled to from version `since` on, and not before."""

    name: str
    since: int
    body: str
    fits: Callable[[Row], bool]


FEATURES = (
    Feature(
        "stores of a number", 1,
        "  slot $0 8 align 8\nb0:\n  store4 $0 + 0, 7\n  %0 = call helper 1 (map @m, $0)\n  return 1",
        lambda row: row.kind is Kind.STORE_IMM,
    ),
    Feature(
        "less-than", 2,
        "b0:\n  %0 = ctxload4.scalar %ctx + 12\n  branch lt %0, 7, b1, b2\nb1:\n  return 1\nb2:\n  return 2",
        lambda row: row.kind is Kind.BRANCH and row.op in (Op.LT, Op.LE),
    ),
    Feature(
        "arithmetic of 32 bits", 3,
        "b0:\n  %0 = ctxload4.scalar %ctx + 12\n  %1 = mul32 %0, %0\n  return %1",
        lambda row: row.kind is Kind.ALU and row.width == 32,
    ),
    Feature(
        "comparisons of 32 bits", 3,
        "b0:\n  %0 = call helper 7 ()\n  branch eq32 %0, 7, b1, b2\nb1:\n  return 1\nb2:\n  return %0",
        lambda row: row.kind is Kind.BRANCH and row.width == 32,
    ),
    Feature(
        "moves that extend the sign", 4,
        "b0:\n  %0 = call helper 7 ()\n  %1 = sext8 %0\n  return %1",
        lambda row: row.op in (Op.MOVSX8, Op.MOVSX16, Op.MOVSX32),
    ),
    Feature(
        "loads that extend the sign", 4,
        "b0:\n  %0 = ctxload4 %ctx + 0\n  %1 = loads2 %0 + 0\n  return %1",
        lambda row: row.kind is Kind.LOAD_SIGNED,
    ),
    Feature(
        "the byte swap of any host", 4,
        "b0:\n  %0 = call helper 7 ()\n  %1 = bswap32 %0\n  return %1",
        lambda row: row.kind is Kind.END and row.op is Op.SWAP,
    ),
    Feature(
        "signed division", 4,
        "b0:\n  %0 = ctxload4 %ctx + 0\n  %1 = load8 %0 + 0\n  %2 = load8 %0 + 8\n  %3 = sdiv %1, %2\n"
        "  %4 = smod %1, %2\n  %5 = xor %3, %4\n  return %5",
        lambda row: row.op in (Op.SDIV, Op.SMOD),
    ),
)  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_it_is_used_from_its_version_on(feature: Feature, version: int) -> None:
    function = parse_function(f"program @f(%ctx) {{\n{feature.body}\n}}\n")
    expected = run_function(function, 5)
    run(function, 2, check=True)
    code = compile_function(function, f"v{version}")
    used = [insn for insn in code.insns if feature.fits(insn.row)]
    assert bool(used) == (version >= feature.since)
    assert all(insn.row.isa <= version for insn in code.insns)
    assert run_code(code, 5) == expected


FETCHING = ("atomic.add8.fetch", "atomic.or8.fetch", "atomic.xchg8", "atomic.or8", "atomic.and8", "atomic.xor8")


@pytest.mark.parametrize("operation", FETCHING)
def test_atomics_but_the_plain_addition_need_v3(operation: str) -> None:
    result = "%0 = " if "fetch" in operation or "xchg" in operation else ""
    body = f"  slot $0 8 align 8\nb0:\n  zero $0 + 0, 8\n  {result}{operation} $0 + 0, 3\n  return 0"
    function = parse_function(f"program @f(%ctx) {{\n{body}\n}}\n")
    for version in (3, 4):
        kinds = [insn.row.kind for insn in compile_function(function, f"v{version}").insns]
        assert Kind.ATOMIC in kinds
    for version in (1, 2):
        with pytest.raises(BackError, match="needs --mcpu v3"):
            compile_function(function, f"v{version}")


def test_the_plain_addition_is_there_at_every_version() -> None:
    body = "  slot $0 8 align 8\nb0:\n  zero $0 + 0, 8\n  atomic.add8 $0 + 0, 3\n  return 0"
    function = parse_function(f"program @f(%ctx) {{\n{body}\n}}\n")
    for version in VERSIONS:
        atomics = [insn for insn in compile_function(function, f"v{version}").insns if insn.row.kind is Kind.ATOMIC]
        assert [insn.imm for insn in atomics] == [0]


@pytest.mark.parametrize("size", [1, 2])
def test_bytes_and_half_words_have_no_atomics(size: int) -> None:
    """In the intermediate form the validator says so, in the language an error at the type."""
    function = parse_function(
        "program @f(%ctx) {\n  slot $0 8 align 8\nb0:\n  zero $0 + 0, 8\n  atomic.add8 $0 + 0, 3\n  return 0\n}\n"
    )
    next(instr for instr in function.instructions() if isinstance(instr, Atomic)).size = size
    with pytest.raises(InvalidFunctionError, match="out of range"):
        validate(function)
    name = f"u{size * 8}"
    map = "(defmap m :type :array :key-size 4 :value-size 8 :max-entries 1)"
    text = f"{map}\n(defprog p (:type :xdp)\n  (when-let ((v (map-lookup m 0)))\n    (atomic-add v 0 1 {name}))\n  1)"
    with pytest.raises(CompileError, match=rf"error\[atomic-size\]: there is no atomic operation on a {name}"):
        compile_text(text)


def test_below_v3_nothing_is_of_the_narrow_classes() -> None:
    """So that no jump is of class JMP32 either, which is how v4 writes the far one (test_emit has it)."""
    body = "b0:\n  %0 = call helper 7 ()\n  branch slt32 %0, 7, b1, b2\nb1:\n  return 1\nb2:\n  return %0"
    function = parse_function(f"program @f(%ctx) {{\n{body}\n}}\n")
    for version in (1, 2):
        code = compile_function(function, f"v{version}")
        assert not any(insn.opcode & 7 in (JMP32, ALU32) for insn in code.insns)
