"""Kernel functions on the run itself: what keeps others out, and the end by an exception."""

from __future__ import annotations

from simulator.kfuncs.registry import models
from simulator.machine import HelperFault, Machine, Thrown
from simulator.program import Program

_HANDLED_BY = "exception_callback:"


@models(
    "bpf_rcu_read_lock", "bpf_rcu_read_unlock", "bpf_preempt_disable", "bpf_preempt_enable", "bpf_local_irq_save",
    "bpf_local_irq_restore",
)  # fmt: skip
def nothing(machine: Machine, *_: int) -> int:
    """Keeps others out: one program runs at a time."""
    return 0


@models("bpf_throw")
def throw(machine: Machine, cookie: int, *_: int) -> int:
    """Ends the program: its value is the cookie. HelperFault where a function of the program's own would handle it."""
    handler = _handler(machine.program)
    if handler:
        raise HelperFault(f"the program handles exceptions by its function {handler!r}, which is not modelled")
    raise Thrown(cookie)


def _handler(program: Program | None) -> str:
    """The function that the program's own declaration tag names for its exceptions; "" for none."""
    if program is None or program.btf is None or not program.func_info:
        return ""
    tags = (name for name, _ in program.btf.tags(program.func_info[0].type_id))
    return next((tag.removeprefix(_HANDLED_BY) for tag in tags if tag.startswith(_HANDLED_BY)), "")
