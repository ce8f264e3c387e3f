"""Calls of helpers: whether a program may make them here, callbacks, what they release and what they do besides.

`helper_args` looks at the arguments, `helper_results` at what comes back. Source: check_helper_call of
kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec import helpers as spec
from bpflisp.spec import hooks
from bpflisp.spec.helpers import ArgType, Proto
from bpflisp.spec.insn import Insn
from simulator.verifier import access, calls, formats, hookrules
from simulator.verifier import regs as r
from simulator.verifier.branches import drop_ref
from simulator.verifier.helper_args import Call, check_argument, check_const_string
from simulator.verifier.helper_results import check_map_kind, give_result
from simulator.verifier.maps import RDONLY_PROG
from simulator.verifier.refusal import Unsupported
from simulator.verifier.regs import ZERO, Reg, is_null
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import Frame

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine


_MAP_RECORDED: Final = frozenset(
    {
        "bpf_tail_call", "bpf_map_lookup_elem", "bpf_map_update_elem", "bpf_map_delete_elem", "bpf_map_push_elem",
        "bpf_map_pop_elem", "bpf_map_peek_elem", "bpf_for_each_map_elem", "bpf_redirect_map",
        "bpf_map_lookup_percpu_elem",
    }
)  # fmt: skip
_CALLED_UNDER_LOCK: Final = frozenset({94, 194})
"""bpf_spin_unlock and bpf_kptr_xchg."""


class Helpers:
    """The helpers as one program may call them on one kernel; asked once a program."""

    def __init__(self, m: Machine) -> None:
        program = m.program
        sleepable = bool(program.flags & 16)
        self.kernel = m.kernel
        self.allowed = spec.allowed(m.kernel, program.type, program.attach_type, sleepable)
        self.gpl_only = spec.gpl_only(m.kernel, program.type, program.attach_type, sleepable)
        self.sleepable = sleepable
        self.compatible = m.gpl_compatible
        self.offered: dict[int, tuple[str, Proto]] = {}
        self._protos: dict[int, Proto] = {}

    def proto(self, m: Machine, number: int) -> Proto:
        """The prototype that this program type has of a helper."""
        found = self._protos.get(number)
        if found is None:
            program = m.program
            found = self._protos[number] = spec.proto(
                number, program.type, program.attach_type, self.sleepable, self.kernel
            )
        return found


def call(m: Machine, idx: int, insn: Insn) -> int:
    """A call of a helper; returns the next slot, or EXIT where the call ends the path."""
    if m.state.holds.locks and insn.imm not in _CALLED_UNDER_LOCK:
        m.fail("function calls are not allowed while holding a lock")
    offered = m.helpers.offered.get(insn.imm)
    if offered is None:
        offered = m.helpers.offered[insn.imm] = _offered(m, idx, insn.imm)
    name, proto = offered
    made = Call(name, proto)
    _check_place(m, made, insn.imm)
    m.liveness.begin(idx)
    for number, arg in enumerate(proto.args):
        check_argument(m, made, number + 1, arg, idx)
    _check_map_use(m, made, idx)
    if made.raw is not None:
        _mark_filled(m, *made.raw)
    if made.release:
        _release(m, made, insn.imm)
    _special(m, made, idx)
    calls.clobber(m.frame)
    give_result(m, made, idx)
    check_map_kind(m, made, insn.imm)
    if made.name == "bpf_get_func_ip":
        hookrules.check_get_func_ip(m, insn.imm)
    if name == "bpf_tail_call" and m.ways.tail_calls_return:
        return _after_tail_call(m, idx)
    if insn.imm in m.changes_packet:
        m.forget_packet()
    m.liveness.commit()
    return calls.run_callback(m, m.awaited) if m.awaited is not None else idx + 1


def _offered(m: Machine, idx: int, number: int) -> tuple[str, Proto]:
    """Name and prototype of a helper that this program may call; what is checked does not change from call to call."""
    if not m.typed.allows_helper(m, number) or number not in m.helpers.allowed:
        m.fail(hooks.NOT_ALLOWED if _is_refused_by_hook(m, number) else spec.refusal(number, m.kernel))
    helper = spec.by_id(number)
    if helper is None:
        raise Unsupported(f"helper number {number}", idx)
    proto = m.helpers.proto(m, number)
    if not m.gpl_compatible and number in m.helpers.gpl_only:
        m.fail("cannot call GPL-restricted function from non-GPL compatible program")
    _check_hook(m, proto)
    return helper.name, proto


def _after_tail_call(m: Machine, idx: int) -> int:
    """In a subprogram, a tail call that succeeds is a return: looked at now, its failure later."""
    if len(m.state.frames) == 1:
        m.liveness.commit()
        return idx + 1
    if m.frame.in_callback:
        m.fail("cannot tail call within callback")
    m.scratched_regs |= 1
    m.push_state(idx + 1, idx)
    m.forget_packet()
    m.frame.regs[0] = UNKNOWN_REG
    m.liveness.commit()
    return calls.leave_early(m, idx)


def _is_refused_by_hook(m: Machine, number: int) -> bool:
    """Whether a helper that no program attached there may call is offered to the type, for other attach types."""
    offered = m.program_type == "tracing" and number in spec.allowed(m.kernel, "tracing", "trace_iter")
    return offered and m.gpl_compatible and bool(m.helpers.proto(m, number).allowed_hook)


def _check_hook(m: Machine, proto: Proto) -> None:
    """That a helper for some hooks alone is called from one of those."""
    program = m.program
    try:
        allowed = hooks.allows(proto.allowed_hook, program.type, program.attach_type, program.attach_target)
    except KeyError:
        m.unsupported(f"the helper {proto.name} in this hook")
    if not allowed:
        m.fail(hooks.NOT_ALLOWED)


def _check_place(m: Machine, made: Call, number: int) -> None:
    """That the helper may be called here, where sleeping is perhaps not allowed."""
    holds = m.state.holds
    proto = made.proto
    if proto.might_sleep and not m.state.sleepable:
        m.fail("helper call might sleep in a non-sleepable prog")
    if not proto.might_sleep:
        return
    if holds.rcu:
        m.fail(f"sleepable helper {made.name}#{number} in rcu_read_lock region")
    if holds.preempt:
        m.fail(f"sleepable helper {made.name}#{number} in non-preemptible region")
    if holds.irq_id:
        m.fail(f"sleepable helper {made.name}#{number} in IRQ-disabled region")


def _check_map_use(m: Machine, made: Call, idx: int) -> None:
    if made.name not in _MAP_RECORDED:
        return
    if made.map is None:
        m.fail("kernel subsystem misconfigured verifier")
    target = made.map[0]
    if target.flags & RDONLY_PROG and made.name in (
        "bpf_map_delete_elem", "bpf_map_update_elem", "bpf_map_push_elem", "bpf_map_pop_elem",
    ):  # fmt: skip
        m.fail("write into map forbidden")
    if made.name == "bpf_tail_call":
        if target.type != "prog_array":
            m.fail("expected prog array map for tail call")
        index = m.frame.regs[3]
        if index.type == r.SCALAR and index.num.is_const and index.num.value < target.max_entries:
            m.mark_precise(3)


def _mark_filled(m: Machine, register: int, size: int) -> None:
    """The helper fills so many bytes of stack: each is written as by a store of one unknown byte."""
    for at in range(size):
        access.check_access(m, register, at, 1, True, -2)


def _release(m: Machine, made: Call, number: int) -> None:
    register = made.release
    reg = m.frame.regs[register]
    proto = made.proto
    if proto.args[register - 1].type is ArgType.PTR_TO_DYNPTR:
        m.objects.release_dynptr(m, reg)
        return
    if made.name == "bpf_kptr_xchg" and made.ref:
        m.objects.give_kptr(m, made.ref)
        return
    if made.ref:
        if not release(m, made.ref):
            m.fail(f"func {made.name}#{number} reference has not been acquired before")
    elif not is_null(reg):
        m.fail(f"func {made.name}#{number} reference has not been acquired before")


def release(m: Machine, identity: int) -> bool:
    """Gives a reference back: what pointed to it may no longer be used. False where it is not held."""
    if not drop_ref(m, m.state, identity):
        return False

    def change(reg: Reg) -> Reg:
        return UNKNOWN_REG if reg.ref == identity else reg

    m.state.replace_regs(change)
    return True


def _map_callback(m: Machine, made: Call) -> calls.Setup:
    assert made.map is not None
    target = made.map
    if target[0].type not in (
        "hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "array", "percpu_array",
    ):  # fmt: skip
        m.fail("callback function not allowed for map")

    def setup(_: Machine, caller: Frame, callee: Frame) -> None:
        callee.regs[1] = caller.regs[1]
        callee.regs[2] = Reg(r.PTR_MAP_KEY, 0, ZERO, data=target)
        callee.regs[3] = Reg(r.PTR_MAP_VALUE, 0, ZERO, data=target)
        callee.regs[4] = caller.regs[3]
        callee.in_callback = True

    return setup


def _loop_callback(_: Machine, caller: Frame, callee: Frame) -> None:
    callee.regs[1] = UNKNOWN_REG
    callee.regs[2] = caller.regs[3]
    callee.in_callback = True


def _timer_callback(m: Machine, made: Call) -> calls.Setup:
    assert made.map is not None
    target = made.map

    def setup(_: Machine, caller: Frame, callee: Frame) -> None:
        callee.regs[1] = Reg(r.PTR_MAP, 0, ZERO, data=target)
        callee.regs[2] = Reg(r.PTR_MAP_KEY, 0, ZERO, data=target)
        callee.regs[3] = Reg(r.PTR_MAP_VALUE, 0, ZERO, data=target)
        callee.in_async_callback = True
        callee.callback_range = (0, 0)

    return setup


def _special(m: Machine, made: Call, idx: int) -> None:
    """What single helpers ask for besides their prototype."""
    name, regs = made.name, m.frame.regs
    if name == "bpf_tail_call":
        _tail_call(m, idx)
    elif name == "bpf_get_local_storage":
        if not is_null(regs[2]):
            m.fail("get_local_storage() doesn't support non-zero flags")
    elif name == "bpf_for_each_map_elem":
        calls.push_callback(m, idx, made.subprog, _map_callback(m, made))
    elif name == "bpf_timer_set_callback":
        calls.push_callback(m, idx, made.subprog, _timer_callback(m, made), asynchronous=True)
    elif name == "bpf_find_vma":
        calls.push_callback(m, idx, made.subprog, m.typed.vma_callback(m))
    elif name == "bpf_user_ringbuf_drain":
        calls.push_callback(m, idx, made.subprog, m.objects.drain_callback(m))
    elif name == "bpf_loop":
        _loop(m, made, idx)
    elif name == "bpf_snprintf":
        _check_format(m)
    elif name in ("bpf_dynptr_data", "bpf_dynptr_write", "bpf_dynptr_from_mem"):
        m.objects.special(m, made)
    elif name in ("bpf_per_cpu_ptr", "bpf_this_cpu_ptr"):
        m.typed.special(m, made)
    elif name == "bpf_set_retval":
        hookrules.check_set_retval(m)


def _tail_call(m: Machine, idx: int) -> None:
    calls.check_leaks(m, False, True, "tail_call")


def _loop(m: Machine, made: Call, idx: int) -> None:
    regs, frame = m.frame.regs, m.frame
    m.note_loop_flags(idx, made.subprog)
    if not m.ways.callbacks_are_loops:
        calls.push_callback(m, idx, made.subprog, _loop_callback)
        return
    if regs[1].type != r.SCALAR:
        m.fail("verifier bug: backtracking misuse")  # the kernel looks for where the count comes from
    m.mark_precise(1)
    if frame.callback_depth < regs[1].num.umax:
        calls.push_callback(m, idx, made.subprog, _loop_callback)
        return
    frame.callback_depth = 0
    if m.log.level >= 2:
        m.log.write(f"frame{len(m.state.frames) - 1} bpf_loop iteration limit reached\n")


def _check_format(m: Machine) -> None:
    regs = m.frame.regs
    length = regs[5].num
    if length.value % 8:
        m.fail_silently()
    text = check_const_string(m, 3, regs[3])
    if formats.problem(text, length.value // 8):
        m.fail("Invalid format string")
