"""Kernel functions on the run itself: what keeps others out, and the end by an exception."""

from __future__ import annotations

from simulator.kfuncs.registry import models
from simulator.machine import Machine, Thrown


@models(
    "bpf_rcu_read_lock", "bpf_rcu_read_unlock", "bpf_preempt_disable", "bpf_preempt_enable", "bpf_local_irq_save",
    "bpf_local_irq_restore",
)  # fmt: skip
def nothing(machine: Machine, *_: int) -> int:
    """Keeps others out: one program runs at a time."""
    return 0


@models("bpf_throw")
def throw(machine: Machine, cookie: int, *_: int) -> int:
    """Ends the program: its value is the cookie."""
    raise Thrown(cookie)
