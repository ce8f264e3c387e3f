"""Random programs that look as if someone meant them: each a few fragments of a few kinds, then perhaps a mistake."""

from __future__ import annotations

import random
from dataclasses import dataclass

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.program import MapDef, Program
from tests.agreement.code import Code
from tests.agreement.fragments import FRAGMENTS, any_fragment
from tests.agreement.fragments_memory import reach, reach_variable
from tests.agreement.fragments_numbers import scalar
from tests.agreement.mutate import mutated
from tests.agreement.writer import CONTEXT, SCALAR, Parts, Value, Writer

# Program types with the attach type they are loaded for, and how often each is drawn.
TYPES = {
    ("socket_filter", ""): 3, ("xdp", ""): 6, ("sched_cls", ""): 6, ("sched_act", ""): 1,
    ("cgroup_skb", "cgroup_inet_egress"): 3, ("kprobe", ""): 3, ("tracepoint", ""): 2, ("raw_tracepoint", ""): 2,
    ("perf_event", ""): 1, ("cgroup_sock", "cgroup_inet_sock_create"): 1, ("sock_ops", "cgroup_sock_ops"): 1,
    ("cgroup_sock_addr", "cgroup_inet4_connect"): 2, ("sk_skb", "sk_skb_stream_verdict"): 1,
    ("sk_msg", "sk_msg_verdict"): 1, ("lwt_xmit", ""): 1, ("lwt_in", ""): 1, ("sk_reuseport", "sk_reuseport_select"): 1,
    ("cgroup_device", "cgroup_device"): 1, ("cgroup_sysctl", "cgroup_sysctl"): 1,
    ("cgroup_sockopt", "cgroup_setsockopt"): 1, ("sk_lookup", "sk_lookup"): 1, ("flow_dissector", "flow_dissector"): 1,
    ("syscall", ""): 1,
}  # fmt: skip

SLEEPABLE = 0x10

# BPF_F_STRICT_ALIGNMENT, BPF_F_ANY_ALIGNMENT, BPF_F_TEST_STATE_FREQ (a state is kept at every instruction), and none.
FLAGS = {0: 17, 0x1: 1, 0x2: 1, 0x8: 2}


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

    def program(self, code: Code | None = None) -> Program:
        """The program; of other code with the same surroundings where given."""
        return Program(
            (code or self.code).encode(),
            self.type,
            self.maps,
            self.license,
            name="generated",
            attach_type=self.attach_type,
            flags=self.flags,
        )


def draft(seed: int) -> Draft:
    """The program of a seed. About half of the seeds are given a mistake."""
    rng = random.Random(seed)
    kind, attach_type = rng.choices(list(TYPES), list(TYPES.values()))[0]
    parts = Parts(rng, kind, attach_type, any_fragment, _of_a_loop)
    _main(parts, rng)
    done = 0
    while done < len(parts.functions):
        label, count = parts.functions[done]
        _function(parts, label, count)
        done += 1
    code = parts.code()
    if rng.random() < 0.5:
        code = mutated(rng, code)
        parts.tiers.add("mutated")
    licensed = "GPL" if rng.random() < 0.95 else "Proprietary"
    flags = rng.choices(list(FLAGS), list(FLAGS.values()))[0] | (SLEEPABLE if kind == "syscall" else 0)
    return Draft(code, kind, attach_type, tuple(parts.maps), licensed, flags, tuple(sorted(parts.tiers)))


def _of_a_loop(w: Writer) -> None:
    """Memory that was found before, reached again and again."""
    w.random.choice((reach, reach_variable))(w)


def _main(parts: Parts, rng: random.Random) -> None:
    w = Writer(parts, {1: Value(CONTEXT)})
    if rng.random() < 0.85:
        w.move(6, 1)
        w.kept.add(6)
    chosen = rng.choices(list(FRAGMENTS), list(FRAGMENTS.values()), k=rng.choice((2, 3, 4, 6)))
    for _ in range(rng.choice((1, 1, 2, 2, 3, 3, 4, 4, 6, 8, 12, 30))):
        rng.choice(chosen)(w)
    _leave(w)


def _function(parts: Parts, label: int, count: int) -> None:
    w = Writer(parts, {register: Value(SCALAR) for register in range(1, count + 1)})
    w.place(label)
    chosen = parts.random.choices(list(FRAGMENTS), list(FRAGMENTS.values()), k=3)
    for _ in range(parts.random.choice((1, 1, 2, 3))):
        parts.random.choice(chosen)(w)
    _leave(w)


def _leave(w: Writer) -> None:
    """The end of a function: a number that the program type may return, and the way out of failed tests."""
    if w.chance(0.8):
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
    w.constant(0, w.choice(0, 0, 1, 1, 2))
    w.emit(Insn(0x95))
