"""The place of a refusal, and what can be asked about how the path came there.

Invariant: nothing here decides anything; it reads the machine as the refusal left it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind
from simulator.verdict import Step
from simulator.verifier import regs as r
from simulator.verifier.log import reg_text
from simulator.verifier.regs import Reg

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulator.program import LineInfo
    from simulator.verifier.machine import Machine
    from simulator.verifier.refusal import Refused

_REGISTER = re.compile(r"^R(\d+)\b|\bR(\d+)\b")
_ARGUMENT = re.compile(r"\barg#?(\d)")


class Scene:
    """A refusal, the instruction and the registers there, and the path that led to it."""

    def __init__(self, m: Machine, refused: Refused) -> None:
        self.m = m
        self.refused = refused
        self.message = refused.message
        self.idx = refused.insn if refused.insn is not None else m.idx
        self.frame = m.frame
        self.moments = m.trail.moments if m.trail is not None else []

    @property
    def insn(self) -> Insn | None:
        """The refused instruction."""
        code = self.m.code
        return code[self.idx] if 0 <= self.idx < len(code) else None

    @property
    def register(self) -> int | None:
        """The register that the message names, by number or as an argument of a call."""
        found = _REGISTER.search(self.message)
        if found is not None:
            number = int(found[1] or found[2])
            return number if number <= 10 else None
        argument = _ARGUMENT.search(self.message)
        return int(argument[1]) + 1 if argument is not None and int(argument[1]) < 5 else None

    def value(self, register: int) -> Reg:
        """What a register holds at the refused instruction."""
        return self.frame.regs[register]

    def numbers(self, pattern: str) -> list[int]:
        """The numbers that a pattern's groups find in the lines of the refusal; empty where it is not found."""
        for line in self.refused.log:
            found = re.search(pattern, line)
            if found is not None:
                return [int(group, 0) for group in found.groups()]
        return []

    # Words for places.

    def text(self, slot: int) -> str:
        """An instruction as the log prints it, without its opcode."""
        insn = self.m.code[slot] if 0 <= slot < len(self.m.code) else None
        if insn is None:
            return ""
        shown = self.m.insn_text(slot, insn)
        return shown.partition(") ")[2] or shown

    def line(self, slot: int) -> LineInfo | None:
        """The source line of an instruction."""
        at = self.m.line_index[slot] if 0 <= slot < len(self.m.line_index) else -1
        return self.m.program.line_info[at] if at >= 0 else None

    def place(self, slot: int) -> str:
        """An instruction in a sentence: its source line where that is known, its slot and text."""
        line = self.line(slot)
        where = f"line {line.line}, " if line is not None else ""
        return f"{where}insn {slot} ({self.text(slot)})"

    def called(self, slot: int) -> str:
        """The name of what an instruction calls, "" where it is no call."""
        insn = self.m.code[slot] if 0 <= slot < len(self.m.code) else None
        if insn is None or insn.row.kind is not Kind.CALL:
            return ""
        if insn.src == 1:
            target = self.m.subprog_at(slot + insn.imm + 1)
            return target.name or f"the function at insn {target.start}"
        return self.text(slot).removeprefix("call ").partition("#")[0]

    def step(self, slot: int, note: str = "") -> Step:
        """An instruction of the path for the report; the refused one without its source, which the verdict has."""
        line = self.line(slot) if slot != self.idx else None
        insn = self.m.code[slot] if 0 <= slot < len(self.m.code) else None
        shown = self.m.insn_text(slot, insn) if insn is not None else ""
        source = f"{line.file.rsplit('/', 1)[-1]}:{line.line}: {line.text.strip()}" if line is not None else ""
        return Step(slot, shown + (f"   {note}" if note else ""), source)

    def registers(self) -> list[str]:
        """The registers that the refused instruction uses, as the log prints values."""
        insn = self.insn
        if insn is None:
            return []
        numbers = [insn.dst] if "dst" in insn.row.uses else []
        if insn.row.reg or insn.row.kind in (Kind.LOAD, Kind.LOAD_SIGNED):
            numbers.append(insn.src)
        if insn.row.kind is Kind.CALL:
            numbers = [1, 2, 3, 4, 5]
        if insn.row.kind is Kind.EXIT:
            numbers = [0]
        named = self.register
        if named is not None:
            numbers.append(named)
        shown = sorted({number for number in numbers if number <= 10})
        return [
            f"R{number}={reg_text(self.value(number), self.frame)}"
            for number in shown
            if self.value(number).type != r.NOT_INIT
        ]

    # Questions about the path, inside of the function that was refused.

    def last_change(self, register: int) -> int | None:
        """The last instruction that gave a register another value; branches, which only narrow, do not count."""
        return self._find(lambda before, after: before[register] is not after[register])

    def loser(self, register: int, was: Callable[[Reg], bool]) -> int | None:
        """The last instruction before which a register's value was so, and after which it was not."""
        return self._find(lambda before, after: was(before[register]) and not was(after[register]))

    def giver(self, has: Callable[[Reg], bool]) -> int | None:
        """The first instruction after which some register was so, and before which none was."""
        found = None
        if self.m.trail is None:
            return None
        for moment, after in self.m.trail.backwards():
            if any(map(has, after)) and not any(map(has, moment.regs)):
                found = moment.idx
        return found

    def _find(self, changed: Callable[[list[Reg], list[Reg]], bool]) -> int | None:
        if self.m.trail is None:
            return None
        for moment, after in self.m.trail.backwards():
            insn = self.m.code[moment.idx]
            if insn is not None and insn.row.kind is not Kind.BRANCH and changed(moment.regs, after):
                return moment.idx
        return None

    def compared(self, is_packet: Callable[[Reg], bool]) -> int | None:
        """The last branch that compared such a pointer with the packet's end."""
        if self.m.trail is None:
            return None
        for moment, _ in self.m.trail.backwards():
            insn = self.m.code[moment.idx]
            if insn is None or insn.row.kind is not Kind.BRANCH or not insn.row.reg:
                continue
            pair = (moment.regs[insn.dst], moment.regs[insn.src])
            if any(map(is_packet, pair)) and any(one.type == r.PTR_PACKET_END for one in pair):
                return moment.idx
        return None

    def branches(self, limit: int) -> list[Step]:
        """The last conditional jumps of the path, in its order, with the way that each went."""
        steps: list[Step] = []
        moments = self.moments
        for at in range(len(moments) - 2, -1, -1):
            slot = moments[at].idx
            insn = self.m.code[slot]
            if insn is None or insn.row.kind is not Kind.BRANCH:
                continue
            taken = moments[at + 1].idx != slot + 1
            if not steps or steps[-1].insn != slot:
                steps.append(self.step(slot, "taken" if taken else "not taken"))
            if len(steps) == limit:
                break
        return steps[::-1]
