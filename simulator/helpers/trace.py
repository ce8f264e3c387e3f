"""Helpers that write text: bpf_trace_printk and its kin."""

from __future__ import annotations

from simulator.helpers.formats import format_bytes
from simulator.helpers.registry import models
from simulator.machine import Machine


@models("bpf_trace_printk")
def trace_printk(machine: Machine, text: int, size: int, *arguments: int) -> int:
    """Writes a line to the world's trace; its length, or -EINVAL for a format that the kernel refuses."""
    written = format_bytes(machine, machine.read(text, size & 0xFFFFFFFF), arguments[:3])
    if isinstance(written, int):
        return written
    machine.world.printed.append(written.text.decode(errors="replace"))
    return written.length
