"""The verifier's log, as kernel 6.18 prints it at levels 1 and 2.

At level 1 the log shows the path that was refused: when a path ends well, the log falls back to where it branched off.
Source: kernel/bpf/log.c, and the printing in do_check of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.insn import Insn
from simulator.verifier import regs as r
from simulator.verifier.livelog import slots_text
from simulator.verifier.regs import Reg, number_text, type_name
from simulator.verifier.scalar import bounds_text
from simulator.verifier.state import DYNPTR_BYTE, INVALID, ITER_BYTE, SPILL, Frame, State

if TYPE_CHECKING:
    from simulator.verifier.backtrack import Masks
    from simulator.verifier.machine import Machine

_SLOT_CHARS: Final = "?rm0dif"
LEVELS: Final = 3
"""The bits of a log level that ask for instructions and states."""

STATISTICS: Final = 4
"""The bit that asks how long the verification took and how deep the stacks are."""

UNENDED: Final = (
    "cannot call exception cb directly",
    "expected prog array map for tail call",
    " in func info",
    " for the first func info record",
)
"""How messages end that the kernel prints without an end of line."""


def ended(line: str) -> str:
    """A line of the log, with the end of line where the kernel prints one."""
    return line if line.endswith(UNENDED) or "than previous func info record (" in line else f"{line}\n"


_ALIGNMENT, _MIN_ALIGNMENT = 40, 8

LONGEST: Final = 1 << 24
"""Characters of a log that are kept: as much as libbpf ever asks a kernel for, which keeps the end as well."""


def _unsigned_text(number: int) -> str:
    return str(number) if number <= 0xFFFF else f"{number:#x}"


def _identity(reg: Reg) -> list[str]:
    parts = []
    if reg.id:
        text = f"id={reg.id & ~r.ADD_CONST}"
        if reg.id & r.ADD_CONST:
            text += f"{reg.off:+d}"
        parts.append(text)
    if reg.ref:
        parts.append(f"ref_obj_id={reg.ref}")
    if reg.type & r.NON_OWN_REF:
        parts.append("non_own_ref")
    return parts


def _type_fields(reg: Reg) -> list[str]:
    base = reg.type & r.BASE_MASK
    parts = []
    if base in (r.PTR_MAP, r.PTR_MAP_KEY, r.PTR_MAP_VALUE):
        target = reg.data[0]
        if target.name:
            parts.append(f"map={target.name}")
        parts.append(f"ks={target.key_size},vs={target.value_size}")
    if reg.type != r.SCALAR and reg.off:
        parts.append(f"off={number_text(reg.off)}")
    if base in (r.PTR_PACKET, r.PTR_PACKET_META):
        parts.append(f"r={_unsigned_text(reg.data & 0xFFFFFFFFFFFFFFFF)}")
    if base == r.PTR_MEM:
        parts.append(f"sz={_unsigned_text(reg.data[0])}")
    if base == r.PTR_DYNPTR:
        parts.append(f"type={reg.data[0]}")
    return parts


def reg_text(reg: Reg, frame: Frame, precise: bool = False) -> str:
    """A value as the log prints it."""
    num = reg.num
    if reg.type == r.SCALAR:
        mark = "P" if precise else ""
        if num.mask == 0:
            return mark + number_text(num.smin)
        return f"{mark}scalar({','.join(_identity(reg) + bounds_text(num))})"
    name = type_name(reg.type)
    if reg.type == r.PTR_ARENA:
        return name
    if reg.type == r.PTR_STACK:
        if frame.number != reg.data:
            name += f"[{reg.data}]"
        if num.mask == 0:
            return name + number_text(num.smin + reg.off)
    if reg.type & r.BASE_MASK == r.PTR_BTF_ID:
        name += str(reg.data[0].type(reg.data[1]).name)
    parts = _identity(reg) + _type_fields(reg)
    if num.mask == 0:
        if num.value:
            parts.append(f"imm={number_text(num.smin)}")
    else:
        parts += bounds_text(num)
    return f"{name}({','.join(parts)})"


class Log:
    """What was printed so far.

    `level` says what of the exploration is printed: 0 nothing, 1 the refused path, 2 all. A log that is `on` has what
    the kernel says besides; so has one with the statistics alone, level 4.
    """

    def __init__(self, level: int) -> None:
        self.level = level & LEVELS
        self.on = level != 0
        self._parts: list[str] = []
        self._start = 0
        self.end = 0
        self._insn_end = -1
        self._insn_width = 0
        self._last_line = -1

    def write(self, text: str) -> None:
        """Appends to the log."""
        self._parts.append(text)
        self.end += len(text)
        if self.end - self._start > 2 * LONGEST:
            self._forget_the_start()

    def _forget_the_start(self) -> None:
        """Of a log that grew too long, keeps the end."""
        kept, count = 0, 0
        for part in reversed(self._parts):
            if kept + len(part) > LONGEST:
                break
            kept += len(part)
            count += 1
        self._parts = self._parts[len(self._parts) - count :]
        self._start = self.end - kept

    def reset(self, position: int) -> None:
        """Forgets what was printed after `position`."""
        parts, end = self._parts, self.end
        while end > position and parts:
            last = parts.pop()
            end -= len(last)
            if end < position:
                parts.append(last[: position - end])
                end = position
        self.end = position
        self._start = min(self._start, position)

    def text(self) -> str:
        """The whole log, or of a very long one the end."""
        return "".join(self._parts)

    def state(self, m: Machine, state: State, number: int, everything: bool) -> None:
        """The registers and stack of one frame; without `everything`, only what changed since it was last printed."""
        frame = state.frames[number]
        if frame.number:
            self.write(f" frame{frame.number}:")
        for register, reg in enumerate(frame.regs):
            if reg.type == r.NOT_INIT or not (everything or m.scratched_regs >> register & 1):
                continue
            self.write(f" R{register}={reg_text(reg, frame, bool(frame.precise_regs >> register & 1))}")
        self._slots(m, frame, everything)
        held = [ref.id for ref in state.holds.refs if ref.id]
        if held and state.holds.refs[0].id:  # the kernel looks at the first alone: the lock of a global has no id
            self.write(" refs=" + ",".join(map(str, held)))
        if frame.in_callback:
            self.write(" cb")
        if frame.in_async_callback:
            self.write(" async_cb")
        self.write("\n")
        if not everything:
            m.scratched_regs = m.scratched_slots = 0

    def _slots(self, m: Machine, frame: Frame, everything: bool) -> None:
        skip = -1
        for spi, slot in enumerate(frame.stack):
            if spi <= skip or not (everything or m.scratched_slots >> spi & 1):
                continue
            types = slot.types
            if not any(kind != INVALID for kind in types):
                continue
            chars = "".join(_SLOT_CHARS[kind] for kind in types)
            at = -(spi + 1) * 8
            if types[7] == SPILL:
                precise = bool(frame.precise_slots >> spi & 1)
                shown = chars[: types.index(SPILL)]
                self.write(f" fp{at}={shown}{reg_text(slot.reg, frame, precise)}")
            elif types[7] == DYNPTR_BYTE and spi + 1 < len(frame.stack) and frame.stack[spi + 1].reg.data:
                skip = spi + 1
                reg = frame.stack[skip].reg
                parts = [f"id={reg.id}"] if reg.id else []
                if reg.ref:
                    parts.append(f"ref_id={reg.ref}")
                if reg.data[1]:
                    parts.append("dynptr_id=1")  # the kernel prints the flag of the first slot under this name
                self.write(f" fp{at - 8}=dynptr_{reg.data[0]}({','.join(parts)})")
            elif types[7] == ITER_BYTE:
                reg = slot.reg
                if reg.ref:
                    name, status, depth = reg.data
                    self.write(f" fp{at}=iter_{name}(ref_id={reg.ref},state={status},depth={depth})")
            else:
                self.write(f" fp{at}={chars}")

    def changed_state(self, m: Machine) -> None:
        """What the last instruction changed, on that instruction's own line where nothing was printed since."""
        if self._insn_end == self.end and self._insn_end > 0:
            self.reset(self._insn_end - 1)
            width = self._insn_width
            position = max(width + _MIN_ALIGNMENT // 2, _ALIGNMENT)
            pad = -(-position // _MIN_ALIGNMENT) * _MIN_ALIGNMENT - width - 1
            self.write(" " * pad + ";")
        else:
            self.write(f"{m.idx}:")
        self.state(m, m.state, len(m.state.frames) - 1, False)

    def insn(self, m: Machine, idx: int) -> None:
        """The instruction that is about to be looked at, after its source line where that changed."""
        if m.scratched_regs or m.scratched_slots:
            self.changed_state(m)
        self.source_line(m, idx, "; ")
        insn = m.code[idx]
        assert insn is not None
        start = self.end
        self.write(f"{idx}: {m.insn_text(idx, insn)}\n")
        self._insn_width = self.end - start
        self._insn_end = self.end

    def source_line(self, m: Machine, idx: int, prefix: str) -> None:
        """The source line of an instruction, unless it was the last one printed."""
        at = m.line_index[idx] if idx < len(m.line_index) else -1
        if at < 0:
            return
        line = m.program.line_info[at]
        if self._last_line >= 0:
            before = m.program.line_info[self._last_line]
            if (before.file, before.line) == (line.file, line.line):
                return  # another column of the same line
        self._last_line = at
        self.write(f"{prefix}{line.text.lstrip()} @ {line.file.rsplit('/', 1)[-1]}:{line.line}\n")

    def new_function(self) -> None:
        """Another function is verified: its first source line is printed whatever came last."""
        self._last_line = -1

    def propagating(self, number: int, masks: Masks) -> None:
        """What an equal state needed precisely in a frame (level 2)."""
        names = [f"r{register}" for register in range(11) if masks.regs[number] >> register & 1]
        names += [f"fp{-(spi + 1) * 8}" for spi in range(64) if masks.slots[number] >> spi & 1]
        if names:
            self.write(f"frame {number}: propagating {','.join(names)}\n")

    def backtrack_step(self, m: Machine, masks: Masks, idx: int, insn: Insn) -> None:
        """One instruction of a walk back (level 2)."""
        registers = ",".join(f"r{i}" for i in range(11) if masks.regs[masks.frame] >> i & 1)
        self.write(
            f"mark_precise: frame{masks.frame}: regs={registers} stack={slots_text(masks.slots[masks.frame])} before "
            f"{idx}: {m.insn_text(idx, insn)}\n"
        )

    def backtrack_parent(self, m: Machine, state: State, number: int, masks: Masks) -> None:
        """A checkpoint that a walk back came to (level 2)."""
        registers = ",".join(f"r{i}" for i in range(11) if masks.regs[number] >> i & 1)
        self.write(
            f"mark_precise: frame{number}: parent state regs={registers} stack={slots_text(masks.slots[number])}: "
        )
        self.state(m, state, number, True)
