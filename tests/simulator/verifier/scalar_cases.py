"""What the kernel answers of scalars: random programs, loaded with the state at every instruction, and read back.

A program makes unknown numbers, narrows them by comparisons and computes with them. Every comparison leaves for an exit
of its own, so that no path is pruned and both outcomes are printed.

    python -m tests.simulator.verifier.scalar_cases --programs 2000 --seed 1 [--write FILE]

holds the domain against the running kernel, and writes a sample of its answers as a fixture.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bpflisp.spec.insn import Insn, encode
from bpflisp.spec.isa import ALU32, ALU64, ALU_CODES, JMP, JMP32, JUMP_CODES, LD_IMM64_OPCODE, SRC_REG, Op
from simulator.program import Program
from simulator.verifier.scalar import Domain, Scalar, const, describe
from tests.simulator.verifier.scalar_text import Printed, registers_of, scalar_of

CALL_RANDOM = Insn(0x85, imm=7)
EXIT, MOV64, MOV32, NEG_CODE, END_CODE = 0x95, 0xBF, 0xBC, 0x80, 0xD0

EDGES = (
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 100, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFE,
    0x7FFFFFFF, -1, -2, -3, -8, -16, -128, -129, -256, -32768, -32769, -65536, -0x7FFFFFFF, -0x80000000,
)  # fmt: skip
WIDE_EDGES = (
    *EDGES, 0x80000000, 0x80000001, 0xFFFFFFFF, 0x100000000, 0x100000001, 0x1FFFFFFFF, 0x7FFFFFFFFFFFFFFF, 1 << 63,
    (1 << 63) + 1, 0xFFFFFFFF00000000, 0x7FFFFFFF00000000, 0xFFFF0000, 0x8000000080000000,
)  # fmt: skip
PLAIN = (Op.ADD, Op.SUB, Op.MUL, Op.AND, Op.OR, Op.XOR, Op.LSH, Op.RSH, Op.ARSH)
DIVISIONS = {Op.DIV: (Op.DIV, 0), Op.MOD: (Op.MOD, 0), Op.SDIV: (Op.DIV, 1), Op.SMOD: (Op.MOD, 1)}


@dataclass(frozen=True, slots=True)
class Step:
    """What an instruction of a program asks: an operation on registers, or on a register and an immediate.

    `kind` is alu, neg, end, mov32, sext or branch; `bits` the size of a change of byte order or sign extension.
    """

    kind: str
    op: Op
    width: int
    dst: int
    src: int | None
    imm: int = 0
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One answer of the kernel: operands as it knew them, and what it knew after.

    Of a comparison `kind` is "taken" or "fall" (both operands on that way; "taken-same" and "fall-same" of a register
    and itself), or "decide" (which way it goes).
    """

    kind: str
    op: str
    width: int
    bits: int
    a: Scalar
    b: Scalar
    want: tuple[Scalar, ...] | bool | None

    def to_json(self) -> dict[str, Any]:
        """A line of the fixture."""
        want = [describe(x) for x in self.want] if isinstance(self.want, tuple) else self.want
        a, b = describe(self.a), describe(self.b)
        return {"kind": self.kind, "op": self.op, "width": self.width, "bits": self.bits, "a": a, "b": b, "want": want}

    @staticmethod
    def from_json(line: dict[str, Any]) -> Case:
        """The case of a line of the fixture."""
        want = tuple(map(scalar_of, line["want"])) if isinstance(line["want"], list) else line["want"]
        a, b = scalar_of(line["a"]), scalar_of(line["b"])
        return Case(line["kind"], line["op"], line["width"], line["bits"], a, b, want)


def answer(domain: Domain, case: Case) -> tuple[Scalar, ...] | bool | None:
    """The domain's answer to what the kernel was asked."""
    op, width, a, b = Op(case.op), case.width, case.a, case.b
    match case.kind:
        case "alu":
            return (domain.alu(op, width, a, b),)
        case "neg":
            return (domain.neg(width, a),)
        case "end":
            return (domain.byte_swap(op, case.bits, a),)
        case "mov32":
            return (domain.mov32(a),)
        case "sext":
            return (domain.sext(a, case.bits, width),)
        case "decide":
            return domain.branch_taken(op, width, a, b)
        case "taken" | "fall":
            outcomes = domain.refine(op, width, a, b)
            return outcomes[:2] if case.kind == "taken" else outcomes[2:]
        case _:
            taken, fall = domain.refine_same(op, width, a)
            return (taken,) if case.kind == "taken-same" else (fall,)


class Generator:
    """A random program over a few registers: its instructions, and by slot what each of them asks."""

    def __init__(self, seed: int, registers: tuple[int, ...] = (6, 7, 8, 9), length: int = 30) -> None:
        self.random = random.Random(seed)
        self.registers = registers
        self.insns: list[Insn] = []
        self.steps: dict[int, Step] = {}
        for register in registers:
            self._unknown(register)
        for _ in range(length):
            chance = self.random.random()
            if chance < 0.5:
                self._branch()
            elif chance < 0.92:
                self._arithmetic()
            else:
                self._unknown(self.random.choice(registers))
        self._exits()

    def program(self) -> Program:
        """The program, ready to be loaded."""
        return Program(encode(self.insns), "socket_filter", name="scalars")

    def _slot(self) -> int:
        return sum(insn.slots for insn in self.insns)

    def _ask(self, insn: Insn, step: Step) -> None:
        self.steps[self._slot()] = step
        self.insns.append(insn)

    def _immediate(self) -> int:
        chance = self.random.random()
        if chance < 0.7:
            number = self.random.choice(EDGES) + self.random.choice((0, 0, 0, 1, -1))
        elif chance < 0.85:
            number = (1 << self.random.randrange(31)) * self.random.choice((1, -1))
        else:
            number = self.random.randrange(-1 << 31, 1 << 31)
        return max(-1 << 31, min((1 << 31) - 1, number))

    def _wide(self) -> int:
        if self.random.random() < 0.7:
            return self.random.choice(WIDE_EDGES) + self.random.choice((0, 0, 1, -1))
        return self.random.getrandbits(self.random.randrange(1, 65))

    def _unknown(self, register: int) -> None:
        """A constant or an unknown number; the call after it takes from r0 the identity that it would share."""
        chance = self.random.random()
        if chance < 0.12:
            number = self._wide()
            low, high = number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF
            self.insns.append(Insn(LD_IMM64_OPCODE, register, imm=_signed(low), imm_high=_signed(high)))
        elif chance < 0.2:
            self.insns.append(Insn(0xB7, register, imm=self._immediate()))
        else:
            self.insns += [CALL_RANDOM, Insn(MOV64, register, 0), CALL_RANDOM]
            if self.random.random() < 0.1:
                self._ask(Insn(MOV32, register, register), Step("mov32", Op.MOV, 32, register, register))

    def _branch(self) -> None:
        op, width, dst = self.random.choice(list(JUMP_CODES)), self.random.choice((32, 64)), self._register()
        opcode = (JMP if width == 64 else JMP32) | JUMP_CODES[op]
        if self.random.random() < 0.3:
            src = self._register()
            self._ask(Insn(opcode | SRC_REG, dst, src), Step("branch", op, width, dst, src))
        else:
            imm = self._immediate()
            self._ask(Insn(opcode, dst, imm=imm), Step("branch", op, width, dst, None, imm))

    def _register(self) -> int:
        return self.random.choice(self.registers)

    def _arithmetic(self) -> None:
        chance, dst, width = self.random.random(), self._register(), self.random.choice((32, 64))
        cls = ALU64 if width == 64 else ALU32
        if chance < 0.05:
            self._ask(Insn(cls | NEG_CODE, dst), Step("neg", Op.NEG, width, dst, dst))
        elif chance < 0.1:
            op, opcode = self.random.choice(((Op.TO_LE, 0xD4), (Op.TO_BE, 0xDC), (Op.SWAP, 0xD7)))
            bits = self.random.choice((16, 32, 64))
            self._ask(Insn(opcode, dst, imm=bits), Step("end", op, 64, dst, dst, bits=bits))
        elif chance < 0.18:
            self._move(dst, width)
        else:
            self._binary(dst, width, cls)

    def _move(self, dst: int, width: int) -> None:
        src = self._register()
        bits = self.random.choice((8, 16, 32) if width == 64 else (0, 8, 16))
        step = Step("sext", Op.MOV, width, dst, src, bits=bits) if bits else Step("mov32", Op.MOV, 32, dst, src)
        self._ask(Insn(MOV64 if width == 64 else MOV32, dst, src, bits), step)

    def _binary(self, dst: int, width: int, cls: int) -> None:
        op = self.random.choice(PLAIN * 3 + tuple(DIVISIONS))
        base, off = DIVISIONS.get(op, (op, 0))
        if self.random.random() < 0.45:
            src = self._register()
            self._ask(Insn(cls | SRC_REG | ALU_CODES[base], dst, src, off), Step("alu", op, width, dst, src))
            return
        imm = self._immediate()
        if op in (Op.LSH, Op.RSH, Op.ARSH):
            imm = self.random.choice((0, 1, 8, 16, 24, 31, width - 8, width - 1, self.random.randrange(width)))
        elif op in DIVISIONS and imm == 0:
            imm = 1
        self._ask(Insn(cls | ALU_CODES[base], dst, 0, off, imm), Step("alu", op, width, dst, None, imm))

    def _exits(self) -> None:
        """An exit at the end, and one for every comparison."""
        leave = [Insn(0xB7, 0), Insn(EXIT)]
        self.insns += leave
        slot = 0
        for at, insn in enumerate(self.insns):
            step = self.steps.get(slot)
            if step is not None and step.kind == "branch":
                self.insns[at] = Insn(insn.opcode, insn.dst, insn.src, self._slot() - slot - 1, insn.imm)
                self.insns += leave
            slot += insn.slots


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


_AT = re.compile(r"^(\d+): \([0-9a-f]{2}\) .*?(?:\s+; (.*))?$")
_STATE = re.compile(r"^(\d+): (R\d.*)$")
_FROM = re.compile(r"^from (\d+) to \d+[^:]*: (.*)$")


class Reader:
    """Reads a log of level 2 as cases.

    The log prints the registers that an instruction names. Others that share an identity change unprinted, so what was
    known of them is dropped. A program in which a mask forked the path, or in which the kernel found contradicting
    bounds (which it does not print whole), is read up to there.
    """

    def __init__(self, domain: Domain, steps: dict[int, Step], log: str) -> None:
        self.domain = domain
        self.steps = steps
        head, violation, _ = log.partition("REG INVARIANTS VIOLATION")
        self.whole = not violation
        self.lines = head.splitlines()
        self.state: dict[int, Printed | None] = {}
        self.links: dict[int, str] = {}
        self.left: dict[int, tuple[Step, Scalar, Scalar]] = {}

    def cases(self) -> Iterator[Case]:
        """The cases, in the log's order."""
        pending: tuple[Step, Scalar, Scalar] | None = None
        at = 0
        for line in self.lines:
            if match := _FROM.match(line):
                if pending:
                    yield from self._settle(pending, at)
                    pending = None
                self._see(match[2], fresh=True)
                yield from self._taken(int(match[1]))
            elif match := _STATE.match(line):
                self._see(match[2])
            elif match := _AT.match(line):
                if pending:
                    yield from self._settle(pending, at)
                at = int(match[1])
                pending = self._operands(at)
                if pending and pending[0].kind == "alu" and self.domain.fork(pending[0].op, *pending[1:]):
                    return
                self._unlink(at)
                self._see(match[2] or "")
        if self.whole:
            # What is left was not printed as taken later, so the kernel knew which way it goes.
            for step, a, b in self.left.values():
                went = self.domain.branch_taken(step.op, step.width, a, b)
                yield Case("decide", step.op, step.width, 0, a, b, True if went is None else went)

    def _see(self, text: str, fresh: bool = False) -> None:
        if fresh:
            self.state.clear()
            self.links.clear()
        for register, seen in registers_of(text).items():
            self.state[register] = seen
            if seen.link:
                self.links[register] = seen.link
            elif not seen.scalar.is_const:
                self.links.pop(register, None)

    def _operands(self, at: int) -> tuple[Step, Scalar, Scalar] | None:
        step = self.steps.get(at)
        if step is None:
            return None
        first = self.state.get(step.dst if step.kind in ("alu", "branch") or step.src is None else step.src)
        second = Printed(const(step.imm)) if step.src is None else self.state.get(step.src)
        if first is None or second is None:
            return None
        if step.kind == "branch" and step.src not in (None, step.dst) and self._linked(step):
            return None
        return step, first.scalar, second.scalar

    def _linked(self, step: Step) -> bool:
        link = self.links.get(step.dst)
        return link is not None and link == self.links.get(step.src or 0)

    def _unlink(self, at: int) -> None:
        """Drops what a comparison may change unprinted; what arithmetic writes loses its identity."""
        step = self.steps.get(at)
        if step is None:
            return
        if step.kind != "branch":
            self.links.pop(step.dst, None)
            return
        named = {step.dst, step.src}
        links = {self.links[register] for register in named & self.links.keys()}  # type: ignore[index]
        for register, link in self.links.items():
            if link in links and register not in named:
                self.state[register] = None

    def _settle(self, pending: tuple[Step, Scalar, Scalar], at: int) -> Iterator[Case]:
        """The case of the instruction, now that the state after it was printed."""
        step, a, b = pending
        if step.kind != "branch":
            after = self.state.get(step.dst)
            if after is not None:
                yield Case(step.kind, step.op, step.width, step.bits, a, b, (after.scalar,))
            return
        self.left[at] = pending
        if self.domain.branch_taken(step.op, step.width, a, b) is None:
            yield from self._way("fall", step, a, b)

    def _taken(self, at: int) -> Iterator[Case]:
        if at in self.left:
            step, a, b = self.left.pop(at)
            yield Case("decide", step.op, step.width, 0, a, b, None)
            yield from self._way("taken", step, a, b)

    def _way(self, kind: str, step: Step, a: Scalar, b: Scalar) -> Iterator[Case]:
        first = self.state.get(step.dst)
        if first is None:
            return
        if step.src == step.dst:
            yield Case(f"{kind}-same", step.op, step.width, 0, a, a, (first.scalar,))
        elif step.src is None:
            # The kernel does not print what it learned of an immediate: only the register is its answer.
            yield Case(kind, step.op, step.width, 0, a, b, (first.scalar,))
        elif (second := self.state.get(step.src)) is not None:
            yield Case(kind, step.op, step.width, 0, a, b, (first.scalar, second.scalar))


def agrees(domain: Domain, case: Case) -> bool:
    """Whether the domain answers as the kernel did, in as much as the kernel printed."""
    got = answer(domain, case)
    if isinstance(got, tuple) and isinstance(case.want, tuple):
        return got[: len(case.want)] == case.want
    return got is case.want


def main() -> None:
    """Asks the kernel many programs, prints the differences, and keeps a sample of the answers."""
    import argparse

    from simulator.verifier.scalar import rules_of
    from tests import oracle

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", default="")
    given = parser.parse_args()
    domain = Domain(rules_of((6, 18)))
    kept: dict[tuple[str, str, int, int], dict[str, Case]] = {}
    seen = different = 0
    for seed in range(given.seed, given.seed + given.programs):
        generator = Generator(seed, (6, 7) if seed % 2 else (6, 7, 8, 9))
        reply = oracle.ask(generator.program(), log_level=2)
        for case in Reader(domain, generator.steps, reply.log).cases():
            seen += 1
            if not agrees(domain, case):
                different += 1
                print(f"seed {seed}: {json.dumps(case.to_json())}, ours: {answer(domain, case)}")
            of_kind = kept.setdefault((case.kind, case.op, case.width, case.bits), {})
            if len(of_kind) < 5 and not (case.a.is_const and case.b.is_const):
                of_kind[repr((case.a, case.b))] = case
    print(f"{seen} answers of {given.programs} programs from seed {given.seed}: {different} differences")
    if given.write:
        with open(given.write, "w", encoding="utf-8") as file:
            for _, cases in sorted(kept.items()):
                file.writelines(json.dumps(case.to_json()) + "\n" for case in cases.values())


if __name__ == "__main__":
    main()
