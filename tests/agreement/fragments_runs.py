"""Pieces of plausible programs for what runs exercise: results where they can be seen, functions that helpers call,
packets that change, records for readers, maps of every kind."""

from __future__ import annotations

from bpflisp.spec import contexts
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import FRAME_POINTER, Op
from simulator.program import MapDef
from tests.agreement.fragments_calls import call_by_number, legacy_packet
from tests.agreement.fragments_memory import key_on_stack, packet, reach
from tests.agreement.fragments_numbers import arithmetic, scalar
from tests.agreement.writer import CONTEXT, MEMORY, OTHER, PACKET, SCALAR, Callee, Value, Writer

OUT_SIZE = 96
"""Bytes of the map that results are put into."""


def publish(w: Writer) -> None:
    """Puts the numbers that registers hold into a map, where they can be compared in all their 64 bits."""
    numbers = w.holding(SCALAR)
    if not numbers:
        return
    place = w.free(but=tuple(numbers))
    if place in numbers:
        return
    index = w.new_map(MapDef("", "array", 4, OUT_SIZE, 1))
    w.load_map_value(place, index, 0)
    for number in numbers:
        w.store(place, 8 * number, 8, src=number)
    w.registers.pop(place, None)


def looped(w: Writer) -> None:
    """bpf_loop over a function of the program, with some stack for it to work on."""
    _frame(w, 16)
    label = w.label()
    w.parts.functions.append(Callee(label, {1: Value(SCALAR), 2: Value(MEMORY, 16)}, callback=True))
    w.constant(1, w.choice(0, 1, 2, 5, 9, 40))
    w.load_function(2, label)
    w.move(3, FRAME_POINTER)
    w.alu(Op.ADD, 3, -16)
    w.constant(4, 0)
    w.call(181)
    w.used("callbacks")


def each_element(w: Writer) -> None:
    """bpf_for_each_map_elem: a function of the program sees each element."""
    _frame(w, 16)
    # The order of a hash's elements is the kernel's chance: one has no order.
    kind = w.random.choice(("array", "hash", "percpu_array"))
    index = w.new_map(MapDef("", kind, 4, w.choice(8, 16), w.choice(1, 4) if kind != "hash" else 1))
    label = w.label()
    given = {2: Value(OTHER), 3: Value(MEMORY, w.parts.maps[index].value_size), 4: Value(MEMORY, 16)}
    w.parts.functions.append(Callee(label, given, callback=True))
    w.load_map(1, index)
    w.load_function(2, label)
    w.move(3, FRAME_POINTER)
    w.alu(Op.ADD, 3, -16)
    w.constant(4, 0)
    w.call(164)
    w.used("callbacks")


def _frame(w: Writer, size: int) -> None:
    for at in range(8, size + 8, 8):
        w.store(FRAME_POINTER, -at, 8, imm=w.choice(0, 0, 7))
        w.stack[-at] = Value(SCALAR)


def keyless(w: Writer) -> None:
    """A value pushed to a queue, stack or bloom filter, taken out or looked at."""
    kind = w.random.choice(("queue", "stack", "queue", "stack", "bloom_filter"))
    index = w.new_map(MapDef("", kind, 0, 8, w.choice(1, 3)))
    w.store(FRAME_POINTER, -8, 8, src=scalar(w))
    w.stack[-8] = Value(SCALAR)
    w.move(2, FRAME_POINTER)
    w.alu(Op.ADD, 2, -8)
    if w.chance(0.5):
        w.constant(3, w.choice(0, 0, 2) if kind != "bloom_filter" else 0)
        w.load_map(1, index)
        w.call(87)
    else:
        w.load_map(1, index)
        w.call(w.choice(88, 89) if kind != "bloom_filter" else 89)
    result = w.free(but=(0,))
    w.load(result, FRAME_POINTER, -8, 8)
    w.used("queues")


def longest_prefix(w: Writer) -> None:
    """A lookup, an update or a deletion in an LPM trie."""
    index = w.new_map(MapDef("", "lpm_trie", 8, 8, 16, flags=1))
    w.store(FRAME_POINTER, -16, 4, imm=w.choice(0, 8, 24, 32, 32))
    w.store(FRAME_POINTER, -12, 4, imm=w.choice(0, 1, 0x0100A8C0, -1))
    w.stack.pop(-16, None)
    w.move(2, FRAME_POINTER)
    w.alu(Op.ADD, 2, -16)
    kind = w.random.random()
    if kind < 0.5:
        w.load_map(1, index)
        w.call(1)
        w.registers[0] = Value(OTHER)
        w.jump(Op.EQ, 0, w.fail, imm=0)
        w.registers[0] = Value(MEMORY, 8)
        reach(w)
    elif kind < 0.8:
        w.store(FRAME_POINTER, -8, 8, imm=w.number())
        w.stack[-8] = Value(SCALAR)
        w.move(3, FRAME_POINTER)
        w.alu(Op.ADD, 3, -8)
        w.constant(4, w.choice(0, 1, 2))
        w.load_map(1, index)
        w.call(2)
    else:
        w.load_map(1, index)
        w.call(3)
    w.used("lpm")


def record(w: Writer) -> None:
    """A record for a reader, copied from the stack: of a ring buffer or of a perf event array."""
    size = w.choice(4, 8, 16)
    for at in range(0, size, 4):
        w.store(FRAME_POINTER, at - 16, 4, src=scalar(w)) if w.chance(0.4) else w.store(
            FRAME_POINTER, at - 16, 4, imm=at
        )
    w.stack = {off: value for off, value in w.stack.items() if off < -16}
    sources = w.holding(CONTEXT)
    if sources and w.chance(0.4) and w.parts.type not in ("socket_filter", "cgroup_skb", "sk_lookup", "syscall"):
        index = w.new_map(MapDef("", "perf_event_array", 4, 4, 2))
        w.move(1, w.random.choice(sources))
        w.load_map(2, index)
        w.emit(Insn(0xB4, 3, imm=w.choice(-1, -1, -1, 0, 1)))
        w.move(4, FRAME_POINTER)
        w.alu(Op.ADD, 4, -16)
        w.constant(5, size)
        w.call(25)
    else:
        index = w.new_map(MapDef("", "ringbuf", 0, 0, 4096))
        w.load_map(1, index)
        w.move(2, FRAME_POINTER)
        w.alu(Op.ADD, 2, -16)
        w.constant(3, size)
        w.constant(4, w.choice(0, 0, 1, 2, 4))
        w.call(130)
    w.used("records")


# Helpers by program type that work on packets, and how often each is drawn.
_SKB = {26: 4, 50: 1, 39: 3, 68: 1}
_TC = _SKB | {9: 4, 10: 2, 11: 2, 18: 1, 19: 1, 23: 1, 31: 1, 32: 1, 38: 2, 40: 1, 43: 2, 44: 1, 48: 1, 28: 2, 62: 1}
_PACKET_HELPERS = {
    "xdp": {44: 4, 54: 3, 65: 3, 188: 2, 189: 3, 190: 3, 28: 2, 23: 1, 51: 1},
    "sched_cls": _TC, "sched_act": _TC, "socket_filter": {26: 4, 68: 2}, "cgroup_skb": {26: 4, 68: 2},
    "lwt_xmit": {26: 3, 9: 3, 10: 1, 11: 1, 39: 2, 28: 1, 38: 1, 43: 1}, "lwt_in": {26: 3, 39: 2, 28: 1},
    "flow_dissector": {26: 1},
}  # fmt: skip


def packet_helper(w: Writer) -> None:
    """A helper that reads or changes the packet; then the packet is found again."""
    drawn = _PACKET_HELPERS.get(w.parts.type)
    if not drawn or not w.holding(CONTEXT):
        return
    if call_by_number(w, w.random.choices(list(drawn), list(drawn.values()))[0]):
        w.forget(PACKET)
        w.used("packet-helpers")
        if w.chance(0.6):
            packet(w)


def shrunk_and_grown(w: Writer) -> None:
    """The packet's head, tail or metadata moved by a few bytes."""
    sources = w.holding(CONTEXT)
    if w.parts.type != "xdp" or not sources:
        return
    w.move(1, w.random.choice(sources))
    w.constant(2, w.choice(0, -4, 4, -8, 8, -32, 14, 20, -300, 2000))
    w.call(w.choice(44, 54, 65))
    w.forget(PACKET)
    w.used("packet-helpers")
    if w.chance(0.7):
        packet(w)


def callback_body(w: Writer) -> None:
    """What a function that a helper calls works on."""
    w.random.choice((arithmetic, arithmetic, reach, reach))(w)


def old_load(w: Writer) -> None:
    """A legacy packet load, which takes its context from r6."""
    table = contexts.access_table(w.parts.type, w.parts.attach_type)
    if table is not None and w.parts.type in ("socket_filter", "sched_cls", "sched_act"):
        legacy_packet(w)
        w.forget(PACKET)


def per_cpu(w: Writer) -> None:
    """A value of a per-CPU map of a CPU that is named."""
    index = w.new_map(MapDef("", w.random.choice(("percpu_array", "percpu_hash")), 4, 8, 4))
    key_on_stack(w, 2, 4)
    w.load_map(1, index)
    w.constant(3, w.choice(0, 1, 1, 7))
    w.call(195)
    w.registers[0] = Value(OTHER)
    w.jump(Op.EQ, 0, w.fail, imm=0)
    w.registers[0] = Value(MEMORY, 8)
    reach(w)
    w.used("per-cpu")
