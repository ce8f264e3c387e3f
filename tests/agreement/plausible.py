"""Random programs that look as if someone meant them: each a few fragments of a few kinds, then perhaps a mistake."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from bpflisp.spec.btf import INT_SIGNED, Btf
from bpflisp.spec.btf_build import BtfBuilder, Int, Pointer, Signature, Void
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.program import FuncInfo, MapDef, Program
from tests.agreement import types
from tests.agreement.code import Code
from tests.agreement.fragments import RUN_FRAGMENTS, VERDICT_FRAGMENTS, Fragment, any_of
from tests.agreement.fragments_memory import reach, reach_variable
from tests.agreement.fragments_numbers import scalar
from tests.agreement.fragments_runs import callback_body, publish
from tests.agreement.mutate import mutated
from tests.agreement.writer import CONTEXT, Callee, Parts, Value, Writer

# Program types with the attach type they are loaded for, and how often each is drawn.
TYPES = {
    ("socket_filter", ""): 3, ("xdp", ""): 6, ("sched_cls", ""): 6, ("sched_act", ""): 1,
    ("cgroup_skb", "cgroup_inet_egress"): 3, ("kprobe", ""): 3, ("tracepoint", ""): 2, ("raw_tracepoint", ""): 2,
    ("perf_event", ""): 1, ("cgroup_sock", "cgroup_inet_sock_create"): 1, ("sock_ops", "cgroup_sock_ops"): 1,
    ("cgroup_sock_addr", "cgroup_inet4_connect"): 2, ("sk_skb", "sk_skb_stream_verdict"): 1,
    ("sk_msg", "sk_msg_verdict"): 1, ("lwt_xmit", ""): 1, ("lwt_in", ""): 1, ("sk_reuseport", "sk_reuseport_select"): 1,
    ("cgroup_device", "cgroup_device"): 1, ("cgroup_sysctl", "cgroup_sysctl"): 1,
    ("cgroup_sockopt", "cgroup_setsockopt"): 1, ("sk_lookup", "sk_lookup"): 1, ("flow_dissector", "flow_dissector"): 1,
    ("syscall", ""): 2, ("tracing", "trace_raw_tp"): 3,
}  # fmt: skip

TARGETS = ("task_newtask", "sched_switch", "sys_enter", "kfree_skb")
"""Tracepoints that tracing programs attach to."""

# The types that a test run of the kernel takes, for programs that are to be run.
RUN_TYPES = {
    ("xdp", ""): 6, ("sched_cls", ""): 6, ("sched_act", ""): 1, ("socket_filter", ""): 3,
    ("cgroup_skb", "cgroup_inet_egress"): 2, ("cgroup_skb", "cgroup_inet_ingress"): 1, ("lwt_xmit", ""): 1,
    ("lwt_in", ""): 1, ("flow_dissector", "flow_dissector"): 1, ("sk_lookup", "sk_lookup"): 1, ("syscall", ""): 2,
    ("raw_tracepoint", ""): 2,
}  # fmt: skip

SLEEPABLE = 0x10

# BPF_F_STRICT_ALIGNMENT, BPF_F_ANY_ALIGNMENT, BPF_F_TEST_STATE_FREQ (a state is kept at every instruction), and none.
FLAGS = {0: 17, 0x1: 1, 0x2: 1, 0x8: 2}


@dataclass(frozen=True, slots=True)
class Aim:
    """What drafts are for: the types and fragments that they are drawn from, the part of them that gets a mistake, and
    whether they are to do the same in every run and show what they came to."""

    types: Mapping[tuple[str, str], int]
    fragments: Mapping[Fragment, int]
    mistakes: float
    repeatable: bool = False


VERDICTS = Aim(TYPES, VERDICT_FRAGMENTS, 0.3)
OWN = Aim({key: weight for key, weight in TYPES.items() if key not in RUN_TYPES}, RUN_FRAGMENTS, 0.04, repeatable=True)
"""Programs of types that the kernel does not run in a test: our engines are held to each other."""

RUNS = Aim(RUN_TYPES, RUN_FRAGMENTS, 0.04, repeatable=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """A generated program before it is encoded."""

    code: Code
    type: str
    attach_type: str
    maps: tuple[MapDef, ...]
    license: str
    flags: int
    tiers: tuple[str, ...]
    callees: tuple[Callee, ...] = ()
    typed: bool = False
    target: str = ""

    def program(self, code: Code | None = None) -> Program:
        """The program; of other code with the same surroundings where given."""
        code = code or self.code
        btf, functions = (_typed if self.typed else _described)(self.callees, code)
        slots = [0, *accumulate(node.insn.slots for node in code.nodes)]
        return Program(
            code.encode(),
            self.type,
            self.maps,
            self.license,
            name="generated",
            attach_type=self.attach_type,
            flags=self.flags,
            attach_target=self.target,
            btf=btf,
            func_info=functions,
            kfuncs={slot: node.kfunc for slot, node in zip(slots, code.nodes, strict=False) if node.kfunc},
        )


def _described(callees: Sequence[Callee], code: Code) -> tuple[Btf | None, tuple[FuncInfo, ...]]:
    """The types of the program's functions, which the kernel asks for where a helper calls one of them."""
    if not any(callee.callback for callee in callees):
        return None, ()
    slots = [0, *accumulate(node.insn.slots for node in code.nodes)]
    starts = sorted(((slots[code.labels[callee.label]], callee) for callee in callees), key=lambda one: one[0])
    builder, number = BtfBuilder(), Int("int", 4, INT_SIGNED)
    found = [FuncInfo(0, builder.func("main", Signature(number, [("context", Pointer(Void()))]), 0))]
    for start, callee in starts:
        params = [(f"a{register}", number) for register in range(1, max(callee.registers, default=0) + 1)]
        found.append(FuncInfo(start, builder.func(f"f{start}", Signature(number, params), 0)))
    return Btf(builder.to_bytes()), tuple(found)


def _typed(callees: Sequence[Callee], code: Code) -> tuple[Btf | None, tuple[FuncInfo, ...]]:
    """The same with the types that maps and objects have."""
    known = types.types()
    slots = [0, *accumulate(node.insn.slots for node in code.nodes)]
    starts = sorted(((slots[code.labels[callee.label]], callee) for callee in callees), key=lambda one: one[0])
    found = [FuncInfo(0, known.main)]
    for start, callee in starts:
        count = max(callee.registers, default=0)
        found.append(FuncInfo(start, known.functions[callee.is_global, count]))
    return known.btf, tuple(found)


def draft(seed: int, aim: Aim = VERDICTS, type_: tuple[str, str] | None = None) -> Draft:
    """The program of a seed, of one type where that is given. About half of the seeds are given a mistake."""
    rng = random.Random(seed)
    kind, attach_type = type_ or rng.choices(list(aim.types), list(aim.types.values()))[0]
    inside = partial(any_of, aim.fragments)
    parts = Parts(rng, kind, attach_type, inside, _of_a_loop, aim.repeatable)
    _main(parts, rng, aim.fragments)
    done = 0
    while done < len(parts.functions):
        _function(parts, parts.functions[done], aim.fragments)
        done += 1
    code = parts.code()
    if rng.random() < aim.mistakes:
        code = mutated(rng, code)
        parts.tiers.add("mutated")
    licensed = "GPL" if rng.random() < 0.95 else "Proprietary"
    flags = 0 if aim.repeatable else rng.choices(list(FLAGS), list(FLAGS.values()))[0]
    flags |= SLEEPABLE if kind == "syscall" else 0
    tiers = tuple(sorted(parts.tiers))
    target = rng.choice(TARGETS) if kind == "tracing" else ""
    callees = tuple(parts.functions)
    if not aim.repeatable and any(callee.callback for callee in callees):
        parts.typed = True
    return Draft(code, kind, attach_type, tuple(parts.maps), licensed, flags, tiers, callees, parts.typed, target)


def _of_a_loop(w: Writer) -> None:
    """Memory that was found before, reached again and again."""
    w.random.choice((reach, reach_variable))(w)


def _main(parts: Parts, rng: random.Random, fragments: Mapping[Fragment, int]) -> None:
    w = Writer(parts, {1: Value(CONTEXT)})
    if rng.random() < 0.85:
        w.move(6, 1)
        w.kept.add(6)
    chosen = rng.choices(list(fragments), list(fragments.values()), k=rng.choice((2, 3, 4, 6)))
    for _ in range(rng.choice((1, 1, 2, 2, 3, 3, 4, 4, 6, 8, 12, 30))):
        rng.choice(chosen)(w)
    _leave(w)


def _function(parts: Parts, callee: Callee, fragments: Mapping[Fragment, int]) -> None:
    w = Writer(parts, dict(callee.registers))
    w.place(callee.label)
    chosen = parts.random.choices(list(fragments), list(fragments.values()), k=3)
    if callee.callback:
        chosen = [callback_body]
    for _ in range(parts.random.choice((1, 1, 2, 3))):
        parts.random.choice(chosen)(w)
    _leave(w, callee.callback, callee.later)


def _leave(w: Writer, small: bool = False, zero: bool = False) -> None:
    """The end of a function: a number that the program type may return, and the way out of failed tests."""
    if w.parts.repeatable:
        publish(w)
        small = small or w.parts.type in _RETURN_LITTLE
    if zero and w.chance(0.9):
        w.constant(0, 0)
    elif small:
        w.move(0, scalar(w))
        w.alu(Op.AND, 0, 1)
    elif w.parts.repeatable and w.chance(0.7):
        w.move(0, scalar(w))
    elif w.chance(0.8):
        w.constant(0, w.choice(0, 0, 1))
    elif w.chance(0.6):
        register = scalar(w)
        w.move(0, register)
        w.alu(Op.AND, 0, 1)
    elif 0 not in w.registers:
        w.move(0, scalar(w))
    w.emit(Insn(0x95))
    if all(node.to != w.fail for node in w.parts.nodes):
        return
    w.place(w.fail)
    w.constant(0, 0 if zero else w.choice(0, 0, 1, 1, 1 if small else 2))
    w.emit(Insn(0x95))


_RETURN_LITTLE = frozenset({"cgroup_skb", "flow_dissector", "sk_lookup"})
"""Types whose programs may return 0 and 1, and not much else."""
