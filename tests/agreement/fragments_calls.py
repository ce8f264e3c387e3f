"""Pieces of plausible programs that call: helpers with arguments of every kind, sockets, functions, other programs."""

from __future__ import annotations

from bpflisp.spec import contexts, helpers
from bpflisp.spec import maps as map_types
from bpflisp.spec.helpers import ArgType, Proto, RetType
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    FRAME_POINTER,
    LD,
    MODE_ABS,
    MODE_IND,
    SIZE_BITS,
    Op,
)
from simulator.helpers.registry import model_of
from simulator.program import MapDef
from tests.agreement.fragments_numbers import arithmetic, scalar
from tests.agreement.writer import CONTEXT, MEMORY, OTHER, PACKET, SCALAR, Callee, Value, Writer

# Helpers that need what only a fragment of their own gives, or that say something to the system's log.
NOT_BY_ITSELF = frozenset(
    {6, 12, 36, 58, 64, 65, 84, 85, 86, 93, 94, 99, 127, 131, 132, 133, 177, 181, 194, 198, 201, 202, 209}
)

HOST_S = frozenset(
    {
        5, 7, 14, 16, 17, 22, 24, 27, 34, 35, 42, 46, 47, 55, 67, 80, 109, 117, 118, 119, 120, 122, 123, 125, 141, 158,
        160, 166, 168, 169, 171, 208,
    }
)  # fmt: skip
"""Helpers that tell the kernel's time, chance, tasks, stacks and cgroups, or signal the process: not a world's."""


def function_call(w: Writer) -> None:
    """A call of a function of the program, with numbers or memory in its arguments."""
    if len(w.parts.functions) >= 3 or w.depth > 2:
        return
    count = w.choice(0, 1, 2, 3)
    for register in range(1, count + 1):
        if w.registers.get(register, Value(OTHER)).kind != SCALAR:
            have = [source for source in w.holding(SCALAR) if source > count]
            w.move(register, w.random.choice(have)) if have and w.chance(0.6) else w.constant(register, w.number())
    label = w.label()
    w.parts.functions.append(Callee(label, {register: Value(SCALAR) for register in range(1, count + 1)}))
    w.call_function(label)
    w.used("subprograms")


def socket(w: Writer) -> None:
    """A socket: the context's own, or one that is looked up and given back; tested and read."""
    sources = w.holding(CONTEXT)
    if not sources:
        return
    if w.parts.type in _LOOKS_UP and w.chance(0.6):
        _looked_up(w, w.random.choice(sources))
        return
    table = contexts.access_table(w.parts.type, w.parts.attach_type)
    places = [place for place, access in table.reads.items() if access.kind.startswith("sock")] if table else []
    if not places:
        return
    off, size = w.random.choice(places)
    own = w.free(but=(1, 2), saved=w.chance(0.5))
    w.load(own, w.random.choice(sources), off, size)
    w.registers[own] = Value(OTHER)
    if w.chance(0.8):
        w.jump(Op.EQ, own, w.fail, imm=0)
    if w.parts.type in _LOOKS_UP and w.chance(0.5):
        w.move(1, own)
        w.call(w.choice(95, 96))  # bpf_sk_fullsock, bpf_tcp_sock
        w.registers[0] = Value(OTHER)
        if w.chance(0.9):
            w.jump(Op.EQ, 0, w.fail, imm=0)
        own = 0
    w.load(w.free(but=(own,)), own, w.choice(0, 4, 8, 12, 16, 24, 44, 48, 72), 4)
    w.used("sockets")


_LOOKS_UP = ("sched_cls", "sched_act", "cgroup_skb", "xdp", "sk_skb")


def _looked_up(w: Writer, context: int) -> None:
    """A reference to a socket, which has to be given back on every way out."""
    for at in range(0, 16, 4):
        w.store(FRAME_POINTER, at - 16, 4, imm=0)
    w.stack = {off: value for off, value in w.stack.items() if off < -16}
    w.move(1, context)
    w.move(2, FRAME_POINTER)
    w.alu(Op.ADD, 2, -16)
    w.constant(3, w.choice(12, 12, 12, 36, 8))
    w.constant(4, w.choice(-1, 0))
    w.constant(5, 0)
    w.call(w.choice(84, 84, 85, 99))  # bpf_sk_lookup_tcp, _udp, bpf_skc_lookup_tcp
    w.registers[0] = Value(OTHER)
    past = w.label()
    w.jump(Op.EQ, 0, past, imm=0)
    found = w.save(0)
    w.registers[found] = Value(OTHER)
    w.kept.add(found)
    if w.chance(0.5):
        w.load(w.free(but=(found,)), found, w.choice(0, 4, 12, 16, 44, 72), 4)
    if w.chance(0.4):
        arithmetic(w)
    w.kept.discard(found)
    w.move(1, found)
    w.call(86)  # bpf_sk_release
    w.registers.pop(found, None)
    w.registers.clear()
    for register in w.kept - {FRAME_POINTER}:
        w.registers[register] = Value(CONTEXT)
    w.place(past)
    w.used("sockets")


def tail_call(w: Writer) -> None:
    """A jump to another program."""
    sources = w.holding(CONTEXT)
    if not sources:
        return
    index = w.new_map(MapDef("", "prog_array", 4, 4, 4))
    w.move(1, w.random.choice(sources))
    w.load_map(2, index)
    w.constant(3, w.choice(0, 3, 5)) if w.chance(0.6) else w.move(3, w.random.choice(w.holding(SCALAR) or [10]))
    w.call(12)
    w.used("tail-calls")


_LEGACY = ("socket_filter", "sched_cls", "sched_act")


def legacy_packet(w: Writer) -> None:
    """The packet loads of old, that leave the program where a byte is not there."""
    if 6 not in w.holding(CONTEXT) or (w.parts.type not in _LEGACY and w.chance(0.9)):
        return
    mode = w.choice(MODE_ABS, MODE_IND)
    source = scalar(w) if mode == MODE_IND else 0
    w.emit(Insn(LD | mode | SIZE_BITS[w.choice(1, 2, 4)], 0, source, imm=w.choice(0, 12, 14, 23)))
    for register in range(1, 6):
        w.registers.pop(register, None)
    w.registers[0] = Value(SCALAR)
    w.used("legacy-packet")


def helper_call(w: Writer) -> None:
    """A call of any helper that the program may call and whose arguments can be made."""
    allowed = helpers.allowed("6.18", w.parts.type, w.parts.attach_type) - NOT_BY_ITSELF
    if w.parts.repeatable:
        allowed = {number for number in allowed - HOST_S if model_of(number) is not None}
    for _ in range(20):
        number = w.random.choice(sorted(allowed))
        proto = helpers.proto(number, w.parts.type, w.parts.attach_type)
        if all(arg.type in _ARGUMENTS for arg in proto.args) and _fits(w, proto, number):
            _call_with_arguments(w, number, proto)
            w.used("helpers")
            return


def call_by_number(w: Writer, number: int) -> bool:
    """A call of this helper, where the program may call it and its arguments can be made; whether it was."""
    if number not in helpers.allowed("6.18", w.parts.type, w.parts.attach_type):
        return False
    proto = helpers.proto(number, w.parts.type, w.parts.attach_type)
    if not all(arg.type in _ARGUMENTS for arg in proto.args) or not _fits(w, proto, number):
        return False
    _call_with_arguments(w, number, proto)
    return True


def _fits(w: Writer, proto: Proto, number: int) -> bool:
    types = [arg.type for arg in proto.args]
    if ArgType.PTR_TO_CTX in types and not w.holding(CONTEXT):
        return False
    return ArgType.CONST_MAP_PTR not in types or bool(_maps_for(number))


def _maps_for(number: int) -> list[str]:
    helper = helpers.by_id(number)
    return [kind for kind in _SIZES if helper is not None and map_types.compatible(helper.name, kind)]


# A map of each type that can be made without more: key and value size, entries.
_SIZES = {
    "array": (4, 16, 4), "hash": (8, 16, 4), "percpu_array": (4, 8, 4), "lru_hash": (4, 32, 4),
    "perf_event_array": (4, 4, 2), "stack_trace": (4, 64, 4), "cgroup_array": (4, 4, 2), "devmap": (4, 4, 4),
    "cpumap": (4, 4, 4), "sockmap": (4, 4, 4), "sockhash": (4, 4, 4), "queue": (0, 8, 4), "ringbuf": (0, 0, 4096),
    "bloom_filter": (0, 8, 4),
}  # fmt: skip


_PROBES = frozenset({4, 45, 112, 113, 114, 115, 148})
"""Helpers whose third argument is an address of the kernel's or of user space."""


def _call_with_arguments(w: Writer, number: int, proto: Proto) -> None:
    definition = None
    index = -1
    if any(arg.type is ArgType.CONST_MAP_PTR for arg in proto.args):
        kind = w.random.choice(_maps_for(number))
        key, value, entries = _SIZES[kind]
        entries = 256 if w.parts.repeatable and kind == "lru_hash" else entries
        index = w.new_map(MapDef("", kind, key, value, entries))
        definition = w.parts.maps[index]
    spot = 64
    sizes = {at for at, arg in enumerate(proto.args) if arg.is_size}
    for at, arg in enumerate(proto.args):
        register = at + 1
        if arg.type is ArgType.CONST_MAP_PTR:
            w.load_map(register, index)
        elif arg.type is ArgType.PTR_TO_CTX:
            w.move(register, w.random.choice(w.holding(CONTEXT)))
        elif at in sizes:
            w.constant(register, w.choice(4, 8, 8, 16, 0))
        elif w.parts.repeatable and number in _PROBES and at == 2:
            # A number below 2**30 may be an address of what is simulated, and is none of the kernel's.
            w.constant(register, w.choice(0, 100, -1, -4096, 0x7FFFFFFF, -0x7FFFFFFF))
        elif arg.type in (ArgType.ANYTHING, ArgType.SCALAR):
            have = [source for source in w.holding(SCALAR) if source > 5 or source == 0]
            w.move(register, w.random.choice(have)) if have and w.chance(0.4) else w.constant(register, w.number())
        else:
            size = 16
            if definition is not None and arg.type is ArgType.PTR_TO_MAP_KEY:
                size = definition.key_size or 8
            elif definition is not None and arg.type is ArgType.PTR_TO_MAP_VALUE:
                size = definition.value_size or 8
            spot += -(-size // 8) * 8
            _memory_argument(w, register, -spot, size)
        w.kept.add(register)
    w.kept -= {1, 2, 3, 4, 5}
    w.call(number)
    if w.parts.repeatable and any(arg.type is ArgType.PTR_TO_CTX for arg in proto.args):
        # It may have moved the packet: a program that goes on with pointers from before is refused.
        w.forget(PACKET)
    if proto.ret.type is RetType.PTR_TO_MAP_VALUE and definition is not None:
        w.jump(Op.EQ, 0, w.fail, imm=0)
        w.registers[0] = Value(MEMORY, definition.value_size)
    elif proto.ret.type is not RetType.INTEGER:
        w.registers.pop(0, None)


def _memory_argument(w: Writer, register: int, off: int, size: int) -> None:
    """Written bytes of the stack; sometimes a map's value or the packet, sometimes bytes that nobody wrote."""
    pointers = [source for source in (*w.holding(MEMORY), *w.holding(PACKET)) if source > 5]
    if pointers and w.chance(0.4):
        w.move(register, w.random.choice(pointers))
        return
    if w.chance(0.9):
        for at in range(0, size, 8):
            w.store(FRAME_POINTER, off + at, 8, imm=0)
            w.stack.pop(off + at, None)
    w.move(register, FRAME_POINTER)
    w.alu(Op.ADD, register, off)
    w.registers[register] = Value(OTHER)


_ARGUMENTS = frozenset(
    {
        ArgType.ANYTHING, ArgType.SCALAR, ArgType.CONST_MAP_PTR, ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO,
        ArgType.PTR_TO_CTX, ArgType.PTR_TO_MEM, ArgType.PTR_TO_MAP_KEY, ArgType.PTR_TO_MAP_VALUE,
    }
)  # fmt: skip
