"""What programs print with bpf_trace_printk, as tracefs shows it.

Lines are ours when they come after a mark that we wrote, from our own thread: a test run is in the caller's context.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Final

from bpflisp.spec.isa import CALL_HELPER, Kind
from simulator.engines.engine import EngineUnavailable
from simulator.program import Program

TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_PRINTING: Final = frozenset({6, 177})
_EVENT: Final = "bpf_trace_printk: "


def prints(program: Program) -> bool:
    """Whether the program calls a helper that prints (bpf_trace_printk, bpf_trace_vprintk)."""
    return calls(program, _PRINTING)


def calls(program: Program, helpers: Collection[int]) -> bool:
    """Whether the program calls one of these helpers, by number."""
    found = (insn for insn in program.code if insn is not None and insn.row.kind is Kind.CALL)
    return any(insn.src == CALL_HELPER and insn.imm in helpers for insn in found)


def _folder() -> Path | None:
    return next((folder for folder in TRACEFS if (folder / "trace_marker").exists()), None)


def unseen(program: Program) -> str:
    """Why what the program prints does not show here; "" where it shows, or the program prints nothing."""
    if not prints(program) or _folder() is not None:
        return ""
    return "what programs print in the kernel shows in tracefs alone: mount -t tracefs tracefs /sys/kernel/tracing"


def begin() -> str:
    """Writes a mark into the trace; "" where tracefs is not mounted, and what is printed cannot be seen."""
    folder = _folder()
    if folder is None:
        return ""
    mark = f"bpflisp-{uuid.uuid4().hex}"
    try:
        (folder / "trace_marker").write_text(mark)
    except OSError as error:
        raise EngineUnavailable(
            f"the program prints, and {folder / 'trace_marker'} cannot be written: {error}"
        ) from None
    return mark


def since(mark: str) -> list[str]:
    """What this thread's programs printed since the mark, a line an entry."""
    folder = _folder()
    if not mark or folder is None:
        return []
    lines = (folder / "trace").read_text(errors="replace").splitlines()
    start = max((at for at, line in enumerate(lines) if mark in line), default=-1)
    own = f"-{threading.get_native_id()} "
    return [line.partition(_EVENT)[2] for line in lines[start + 1 :] if _EVENT in line and own in line]
