"""Instructions as x86-64 code: what each kind becomes, and how code calls Python.

Invariant: every access is checked to the byte before it is made, or is one that the analysis of
`simulator.engines.source.ranges` shows to be in the stack or the context in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from bpflisp.spec.alu import M32
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_HELPER, CALL_SUBPROGRAM, FRAME_POINTER, Kind, Op
from simulator.contexts.narrow import NO_QUEUE
from simulator.engines.native import lookup
from simulator.engines.native.access import Access, Checks
from simulator.engines.native.alu import ATOMIC_OPS, BRANCHES, arithmetic, byte_order
from simulator.engines.native.encode import (
    R15,
    RAX,
    RBP,
    RCX,
    RDX,
    Code,
    Mem,
)
from simulator.engines.native.layout import RETURN_ZERO, TAIL, Slot
from simulator.engines.native.registers import FUEL, X, slot
from simulator.engines.native.sites import NewSite, Site, Why
from simulator.engines.reference import MAY_GOTO_LIMIT
from simulator.engines.source.names import LOOKUP, NO_CALLBACK, TAIL_CALL
from simulator.engines.source.ranges import Known, Range, State
from simulator.engines.validity import sound
from simulator.helpers.registry import arity_of
from simulator.machine import MAX_FRAMES
from simulator.memory import CONTEXT_BASE, FRAME_DISTANCE


@dataclass(frozen=True, slots=True)
class Given:
    """A program, and what else its code depends on.

    `immediates` are what 64-bit loads give, by slot; those that are not there are asked for in the run. `first` says
    that the program begins in the first frame, with the context of `context_size` bytes in r1: of 0 bytes where its
    size differs from run to run. `known` is what loads from that context give. `lookups` are the ways that maps, by
    their index, are looked up in code; `value_sizes` are the bytes of their values.
    """

    code: Sequence[Insn | None]
    immediates: Mapping[int, int]
    first: bool
    context_size: int
    known: Known
    lookups: Mapping[int, lookup.Way]
    value_sizes: Sequence[int]


class Instructions:
    """Writes the instructions of one program."""

    def __init__(self, given: Given, code: Code, site: NewSite) -> None:
        self.given, self.out, self._new_site = given, code, site
        self._late: list[Callable[[], None]] = []
        """What is written after the functions, out of the way of code that runs."""
        self._name: Hashable = None
        """The label of the function that is being written."""
        self._context_size = 0
        self.writes_packet = False
        """Whether it may write to the packet, or have a helper do so."""
        self._left = 0
        """Instructions after this one that are paid for."""

    # What leaves the code.

    def site(self, why: Why, at: int, number: int = 0, write: bool = False) -> int:
        """A site of the instruction that is being written."""
        return self._new_site(Site(why, at, number, write, self._left))

    def later(self, write: Callable[[Hashable], None]) -> Hashable:
        """A label of code that is written after the functions."""
        label = object()
        self._later(label, lambda: write(label))
        return label

    def _later(self, label: Hashable, write: Callable[[], None]) -> None:
        def labelled() -> None:
            self.out.label(label)
            write()

        self._late.append(labelled)

    def _leave(self, site: Site, where: str) -> None:
        self.out.op("store8_imm", slot(Slot.SITE), imm=self._new_site(site))
        self.out.jump(where)

    def _call_python(self, why: Why, at: int, number: int = 0) -> None:
        """A call of Python's, after which the run goes on, or stops."""
        out = self.out
        out.op("store8_imm", slot(Slot.SITE), imm=self.site(why, at, number))
        out.op("store8", slot(Slot.FUEL), FUEL)
        out.syscall()
        out.op("load8", slot(Slot.FUEL), FUEL)
        out.op_imm("cmp", slot(Slot.STOP), 0, wide=False)

    def _keep_arguments(self, count: int = 5) -> None:
        for register in range(1, count + 1):
            self.out.op("store8", slot(Slot.ARGS + register - 1), X[register])

    # Instructions.

    def _one(self, at: int, insn: Insn, state: State) -> None:
        if not sound(insn):
            self._leave(Site(Why.ILLEGAL, at, insn.opcode, after=self._left), "call and stop")
            return
        WRITERS[insn.row.kind](self, at, insn, state)

    def _alu(self, at: int, insn: Insn, state: State) -> None:
        source = X[insn.src] if insn.row.reg else None
        arithmetic(self.out, insn.row.op, insn.row.width == 64, X[insn.dst], source, insn.imm)

    def _negate(self, at: int, insn: Insn, state: State) -> None:
        self.out.op("neg", X[insn.dst], wide=insn.row.width == 64)

    def _end(self, at: int, insn: Insn, state: State) -> None:
        byte_order(self.out, insn.row.op, insn.imm, X[insn.dst])

    def _access(self, at: int, insn: Insn, base: int, state: State, write: bool) -> Mem:
        """The operand of an access, checked."""
        size = insn.row.size

        def failed(label: Hashable) -> None:
            self.out.op("lea", Mem(X[base], insn.off), RCX)
            self.out.op("store8", slot(Slot.ADDRESS), RCX)
            self.out.op("store8_imm", slot(Slot.SITE), imm=number)
            self.out.jump("fault")

        number = -1
        access = Access(X[base], insn.off, size, write, state[base])
        checks = Checks(self.out, self._context_size)
        if checks.needed(access):
            number = self.site(Why.ACCESS, at, size, write)
            checks.write(access, self.later(failed))
            self.writes_packet |= write and not self._in_value(state[base], insn.off, size)
        return Mem(R15, insn.off, X[base])

    def _in_value(self, base: Range, off: int, size: int) -> bool:
        """Whether an access that is allowed is in a map's value."""
        return base.value >= 0 and 0 <= base.at + off <= self.given.value_sizes[base.value] - size

    def _load(self, at: int, insn: Insn, state: State) -> None:
        row, done = insn.row, object()
        moved = self.given.known.narrow.loads.get((insn.off, row.size)) if row.kind is Kind.LOAD else None
        if moved is not None:
            self._in_context(
                insn.src, done, lambda: self.out.op("load4", Mem(R15, moved[0], X[insn.src]), X[insn.dst], wide=False)
            )
        source = self._access(at, insn, insn.src, state, write=False)
        name = "load_signed" if row.kind is Kind.LOAD_SIGNED else "load"
        self.out.op(f"{name}{row.size}", source, X[insn.dst], wide=row.size == 8 or row.kind is Kind.LOAD_SIGNED)
        self.out.label(done)

    def _in_context(self, base: int, done: Hashable, write: Callable[[], None]) -> None:
        """What an access is where its base is the context, after which it is done."""
        elsewhere = object()
        self.out.op_imm("cmp", X[base], CONTEXT_BASE)
        self.out.branch("ne", elsewhere)
        write()
        self.out.jump(done)
        self.out.label(elsewhere)

    def _store(self, at: int, insn: Insn, state: State) -> None:
        size, done = insn.row.size, object()
        narrow, place = self.given.known.narrow, (insn.off, size)
        if place in narrow.cut or place in narrow.queues:
            self._in_context(insn.dst, done, lambda: self._keep_less(insn, place in narrow.queues, done))
        to = self._access(at, insn, insn.dst, state, write=True)
        if insn.row.reg:
            self.out.op(f"store{size}", to, X[insn.src], wide=size == 8)
        else:
            self.out.op(f"store{size}_imm", to, imm=insn.imm, wide=size == 8)
        self.out.label(done)

    def _keep_less(self, insn: Insn, queue: bool, done: Hashable) -> None:
        """A store to a field of the context of which the kernel keeps 16 bits, or nothing: see `contexts.narrow`."""
        out, to = self.out, Mem(R15, insn.off, X[insn.dst])
        if insn.row.reg:
            if queue:
                out.op_imm("cmp", X[insn.src], NO_QUEUE)
                out.branch("ae", done)
            out.op("mov", RCX, X[insn.src], wide=False)
            out.op_imm("and", RCX, 0xFFFF, wide=False)
            out.op("store4", to, RCX, wide=False)
        elif not queue or insn.imm < NO_QUEUE:
            out.op("store4_imm", to, imm=insn.imm & 0xFFFF, wide=False)

    def _atomic(self, at: int, insn: Insn, state: State) -> None:
        """A read, an operation and a write: nothing runs beside it. What may be read but not written faults."""
        row, out = insn.row, self.out
        where, wide = self._access(at, insn, insn.dst, state, write=True), row.size == 8
        load, store = f"load{row.size}", f"store{row.size}"
        out.op(load, where, RCX, wide=wide)
        if row.op is Op.CMPXCHG:
            out.op("mov", RDX, RCX)
            out.op("cmp", RCX, RAX, wide=wide)
            out.op("cmov_e", X[insn.src], RDX)  # The new value, if the old one is as expected.
            out.op(store, where, RDX, wide=wide)
            out.op("mov", RAX, RCX)
            return
        out.op("mov", RDX, X[insn.src])
        if row.op is not Op.XCHG:
            out.op(ATOMIC_OPS[row.op], RDX, RCX, wide=wide)
        out.op(store, where, RDX, wide=wide)
        if row.fetch:
            out.op("mov", X[insn.src], RCX)

    def _load_imm64(self, at: int, insn: Insn, state: State) -> None:
        value = self.given.immediates.get(at)
        if value is not None:
            self.out.move(X[insn.dst], value)
            return
        self._call_python(Why.IMMEDIATE, at)
        self.out.branch("ne", "stop")
        self.out.op("load8", slot(Slot.RESULT), X[insn.dst])

    def _load_packet(self, at: int, insn: Insn, state: State) -> None:
        out = self.out
        if insn.row.reg:
            out.op("lea", Mem(X[insn.src], insn.imm), RCX, wide=False)
        else:
            out.move(RCX, insn.imm & M32)
        out.op("store8", slot(Slot.ARGS), RCX)
        self._call_python(Why.PACKET, at, insn.row.size)

        def failed(label: Hashable) -> None:
            out.op_imm("cmp", slot(Slot.STOP), RETURN_ZERO, wide=False)
            out.branch("ne", "stop")
            out.op("store8_imm", slot(Slot.STOP), imm=0)
            out.move(RAX, 0)
            out.ret()

        out.branch("ne", self.later(failed))
        out.op("load8", slot(Slot.RESULT), RAX)

    def _jump(self, at: int, insn: Insn, state: State) -> None:
        """Nothing: the block goes on where the jump leads."""

    def _branch(self, at: int, insn: Insn, state: State) -> None:
        self.out.branch(self._compare(insn), (self._name, at + 1 + insn.off))

    def _compare(self, insn: Insn) -> str:
        """Compares; the condition under which the branch is taken."""
        row, out, wide = insn.row, self.out, insn.row.width == 64
        name, condition = BRANCHES[row.op]
        if row.reg:
            out.op(name, X[insn.dst], X[insn.src], wide=wide)
        elif name == "test":
            out.op("test_imm32", X[insn.dst], imm=insn.imm, wide=wide)
        else:
            out.op_imm(name, X[insn.dst], insn.imm, wide=wide)
        return condition

    def _may_goto(self, at: int, insn: Insn, state: State) -> None:
        self.out.op("inc", slot(Slot.LOOPS))
        self.out.op_imm("cmp", slot(Slot.LOOPS), MAY_GOTO_LIMIT)
        self.out.branch("a", (self._name, at + 1 + insn.off))

    def _exit(self, at: int, insn: Insn, state: State) -> None:
        self.out.ret()

    # Calls.

    def _call(self, at: int, insn: Insn, state: State) -> None:
        if insn.row.kind is Kind.CALL and insn.src == CALL_SUBPROGRAM:
            self._function_call(at, at + 1 + insn.imm)
            return
        out = self.out
        if insn.row.kind is not Kind.CALL or insn.src != CALL_HELPER or insn.imm == TAIL_CALL:
            self._keep_arguments()
            self.writes_packet = True
        if insn.row.kind is Kind.CALL_REG:
            out.op("mov", RCX, X[insn.dst], wide=False)
            out.op("store8", slot(Slot.JUMP), RCX)
            self._call_python(Why.HELPER_BY_REGISTER, at)
            self._tail(at)
        elif insn.src != CALL_HELPER:
            self._call_python(Why.KERNEL_FUNCTION, at)
            out.branch("ne", "stop")
        elif insn.imm == TAIL_CALL:
            self._call_python(Why.TAIL_CALL, at, insn.imm)
            self._tail(at)
        else:
            self._helper(at, insn.imm, state)
            return
        out.op("load8", slot(Slot.RESULT), RAX)

    def _helper(self, at: int, number: int, state: State) -> None:
        """A helper: a lookup in code where its map and its key are known, any other one by Python."""
        self.writes_packet |= number not in NO_CALLBACK
        left = self._left

        def ask() -> None:
            self._left = left
            self._keep_arguments(arity_of(number))
            self._call_python(Why.HELPER, at, number)
            self.out.branch("ne", "stop")
            self.out.op("load8", slot(Slot.RESULT), RAX)

        way = self.given.lookups.get(state[1].map) if number == LOOKUP else None
        if way is not None and lookup.is_in_frame(state[2], way.key_size):
            lookup.write(self.out, way, X[2], ask, lambda write: self.later(lambda _: write()))
        else:
            ask()

    def _tail(self, at: int) -> None:
        """After a call that may be a tail call: goes on in the other program, and returns what that returns."""
        out = self.out
        nested = object()
        number = self._new_site(Site(Why.AFTER_TAIL_CALL, at))

        def go(label: Hashable) -> None:
            out.op_imm("cmp", slot(Slot.STOP), TAIL, wide=False)
            out.branch("ne", "stop")
            out.op("store8_imm", slot(Slot.STOP), imm=0)
            for register in (0, *range(2, 10)):
                out.move(X[register], 0)
            out.op_imm("cmp", slot(Slot.DEPTH), 0)
            out.branch("ne", nested)
            out.op("jmp_to", slot(Slot.JUMP), wide=False)
            out.label(nested)
            out.op("call_to", slot(Slot.JUMP), wide=False)
            out.op("store8", slot(Slot.RESULT), RAX)
            out.op("store8_imm", slot(Slot.SITE), imm=number)
            out.syscall()
            out.op("load8", slot(Slot.RESULT), RAX)
            out.ret()

        out.branch("ne", self.later(go))

    def _function_call(self, at: int, start: int) -> None:
        """A call of a function of the program: a frame of its own, and all registers but r0 as they were after it."""
        out = self.out
        site = self.site(Why.FRAMES, at)

        def too_deep(label: Hashable) -> None:
            out.op("store8_imm", slot(Slot.SITE), imm=site)
            out.jump("call and stop")

        out.op("load8", slot(Slot.DEPTH), RDX)
        out.op("inc", RDX)
        out.op_imm("cmp", RDX, MAX_FRAMES)
        out.branch("ae", self.later(too_deep))
        out.op("store8", slot(Slot.DEPTH), RDX)
        for register in range(1, FRAME_POINTER + 1):
            out.push(X[register])
        out.op_imm("add", RBP, FRAME_DISTANCE)
        for register in (0, *range(6, FRAME_POINTER)):
            out.move(X[register], 0)
        out.call(("enter", start))
        for register in range(FRAME_POINTER, 0, -1):
            out.pop(X[register])
        out.op("dec", slot(Slot.DEPTH))


_Writer = Callable[[Instructions, int, Insn, State], None]

WRITERS: Mapping[Kind, _Writer] = {
    Kind.ALU: Instructions._alu,
    Kind.NEG: Instructions._negate,
    Kind.END: Instructions._end,
    Kind.LOAD: Instructions._load,
    Kind.LOAD_SIGNED: Instructions._load,
    Kind.LOAD_ACQUIRE: Instructions._load,
    Kind.STORE: Instructions._store,
    Kind.STORE_IMM: Instructions._store,
    Kind.STORE_RELEASE: Instructions._store,
    Kind.ATOMIC: Instructions._atomic,
    Kind.LOAD_IMM64: Instructions._load_imm64,
    Kind.LOAD_PACKET: Instructions._load_packet,
    Kind.JUMP: Instructions._jump,
    Kind.BRANCH: Instructions._branch,
    Kind.MAY_GOTO: Instructions._may_goto,
    Kind.CALL: Instructions._call,
    Kind.CALL_REG: Instructions._call,
    Kind.EXIT: Instructions._exit,
}
