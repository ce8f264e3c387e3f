"""Calls of the program's own functions, callbacks, and returns from both.

Source: check_func_call, push_callback_call, prepare_func_exit and check_return_code of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpflisp.spec.insn import Insn
from simulator.verifier import marks, prune
from simulator.verifier import regs as r
from simulator.verifier.regs import NOTHING, ZERO, Reg, type_name
from simulator.verifier.retval import ReturnRange, outside_text
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import MAIN_CALLSITE, Frame, State

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

MAX_FRAMES: Final = 8
EXIT: Final = -1
"""What a step returns where the path ends."""

Setup = Callable[["Machine", Frame, Frame], None]


def enter(m: Machine, state: State, subprog: int, callsite: int, setup: Setup) -> Frame:
    """A frame for a function, its arguments set up from the caller's registers."""
    callee = _made(m, state, subprog, callsite, setup)
    state.frames.append(callee)
    m.touch_all()
    return callee


def _made(m: Machine, state: State, subprog: int, callsite: int, setup: Setup) -> Frame:
    """The frame of a function that is called, not entered yet."""
    depth = len(state.frames)
    if depth + 1 > MAX_FRAMES:
        m.fail(f"the call stack of {depth + 1} frames is too deep")
    callee = Frame(depth, callsite, subprog)
    callee.regs[10] = Reg(r.PTR_STACK, 0, ZERO, data=depth)
    setup(m, state.frames[-1], callee)
    if state.frames[-1].marks is not None:
        marks.enter(state, state.frames[-1], callee)
    return callee


def run_callback(m: Machine, callee: Frame) -> int:
    """The callback of a helper is looked at now, once, as if the helper had called it before the next instruction."""
    m.awaited = None
    m.liveness.leave()
    m.state.frames.append(callee)
    m.touch_all()
    m.frame = callee
    m.name_frames()
    return m.layout.subprograms[callee.subprog].start


def _same_arguments(m: Machine, caller: Frame, callee: Frame) -> None:
    callee.regs[1:6] = caller.regs[1:6]


def clobber(frame: Frame) -> None:
    """A call leaves nothing in r0 to r5."""
    frame.regs[0:6] = [NOTHING] * 6
    if frame.marks is not None:
        frame.marks.written_regs |= 0x3F


def call_subprogram(m: Machine, idx: int, insn: Insn) -> int:
    """A call of one of the program's functions: a static one is walked through, a global one is verified by itself."""
    subprog = m.subprog_at(idx + insn.imm + 1)
    number = subprog.number
    state = m.state
    if subprog.is_global:
        return _call_global(m, idx, number)
    m.globals.complain(m, number)
    m.liveness.leave()
    enter(m, state, number, idx, _same_arguments)
    clobber(state.frames[-2])
    m.frame = state.frames[-1]
    m.name_frames()
    if m.log.level:
        m.log.write("caller:\n")
        m.log.state(m, state, len(state.frames) - 2, True)
        m.log.write("callee:\n")
        m.log.state(m, state, len(state.frames) - 1, True)
    return subprog.start


def _call_global(m: Machine, idx: int, number: int) -> int:
    subprog = m.layout.subprograms[number]
    holds = m.state.holds
    fits = m.globals.takes(m, number)
    if holds.locks:
        m.fail("global function calls are not allowed while holding a lock,", "use static function instead")
    if holds.preempt and not m.ways.global_calls_in_sections:
        m.fail("global function calls are not allowed with preemption disabled,", "use static function instead")
    if (
        m.ways.global_calls_in_sections
        and subprog.might_sleep
        and (holds.rcu or holds.preempt or holds.irq_id or not m.state.sleepable)
    ):
        m.fail(
            "global functions that may sleep are not allowed in non-sleepable context,",
            "i.e., in a RCU/IRQ/preempt-disabled section, or in",
            "a non-sleepable BPF program context",
        )
    if not fits:
        m.fail(f"Caller passes invalid args into func#{number} ('{subprog.name}')")
    m.log_line(f"Func#{number} ('{subprog.name}') is global and assumed valid.")
    if subprog.changes_packet:
        m.forget_packet()
    m.globals.called.add(number)
    clobber(m.frame)
    m.frame.regs[0] = UNKNOWN_REG
    return idx + 1


def push_callback(
    m: Machine, idx: int, subprog: int, setup: Setup, asynchronous: bool = False, sleepable: bool = False
) -> None:
    """The function that a helper was given is looked at later, as it is called by the helper."""
    start = m.layout.subprograms[subprog].start
    m.globals.complain(m, subprog)
    m.callbacks.add(subprog)
    caller = m.frame
    if asynchronous:
        _push_async(m, idx, subprog, setup, sleepable)
        return
    if not m.ways.callbacks_are_loops:
        m.awaited = _made(m, m.state, subprog, idx, setup)
        return
    state = m.push_state(start, idx)
    enter(m, state, subprog, idx, setup)
    state.callback_unroll += 1
    state.frames[-2].callback_depth += 1
    caller.callback_depth = 0


def _push_async(m: Machine, idx: int, subprog: int, setup: Setup, sleepable: bool) -> None:
    state = State()
    state.sleepable = sleepable
    frame = m.marked(Frame(0, MAIN_CALLSITE, subprog))
    frame.regs[10] = Reg(r.PTR_STACK, 0, ZERO, data=0)
    frame.async_entry = m.frame.async_entry + 1
    setup(m, m.frame, frame)
    state.frames.append(frame)
    m.touch_all()
    m.async_callbacks.add(subprog)
    m.push_made(state, m.layout.subprograms[subprog].start, idx)


def _within(reg: Reg, bounds: tuple[int, int], low_half: bool) -> bool:
    if low_half:
        return bounds[0] <= reg.num.smin32 and reg.num.smax32 <= bounds[1]
    return bounds[0] <= reg.num.smin and reg.num.smax <= bounds[1]


def leave(m: Machine, idx: int) -> int:
    """A return from a function to its caller, or from a callback to the helper that called it."""
    m.liveness.update(*m.frame_names())
    state = m.state
    callee = state.frames[-1]
    r0 = callee.regs[0]
    if r0.type == r.PTR_STACK:
        m.fail("cannot return stack pointer to the caller")
    caller = state.frames[-2]
    if callee.in_callback:
        if r0.type != r.SCALAR:
            m.fail("R0 not a scalar value")
        m.mark_precise(0)
        _check_range(m, "At callback return", 0, r0, ReturnRange(*callee.callback_range))
        then = callee.callsite if m.ways.callbacks_are_loops else callee.callsite + 1
    else:
        caller.regs[0] = r0
        if caller.marks is not None:
            marks.leave(state, caller, callee)
        then = callee.callsite + 1
    if m.log.level:
        m.log.write("returning from callee:\n")
        m.log.state(m, state, len(state.frames) - 1, True)
        m.log.write(f"to caller at {then}:\n")
        m.log.state(m, state, len(state.frames) - 2, True)
    state.frames.pop()
    m.frame = caller
    m.name_frames()
    if callee.in_callback and m.ways.callbacks_are_loops:
        previous = prune.find_previous(m, state, then)
        if previous is not None:
            prune.widen(m, previous, state)
    m.starts_afresh = True
    return then


def leave_early(m: Machine, idx: int) -> int:
    """A return by another instruction than an exit: the log goes on without the whole state."""
    then = leave(m, idx)
    m.starts_afresh = False
    return then


def check_leaks(m: Machine, throws: bool, check_locks: bool, what: str) -> None:
    """That nothing is still held where it would be lost."""
    holds = m.state.holds
    if not m.ways.sections_close_before_references and what.startswith("BPF_EXIT"):
        _check_sections_closed(m)
    if check_locks and holds.locks:
        m.fail(f"{what} cannot be used inside bpf_spin_lock-ed region")
    if throws or len(m.state.frames) == 1:
        lost = [f"Unreleased reference id={ref.id} alloc_insn={ref.insn}" for ref in holds.refs if ref.kind == "ptr"]
        if lost:
            m.fail(*lost, f"{what} would lead to reference leak")
    if check_locks and holds.irq_id:
        m.fail(f"{what} cannot be used inside bpf_local_irq_save-ed region")
    if check_locks and holds.rcu:
        m.fail(f"{what} cannot be used inside bpf_rcu_read_lock-ed region")
    if check_locks and holds.preempt:
        m.fail(f"{what} cannot be used inside bpf_preempt_disable-ed region")


def _check_sections_closed(m: Machine) -> None:
    """What kernels before 6.14 say at the exit of a program that leaves a section open; a lock, of any function."""
    holds = m.state.holds
    inner = len(m.state.frames) > 1
    if holds.locks and (not inner or not m.ways.locks_span_functions):
        m.fail("bpf_spin_unlock is missing")
    if inner:
        return
    if holds.rcu:
        m.fail("bpf_rcu_read_unlock is missing")
    if holds.preempt:
        m.fail(f"{holds.preempt} bpf_preempt_enable{' is' if holds.preempt == 1 else '(s) are'} missing")


def exit_step(m: Machine, idx: int) -> int:
    """An exit instruction."""
    inner = len(m.state.frames) > 1
    check_leaks(m, False, not inner, "BPF_EXIT instruction in main prog")
    if inner:
        return leave(m, idx)
    check_return(m)
    return EXIT


def check_return(m: Machine, register: int = 0) -> None:
    """That a program returns what its type lets it return, in r0; or in r1 of bpf_throw what it will return then."""
    frame = m.state.frames[0]
    if m.subprog and not frame.in_async_callback and not frame.in_exception_callback:
        if register or not m.globals.returns_void(m, m.subprog):
            kind = m.readable(register).type
            if kind != r.SCALAR:
                m.fail(f"At subprogram exit the register R{register} is not a scalar value ({type_name(kind)})")
        return
    wanted = m.return_range
    where = "At program exit"
    if frame.in_async_callback:
        where, wanted = "At async callback return", ReturnRange(*frame.callback_range)
    elif m.returns_void:
        return
    reg = m.readable(register)
    if wanted is None:
        return
    if reg.type != r.SCALAR:
        m.fail(f"{where} the register R{register} is not a known value ({type_name(reg.type)})")
    if m.ways.returns_are_precise:
        m.mark_precise(register)
    _check_range(m, where, register, reg, wanted)


def _check_range(m: Machine, where: str, register: int, reg: Reg, wanted: ReturnRange) -> None:
    """That a number that is returned lies in its range; before 6.8, that its known bits do."""
    if m.ways.returns_are_precise:
        if not _within(reg, (wanted.low, wanted.high), wanted.width == 32):
            m.fail(outside_text(where, f"R{register}", reg.num.smin, reg.num.smax, wanted))
        return
    span = wanted.low ^ wanted.high
    mask = (1 << span.bit_length()) - 1
    allowed = (wanted.low & ~mask, mask)
    bits = (reg.num.value, reg.num.mask)
    if bits[1] & ~mask or bits[0] & ~mask != allowed[0]:
        found = "unknown scalar value" if reg.num.mask == (1 << 64) - 1 else f"value ({bits[0]:#x}; {bits[1]:#x})"
        m.fail(f"{where} the register R{register} has {found} should have been in ({allowed[0]:#x}; {allowed[1]:#x})")
