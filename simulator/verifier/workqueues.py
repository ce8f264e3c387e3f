"""Work that a program leaves for later: bpf_wq and bpf_task_work in map values, and the functions that do it.

Source: check_map_field_pointer, process_wq_func, process_task_work_func and set_timer_callback_state of
kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simulator.verifier import regs as r
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import ZERO, Reg
from simulator.verifier.state import Frame

if TYPE_CHECKING:
    from simulator.verifier.calls import Setup
    from simulator.verifier.machine import Machine

_ANY_INT: Final = (-(1 << 31), (1 << 31) - 1)


def place(m: Machine, index: int, reg: Reg, what: str) -> tuple[MapInfo, int]:
    """The map that the field which an argument points to is in."""
    register = index + 1
    if reg.type != r.PTR_MAP_VALUE:
        m.fail(f"arg#{index} doesn't point to a map value")
    if reg.num.mask:
        m.fail(f"R{register} doesn't have constant offset. {what} has to be at the constant offset")
    target: MapInfo = reg.data[0]
    if target.definition.btf is None or not target.definition.btf_value:
        m.fail(f"map '{target.name}' has to have BTF in order to use {what}")
    field = target.field_of(what)
    if field is None:
        m.fail(f"map '{target.name}' has no valid {what}")
    offset = reg.off + reg.num.smin
    if field.offset != offset:
        m.fail(f"off {offset} doesn't point to 'struct {what}' that is at {field.offset}")
    return target, reg.data[1]


def check_same_map(m: Machine, found: tuple[MapInfo, int], reg: Reg) -> None:
    """That the map given is the one that the field before it is in."""
    target: MapInfo = reg.data[0]
    if found[0] is target and found[1] == reg.data[1]:
        return
    if target.field_of("bpf_wq", "bpf_task_work") is None:
        m.unsupported("work in one map given another that has none")
    what, first = ("bpf_task_work", 2) if target.field_of("bpf_task_work") is not None else ("workqueue", 1)
    m.fail(
        f"{what} pointer in R{first} map_uid={found[1]} doesn't match map pointer in R{first + 1} map_uid={reg.data[1]}"
    )


def callback(target: tuple[MapInfo, int], any_result: bool) -> Setup:
    """The function that does the work: it is given the map, the key and the value."""

    def setup(_: Machine, caller: Frame, callee: Frame) -> None:
        callee.regs[1] = Reg(r.PTR_MAP, 0, ZERO, data=target)
        callee.regs[2] = Reg(r.PTR_MAP_KEY, 0, ZERO, data=target)
        callee.regs[3] = Reg(r.PTR_MAP_VALUE, 0, ZERO, data=target)
        callee.in_async_callback = True
        callee.callback_range = _ANY_INT if any_result else (0, 0)

    return setup
