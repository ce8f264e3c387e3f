"""Why a program was refused, for a person: problem, because, help, the branches that led there, and the registers.

Each class that is met often has a function that looks at the state and the path: how far the packet was checked and
where, which call gave the pointer that may be null, where a bound was lost. The others say what holds of the class.

Invariant: a reason adds to the kernel's message and never contradicts it; where the state does not show what happened,
`because` is empty. Nothing here is run for programs that are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bpflisp.spec import contexts, helpers
from bpflisp.spec.isa import Kind
from simulator.verdict import Reason, Step, Verdict
from simulator.verifier import early, origins, shapes
from simulator.verifier import regs as r
from simulator.verifier.advice import advice_of
from simulator.verifier.callfacts import packet_changers
from simulator.verifier.origins import KINDS
from simulator.verifier.regs import Reg, type_name
from simulator.verifier.scene import Scene
from simulator.verifier.state import INVALID, Slot

if TYPE_CHECKING:
    from simulator.program import Program
    from simulator.verifier.machine import Machine
    from simulator.verifier.refusal import Refused

SHOWN_BRANCHES: Final = 4
"""How many of the path's last branches a reason shows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at the state brought: words, and the instructions that matter."""

    because: str = ""
    help: str = ""
    slots: tuple[int, ...] = ()


NOTHING: Final = Finding()


def reason_of(refused: Refused, program: Program, m: Machine | None = None) -> Reason:
    """The reason of a refusal; `m` is the machine that ran into it, with its trail, None before exploration."""
    advice = advice_of(refused.code, refused.message)
    if m is None or refused.insn is None:
        finding = _of_whole(refused, m) if m is not None else NOTHING
        if not finding.because:
            finding = Finding(early.because(refused, program), finding.help)
        return Reason(advice.problem, finding.because, finding.help or advice.help)
    scene = Scene(m, refused)
    find = _FINDERS.get(refused.code)
    finding = find(scene) if find is not None else NOTHING
    if not finding.because:
        because, slots = origins.because(scene)
        finding = Finding(because or shapes.because(refused, program), finding.help, slots)
    return Reason(
        advice.problem,
        finding.because,
        finding.help or advice.help,
        path=_path(scene, finding),
        registers=tuple(scene.registers()),
    )


def _path(scene: Scene, finding: Finding) -> tuple[Step, ...]:
    """The instructions that matter and the last branches, in the order of the path, then the refused one."""
    steps = {step.insn: step for step in scene.branches(SHOWN_BRANCHES)}
    for slot in finding.slots:
        steps.setdefault(slot, scene.step(slot))
    steps.pop(scene.idx, None)
    last = {moment.idx: at for at, moment in enumerate(scene.moments)}
    ordered = sorted(steps.values(), key=lambda step: last.get(step.insn, -1))
    return (*ordered, scene.step(scene.idx))


def render(verdict: Verdict, program: Program) -> str:
    """A refusal as text without colour: place, class and problem; the source line; the path and the registers; then
    what the kernel said, because and help. For the command line and the plugin; "" for an accepted program.
    """
    from simulator.results import refusal

    return "" if verdict.accepted else refusal(program, verdict).render()


# What each class finds.


def _packet(scene: Scene) -> Finding:
    register = scene.register
    access = scene.numbers(r"off=(-?\d+) size=(\d+), R\d+\(id=")
    if register is None or len(access) != 2:
        return NOTHING
    reg, (off, size) = scene.value(register), access
    known = reg.data if isinstance(reg.data, int) else 0
    if known < 0:
        tester = scene.giver(lambda one: one.type == reg.type and one.id == reg.id and one.data == known)
        where = f" at {scene.place(tester)}" if tester is not None else ""
        return Finding(
            f"this is the way on which the test{where} found the packet too short",
            "access the packet on the other way of the test",
            (tester,) if tester is not None else (),
        )
    if off < 0:
        return Finding(f"the access begins {-off} before the place that the test is about")
    moved = scene.giver(lambda one: one.type == reg.type and one.id == reg.id) if reg.id else None
    need = f"byte {off} is accessed" if size == 1 else f"bytes {off} to {off + size - 1} are accessed"
    if known == 0:
        return _unchecked(scene, reg, need, off + size, moved)
    tester = scene.giver(lambda one: one.type == reg.type and one.id == reg.id and one.data == known)
    where = f" at {scene.place(tester)}" if tester is not None else ""
    return Finding(
        f"{need}, and the test{where} shows {known} {'byte' if known == 1 else 'bytes'} only",
        f"test for {off + size} bytes instead of {known}",
        (tester,) if tester is not None else (),
    )


def _unchecked(scene: Scene, reg: Reg, need: str, least: int, moved: int | None) -> Finding:
    if moved is not None and reg.num.umax > 0xFFFF - least:
        return Finding(
            f"{need} at an offset of up to {reg.num.umax:#x}, added at {scene.place(moved)}: tests of pointers that "
            "may be moved by more than 0xffff tell nothing",
            "bound the offset before it is added: if (n > 1500) return; or n &= 0x3ff;",
            (moved,),
        )
    if moved is not None:
        return Finding(
            f"{need} past a variable offset that was added at {scene.place(moved)}, and no test came after it; tests "
            "before it count for the old pointer",
            f"test the moved pointer: if (p + {least} > data_end) return;",
            (moved,),
        )
    other = scene.compared(lambda one: one.type == reg.type and one.id == reg.id)
    if other is not None:
        return Finding(
            f"{need}, and the test at {scene.place(other)} shows that they exist on its other way only",
            "turn the test round, or access the packet on the other way",
            (other,),
        )
    return Finding(
        f"{need}, and no test on this path compares this pointer with the packet's end",
        f"if (p + {least} > data_end) return; before the access",
    )


def _null(scene: Scene) -> Finding:
    register = scene.register
    if register is None:
        return NOTHING
    reg = scene.value(register)
    if not reg.type & r.MAYBE_NULL:
        return NOTHING
    origin = scene.giver(lambda one: bool(one.id) and one.id == reg.id)
    if origin is None:
        return Finding(f"r{register} is {type_name(reg.type)}, and no test on this path says that it is not null")
    name = scene.called(origin)
    source = f"what {name} gave" if name else "what was loaded"
    when = _WHEN_NULL.get(name, "")
    return Finding(
        f"r{register} is {source} at {scene.place(origin)}{when}; no test on this path says that it is not null",
        slots=(origin,),
    )


_WHEN_NULL: Final = MappingProxyType(
    {
        "bpf_map_lookup_elem": ", null where the map has no such key",
        "bpf_ringbuf_reserve": ", null where the ring is full",
        "bpf_sk_lookup_tcp": ", null where there is no such socket",
        "bpf_sk_lookup_udp": ", null where there is no such socket",
        "bpf_dynptr_data": ", null where the part is not inside",
        "bpf_iter_num_next": ", null at the end",
    }
)


def _unset_register(scene: Scene) -> Finding:
    register = scene.register
    if register is None:
        return NOTHING
    lost = scene.loser(register, lambda one: one.type != r.NOT_INIT)
    if lost is not None and scene.called(lost):
        return Finding(f"r{register} was lost at {scene.place(lost)}: a call leaves nothing in r1 to r5", slots=(lost,))
    if lost is not None:
        return Finding(f"r{register} was lost at {scene.place(lost)}", slots=(lost,))
    insn = scene.insn
    if register == 0 and insn is not None and insn.row.kind is Kind.EXIT:
        return Finding("nothing on this path sets r0, the return value", "return a value on every path")
    return Finding(f"nothing on this path writes r{register} in this function")


def _unset_stack(scene: Scene) -> Finding:
    found = scene.numbers(r"stack (?:R\d+ )?off (-?\d+)\+\d+ size (\d+)") or scene.numbers(
        r"stack R\d+ off=(-?\d+) size=(\d+)"
    )
    if len(found) != 2:
        return NOTHING
    off, size = found
    if off < -512 or off + size > 0:
        return _outside_frame(off, size)
    stack = scene.frame.stack
    missing = [at for at in range(off, off + size) if _never_written(stack, at)]
    if not missing:
        return NOTHING
    shown = f"fp{missing[0]}" if len(missing) == 1 else f"fp{missing[0]} to fp{missing[-1]}"
    return Finding(f"of the {size} bytes from fp{off}, {len(missing)} were not written on this path: {shown}")


def _outside_frame(off: int, size: int) -> Finding:
    if off + size > 0 and off < 0:
        return Finding(
            f"{size} bytes are accessed from fp{off}, and only {-off} are left there: the frame ends at fp",
            f"give the object {size} bytes, or the call the size of the object: sizeof(object)",
        )
    return Finding(f"{size} bytes are accessed at fp{off:+d}, and a frame is what lies from fp-512 up to fp")


def _stack_bounds(scene: Scene) -> Finding:
    found = scene.numbers(r"stack R\d+ off=(-?\d+) size=(\d+)")
    if len(found) == 2 and "var_off" not in scene.message:
        return _outside_frame(*found)
    return _bounds(scene)


def _never_written(stack: Sequence[Slot], at: int) -> bool:
    slot = (-at - 1) // 8
    return slot >= len(stack) or stack[slot].types[(-at - 1) % 8] == INVALID


def _number_as_address(scene: Scene) -> Finding:
    register = scene.register
    if register is None:
        return NOTHING
    reg = scene.value(register)
    lost = scene.loser(register, lambda one: one.type not in (r.SCALAR, r.NOT_INIT))
    change = scene.last_change(register)
    if lost is not None and lost == change:
        if scene.called(lost):
            moved = scene.called(lost) in packet_changers()
            return Finding(
                f"r{register} was a pointer until {scene.place(lost)}, which "
                + ("may move the packet" if moved else "ended it"),
                "load the packet pointers from the context again after the call, and test them again"
                if moved
                else "use it before the call that ends it",
                (lost,),
            )
        if r.is_null(reg):
            return Finding(f"r{register} is null on this path: it was tested at {scene.place(lost)}", slots=(lost,))
        return Finding(f"r{register} was a pointer until {scene.place(lost)} made it a number", slots=(lost,))
    if r.is_null(reg):
        return Finding(f"r{register} is null on this path", "do not follow the pointer on the way where it is null")
    if change is None:
        return Finding(f"r{register} is a number")
    loaded = _is_load(scene, change)
    how = "was loaded as a number" if loaded else "was computed as a number"
    return Finding(
        f"r{register} {how} at {scene.place(change)}",
        "read memory of the kernel by bpf_probe_read_kernel, or by a typed pointer (BTF)" if loaded else "",
        (change,),
    )


def _is_load(scene: Scene, slot: int) -> bool:
    insn = scene.m.code[slot]
    return insn is not None and insn.row.kind in (Kind.LOAD, Kind.LOAD_SIGNED)


def _span(reg: Reg) -> str:
    num = reg.num
    if num.is_const:
        return f"is {num.smin}"
    if num.smin < 0:
        return f"is between {_limit(num.smin)} and {_limit(num.smax)}"
    return f"is between {num.umin} and {_limit(num.umax)}"


def _limit(number: int) -> str:
    names = {(1 << 64) - 1: "2**64-1", (1 << 63) - 1: "2**63-1", -(1 << 63): "-2**63", (1 << 32) - 1: "2**32-1"}
    return names.get(number, str(number))


def _bounds(scene: Scene) -> Finding:
    """An offset that reaches out of its memory, or may be negative, or has no bound."""
    insn, named = scene.insn, scene.register
    if named is None and insn is not None and insn.row.kind is Kind.ALU and insn.row.reg:
        named = insn.src if scene.value(insn.src).type == r.SCALAR else insn.dst
    if named is None:
        return NOTHING
    reg = scene.value(named)
    origin = _bounded_last(scene, named, reg)
    size = scene.numbers(r"(?:value_size|mem_size|key_size)=(\d+) off=(-?\d+) size=(\d+)")
    limit = f"; of {size[0]} bytes, {size[2]} at offset {size[1]} are accessed" if len(size) == 3 else ""
    if reg.type == r.SCALAR:
        where = f" since {scene.place(origin)}" if origin is not None else ""
        return Finding(f"r{named} {_span(reg)}{where}{limit}", slots=(origin,) if origin is not None else ())
    if reg.num.is_const:
        return Finding(limit.removeprefix("; "))
    where = f", added at {scene.place(origin)}" if origin is not None else ""
    return Finding(f"the offset in r{named} {_span(reg)}{where}{limit}", slots=(origin,) if origin is not None else ())


def _bounded_last(scene: Scene, register: int, reg: Reg) -> int | None:
    """The instruction that gave a register its value; of a pointer, the one that gave it its variable part."""
    if reg.type == r.SCALAR or not reg.id:
        return scene.last_change(register)
    return scene.giver(lambda one: one.type == reg.type and one.id == reg.id) or scene.last_change(register)


def _reference(scene: Scene) -> Finding:
    held = [ref for ref in scene.m.state.holds.refs if ref.kind == "ptr"]
    if "leak" not in scene.message or not held:
        return _unacquired(scene)
    parts = []
    for ref in held:
        name = scene.called(ref.insn)
        parts.append(f"what {name or 'was acquired'} {'gave ' if name else ''}at {scene.place(ref.insn)}")
    first = scene.called(held[0].insn)
    release = _RELEASES.get(first, "")
    return Finding(
        "still held here: " + "; ".join(parts),
        f"call {release} on every path after the test for null" if release else "",
        tuple(ref.insn for ref in held),
    )


_RELEASES: Final = MappingProxyType(
    {
        "bpf_ringbuf_reserve": "bpf_ringbuf_submit or bpf_ringbuf_discard",
        "bpf_ringbuf_reserve_dynptr": "bpf_ringbuf_submit_dynptr or bpf_ringbuf_discard_dynptr, also where it failed,",
        "bpf_sk_lookup_tcp": "bpf_sk_release",
        "bpf_sk_lookup_udp": "bpf_sk_release",
        "bpf_skc_lookup_tcp": "bpf_sk_release",
        "bpf_task_from_pid": "bpf_task_release",
        "bpf_task_acquire": "bpf_task_release",
        "bpf_cgroup_from_id": "bpf_cgroup_release",
        "bpf_cgroup_acquire": "bpf_cgroup_release",
        "bpf_obj_new_impl": "bpf_obj_drop",
        "bpf_iter_num_new": "bpf_iter_num_destroy",
        "bpf_kptr_xchg": "the release function of its type",
    }
)


def _unacquired(scene: Scene) -> Finding:
    register = scene.register
    if register is None:
        return NOTHING
    reg = scene.value(register)
    origin = scene.last_change(register)
    where = f" since {scene.place(origin)}" if origin is not None else ""
    if reg.ref:
        return Finding(
            f"r{register} points {reg.off} bytes behind the start of what was acquired{where}",
            slots=(origin,) if origin is not None else (),
        )
    return Finding(
        f"r{register} holds {type_name(reg.type)}{where}: this path did not acquire it, or has given it back",
        slots=(origin,) if origin is not None else (),
    )


def _argument(scene: Scene) -> Finding:
    register, name = scene.register, scene.called(scene.idx)
    found = re.search(r"type=(\S+) expected=(.*)", scene.message)
    if register is None or found is None:
        return NOTHING
    origin = scene.last_change(register)
    where = f", from {scene.place(origin)}" if origin is not None else ""
    wanted = ", ".join(KINDS.get(kind.strip(), kind.strip()) for kind in found[2].split(","))
    return Finding(
        f"argument {register} of {name or 'the call'} is {KINDS.get(found[1], found[1])}{where}; it takes {wanted}",
        slots=(origin,) if origin is not None else (),
    )


def _return_value(scene: Scene) -> Finding:
    reg = scene.value(0)
    origin = scene.last_change(0)
    where = f" since {scene.place(origin)}" if origin is not None else ""
    found = re.search(r"should have been in \[(-?\d+), (-?\d+)\]", scene.message)
    what = f"r0 {_span(reg)}{where}" if reg.type == r.SCALAR else f"r0 is {type_name(reg.type)}{where}"
    kind = " ".join(filter(None, (scene.m.program.type, scene.m.program.attach_type)))
    kind = "a callback" if "callback" in scene.message else kind
    allowed = f"; {kind} may return {found[1]} to {found[2]}" if found is not None else ""
    return Finding(what + allowed, slots=(origin,) if origin is not None else ())


def _context(scene: Scene) -> Finding:
    found = scene.numbers(r"context access off=(-?\d+) size=(\d+)")
    layout = contexts.context_struct(scene.m.program.type)
    if len(found) != 2:
        moved = scene.register
        slot = scene.last_change(moved) if moved is not None else None
        if slot is None:
            return NOTHING
        return Finding(f"the context pointer was moved at {scene.place(slot)}", slots=(slot,))
    if layout is None:
        return NOTHING
    off, size = found
    insn = scene.insn
    writes = insn is not None and insn.row.kind in (Kind.STORE, Kind.STORE_IMM)
    verb = "write" if writes else "read"
    field = next((one for one in layout.fields if one.offset <= off < one.offset + one.size), None)
    if field is None:
        end = f"; struct {layout.name} has {layout.size} bytes" if off >= layout.size else ""
        return Finding(f"struct {layout.name} has no field at offset {off}{end}")
    kind = " ".join(filter(None, (scene.m.program.type, scene.m.program.attach_type)))
    table = scene.m.context_table
    whole = table is not None and table.access(field.offset, field.size, writes) is not None
    if whole:
        return Finding(
            f"offset {off} is in {layout.name}.{field.name}, which is {verb} as {field.size} bytes at offset "
            f"{field.offset}, not as {size} at {off}"
        )
    return Finding(f"{layout.name}.{field.name} is no field that {kind} programs may {verb}")


def _helper(scene: Scene) -> Finding:
    insn = scene.insn
    helper = helpers.by_id(insn.imm) if insn is not None else None
    if insn is None or helper is None or insn.imm >= helpers.first_unknown(scene.m.kernel):
        number = insn.imm if insn is not None else "?"
        return Finding(f"kernel {scene.m.kernel} has no helper number {number}")
    program = scene.m.program
    since = helpers.min_kernel(insn.imm, program.type, program.attach_type, scene.m.helpers.sleepable)
    kind = " ".join(filter(None, (program.type, program.attach_type)))
    if since:
        return Finding(f"{helper.name} is offered to {kind} programs from kernel {since} on")
    return Finding(f"{helper.name} is offered to {kind} programs by no kernel that we know")


def _licence(scene: Scene) -> Finding:
    name = scene.called(scene.idx)
    return Finding(f"{name} is for GPL-compatible programs, and the licence is {scene.m.program.license!r}")


def _endless(scene: Scene) -> Finding:
    before = [at for at, moment in enumerate(scene.moments[:-1]) if moment.idx == scene.idx]
    if not before:
        return Finding("the state here is one that this path had before: nothing in the loop changes it")
    inside = {moment.idx for moment in scene.moments[before[-1] :]}
    low, high = min(inside), max(inside)
    lines = [line.line for line in map(scene.line, (low, high)) if line is not None]
    where = (f"insn {low} to {high}" if low != high else f"insn {low}") + (
        f" (line {min(lines)} to {max(lines)})" if lines else ""
    )
    return Finding(f"a round through {where} ends in the state that it began with: it would go on for ever")


def _too_long(scene: Scene) -> Finding:
    recent = scene.moments[-20_000:]
    if not recent:
        return NOTHING
    counts: dict[int, int] = {}
    for moment in recent:
        counts[moment.idx] = counts.get(moment.idx, 0) + 1
    hot = max(counts, key=lambda slot: counts[slot])
    if counts[hot] < 50:
        return NOTHING
    inside = sorted(slot for slot, count in counts.items() if count * 2 >= counts[hot])
    return Finding(
        f"the loop through insn {inside[0]} to {inside[-1]} is still running: of the last {len(recent)} instructions "
        f"of this path, {counts[hot]} were {scene.place(hot)}",
        slots=(hot,),
    )


def _dynptr(scene: Scene) -> Finding:
    if "overwrite" not in scene.message:
        return NOTHING
    takers = {ref.id: ref.insn for ref in scene.m.state.holds.refs}
    parts, slots = [], []
    for frame in scene.m.state.frames:
        for at, slot in enumerate(frame.stack):
            if slot.reg.type != r.PTR_DYNPTR or not slot.reg.data[1] or slot.reg.ref not in takers:
                continue
            taker = takers[slot.reg.ref]
            inside = "" if frame is scene.frame else " of a caller's frame"
            parts.append(
                f"the dynptr at fp{-8 * (at + 1)}{inside} holds what {scene.called(taker)} gave at {scene.place(taker)}"
            )
            slots.append(taker)
    return Finding("; ".join(parts), "submit or discard it before its bytes are used again", tuple(slots))


def _lock(scene: Scene) -> Finding:
    held = [ref for ref in scene.m.state.holds.refs if ref.kind == "lock"]
    if not held:
        return NOTHING
    taken = "; ".join(scene.place(ref.insn) for ref in held)
    return Finding(f"a lock is held, taken at {taken}", slots=tuple(ref.insn for ref in held))


def _of_whole(refused: Refused, m: Machine) -> Finding:
    """What can be said of a refusal of the whole program."""
    if refused.code == "call-depth":
        count = len(m.layout.subprograms)
        return Finding(f"each call takes a frame, of which there are 8; the {count} functions call each other deeper")
    if refused.code != "stack-limit":
        return NOTHING
    sizes = [
        f"{one.name or ('main' if not one.number else f'the function at insn {one.start}')} {m.stack_depth[one.number]}"
        for one in m.layout.subprograms
        if m.stack_depth[one.number]
    ]
    return Finding("bytes of stack by function: " + ", ".join(sizes)) if sizes else NOTHING


_FINDERS: Final[Mapping[str, Callable[[Scene], Finding]]] = MappingProxyType(
    {
        "packet-bounds": _packet,
        "maybe-null": _null,
        "uninitialised-register": _unset_register,
        "uninitialised-stack": _unset_stack,
        "scalar-dereference": _number_as_address,
        "stack-bounds": _stack_bounds,
        "unbounded": _bounds,
        "memory-bounds": _bounds,
        "maybe-negative": _bounds,
        "zero-sized": _bounds,
        "reference": _reference,
        "argument-type": _argument,
        "return-range": _return_value,
        "context-access": _context,
        "helper-not-allowed": _helper,
        "gpl-only": _licence,
        "infinite-loop": _endless,
        "too-complex": _too_long,
        "lock": _lock,
        "dynptr": _dynptr,
    }
)
"""Class -> what looks at the state for it."""
