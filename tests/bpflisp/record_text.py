"""Asks the running kernel how it prints every instruction: python -m tests.bpflisp.record_text > FIXTURE.

One program a case: registers are filled, then comes the instruction. The log names it before it judges it, so that
a refusal does not matter. Cases whose instruction the kernel refuses before it prints are left out, and named.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import sys
from collections.abc import Iterator

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import ROWS, Kind, Op, Row

_SYS_BPF, _PROG_LOAD = 321, 5
_SCHED_CLS = 3
_MOV64_IMM, _MOV64_REG, _NOT_EQUAL, _EXIT = 0xB7, 0xBF, 0x55, 0x95

# The context is kept in r6 and the frame in r7, so that the instruction may be reached with either.
PROLOGUE = (
    [Insn(_MOV64_REG, 6, 1), Insn(_MOV64_REG, 7, 10)]
    + [Insn(0x7A, 10, 0, -8 * i, 1) for i in range(1, 5)]
    + [Insn(_MOV64_IMM, register, 0, 0, 1) for register in (0, 1, 2, 3, 4, 5, 8, 9)]
)
TAIL = [Insn(_MOV64_IMM, 0)] * 3 + [Insn(_EXIT)]

_SPECIAL_OFFSETS = {Op.SDIV: 1, Op.SMOD: 1, Op.MOVSX8: 8, Op.MOVSX16: 16, Op.MOVSX32: 32}


def variants(row: Row) -> Iterator[Insn]:
    """A few instructions of a row, with what the text may depend on: signs, registers, large immediates."""
    off = _SPECIAL_OFFSETS.get(row.op, 0)
    match row.kind:
        case Kind.ALU if row.reg:
            yield from (Insn(row.opcode, 8, 9, off), Insn(row.opcode, 0, 1, off))
        case Kind.ALU:
            yield from (Insn(row.opcode, 8, 0, off, imm) for imm in (1, 7, 31))
            if row.op not in (Op.LSH, Op.RSH, Op.ARSH):
                yield from (Insn(row.opcode, 2, 0, off, imm) for imm in (-1, -(2**31), 2**31 - 1))
        case Kind.NEG:
            yield Insn(row.opcode, 9)
        case Kind.END:
            yield from (Insn(row.opcode, 9, 0, 0, bits) for bits in (16, 32, 64))
        case Kind.LOAD | Kind.LOAD_SIGNED:
            yield from (Insn(row.opcode, 2, 7, -8), Insn(row.opcode, 2, 6, 0), Insn(row.opcode, 9, 10, 4))
        case Kind.STORE | Kind.STORE_IMM:
            source = 2 if row.reg else 0
            imms = (0,) if row.reg else (0, 5, -5, -(2**31))
            yield from (Insn(row.opcode, 7, source, off, imm) for imm in imms for off in (-16, 8, 0))
        case Kind.ATOMIC | Kind.LOAD_ACQUIRE | Kind.STORE_RELEASE:
            imm = _atomic_imm(row)
            registers = (2, 7) if row.kind is Kind.LOAD_ACQUIRE else (7, 2)
            yield from (Insn(row.opcode, *registers, off, imm) for off in (-8, 0, 8))
        case Kind.LOAD_IMM64:
            yield from (Insn(row.opcode, 3, 0, 0, low, high) for low, high in ((0, 0), (-1, -1), (5, 0), (0, 1)))
        case Kind.LOAD_PACKET:
            source = 2 if row.reg else 0
            yield from (Insn(row.opcode, 0, source, 0, imm) for imm in (0, 14, -4096))
        case Kind.JUMP if row.width == 32:
            yield from (Insn(row.opcode, imm=distance) for distance in (2, 1, -1))
        case Kind.JUMP | Kind.MAY_GOTO:
            yield from (Insn(row.opcode, off=distance) for distance in (2, 1, -1))
        case Kind.BRANCH:
            source = 9 if row.reg else 0
            imms = (0,) if row.reg else (0, 5, -5, 2**31 - 1)
            yield from (Insn(row.opcode, 8, source, off, imm) for imm in imms for off in (1, 2, -3))
        case Kind.CALL:
            yield from (Insn(row.opcode, imm=helper) for helper in (1, 5, 7, 8, 12, 14, 125))
        case Kind.EXIT:
            yield Insn(row.opcode)
        case Kind.CALL_REG:
            yield Insn(row.opcode, 2)


def _atomic_imm(row: Row) -> int:
    from bpflisp.spec.isa import ATOMIC_ROWS

    return next(imm for (opcode, imm), other in ATOMIC_ROWS.items() if other == row and opcode == row.opcode)


def special_cases() -> Iterator[Insn]:
    """Overloads that are no rows: casts of an arena's address space, a call of a subprogram."""
    yield Insn(_MOV64_REG, 2, 3, 1, 1)
    yield Insn(_MOV64_REG, 2, 3, 1, 1 << 16)


def load_log(code: bytes, level: int = 2) -> str:
    """The log of BPF_PROG_LOAD for a tc program of these bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    insns, license_, log = (
        ctypes.create_string_buffer(code, len(code)),
        ctypes.create_string_buffer(b"GPL"),
        ctypes.create_string_buffer(1 << 16),
    )
    attr = struct.pack(
        "<IIQQIIQII", _SCHED_CLS, len(code) // 8, ctypes.addressof(insns), ctypes.addressof(license_), level, len(log),
        ctypes.addressof(log), 0, 0,
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(attr.ljust(144, b"\0"), 144)
    fd = libc.syscall(_SYS_BPF, _PROG_LOAD, buffer, 144)
    if fd >= 0:
        os.close(fd)
    elif ctypes.get_errno() == 1:
        raise PermissionError("bpf(2) is refused here")
    return log.value.decode()


def printed(log: str, slot: int) -> str | None:
    """The text that the log has for the instruction at a slot, without the state behind it."""
    found = re.search(rf"^{slot}: (\([0-9a-f]{{2}}\) .*?)(?:\s+;.*)?$", log, re.MULTILINE)
    return found.group(1) if found else None


def main() -> None:
    """Prints a JSON line for each case; the cases without an answer go to standard error."""
    cases = [insn for row in ROWS for insn in variants(row)] + list(special_cases())
    for insn in cases:
        # A branch around the instruction, never taken, so that what follows a jump or an exit can be reached.
        around = Insn(_NOT_EQUAL, 8, 0, insn.slots, 1)
        code = b"".join(part.encode() for part in (*PROLOGUE, around, insn, *TAIL))
        log = load_log(code)
        text = printed(log, len(PROLOGUE) + 1)
        if text is None:
            print(f"{insn}: {log.strip().splitlines()[:2]}", file=sys.stderr)
        else:
            print(json.dumps({"insn": insn.encode().hex(), "text": text}))
    # A call of a subprogram: the program calls two slots on, over its own exit.
    call = Insn(0x85, 0, 1, 0, 1)
    code = b"".join(part.encode() for part in (call, Insn(_EXIT), Insn(_MOV64_IMM, 0), Insn(_EXIT)))
    print(json.dumps({"insn": call.encode().hex(), "text": printed(load_log(code), 0)}))


if __name__ == "__main__":
    main()
