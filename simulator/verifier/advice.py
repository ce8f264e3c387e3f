"""What to say of each class of refusal where nothing more is known than the class: the problem, and what to do.

Invariant: every class of `refusal.CODES` has a row, and a page `docs/refusals/<class>.md`; the classes that no words of
the kernel lead to have a row, and a paragraph in `docs/refusals/README.md`. A test holds them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from simulator.verdict import UNSUPPORTED


class Advice(NamedTuple):
    """The problem in a line, and what to do about it."""

    problem: str
    help: str


_ROWS: Final = {
    "argument-type": Advice(
        "a call is given an argument of the wrong kind",
        "pass what the helper's prototype asks for: a pointer to initialised memory, the map, or the untouched context",
    ),
    "atomic-access": Advice(
        "an atomic instruction is used on memory that does not allow it",
        "use atomics on map values and on the stack only; copy other memory into one of them first",
    ),
    "attach-target": Advice(
        "the program's target is missing or does not fit",
        "name the kernel function or hook in the section, as in fentry/FUNCTION, and load it with that kernel's BTF",
    ),
    "bad-argument": Advice(
        "the kernel refuses an argument without a word",
        "compare the call with the helper's documentation: sizes, alignment and flags",
    ),
    "bad-btf": Advice(
        "the debugging information does not fit the code",
        "rebuild the object with -g, by one compiler run, and do not strip or patch its BTF",
    ),
    "bad-jump": Advice(
        "a jump or call leads to where no instruction starts",
        "keep jumps inside of their function and off the second half of 64-bit loads; do not patch compiled code",
    ),
    "bad-opcode": Advice(
        "this kernel does not know the instruction",
        "compile for an older instruction set (-mcpu=v3 or less), or ask for a newer kernel",
    ),
    "bad-operand": Advice(
        "an operand is one that the instruction cannot take",
        "use registers r0 to r10, shifts less than the width, and divisors other than a constant 0",
    ),
    "bad-pointer": Advice(
        "memory is accessed through a pointer that cannot be followed",
        "access it by the helper that is meant for it, or by the pointer that it was made from",
    ),
    "call-depth": Advice(
        "functions call each other more than eight deep",
        "turn recursion into a loop, and mark small functions as static inline",
    ),
    "context-access": Advice(
        "the context has no field there that this program type may access so",
        "read or write a whole field of the context's struct, by its own name, through the unchanged context pointer",
    ),
    "dynptr": Advice(
        "a dynptr is used that is not made, is overwritten, or is not given back",
        "make it once in 16 aligned bytes of stack, use it by helpers only, and submit or discard what was reserved",
    ),
    "frame-pointer": Advice(
        "r10 is written, which is the frame pointer",
        "copy r10 to another register and change the copy",
    ),
    "function-arguments": Advice(
        "a function of the program is called with arguments that its prototype does not take",
        "pass what the prototype says, or make the function static so that it is verified with what it is given",
    ),
    "gpl-only": Advice(
        "the helper is only for programs under the GPL",
        'declare the licence: char LICENSE[] SEC("license") = "GPL"; or do without the helper',
    ),
    "graph": Advice(
        "a list or tree, or a node of one, is used outside of its rules",
        "hold the lock beside the root, use the node's own type and offset, and drop or add what bpf_obj_new gave",
    ),
    "helper-not-allowed": Advice(
        "this kernel does not offer the helper to this program type",
        "use a helper that the program type has, another program type, or a newer kernel (`bpflisp needs` tells which)",
    ),
    "infinite-loop": Advice(
        "a loop comes back to a state in which it was before",
        "make each round change what the loop's condition tests, with a constant bound: for (i = 0; i < N; i++)",
    ),
    "iterator": Advice(
        "an iterator is used that is not made, was destroyed, or is made twice",
        "new, next until null, destroy: each once on every path, on the same eight aligned bytes of stack",
    ),
    "kernel-function": Advice(
        "a kernel function is called that this program may not call here",
        "look whether the function is offered to this program type, and what kinds of pointers it takes",
    ),
    "kptr": Advice(
        "a kernel pointer in a map is accessed as if it were plain memory",
        "exchange it by bpf_kptr_xchg, or load it inside of bpf_rcu_read_lock, eight bytes at its own offset",
    ),
    "legacy-packet-load": Advice(
        "a legacy packet load is used where there is none",
        "keep the context in r6, in socket filters and traffic control only; elsewhere use bpf_skb_load_bytes",
    ),
    "load-attributes": Advice(
        "the load is refused before the program is verified",
        "look at the program type, the attach type, the flags and the number of instructions",
    ),
    "lock": Advice(
        "a lock is taken, held or released against its rules",
        "take one lock at a time, call nothing while it is held, and unlock the same one on every path",
    ),
    "map-not-allowed": Advice(
        "this kind of map cannot be used so",
        "use a map type that the helper and the program type allow",
    ),
    "maybe-negative": Advice(
        "a number is used as a size or index that may be negative",
        "make the variable unsigned, or test that it is not negative: if (n < 0) return 0;",
    ),
    "maybe-null": Advice(
        "a pointer is used that may be null",
        "test it first, on every path: if (!p) return 0;",
    ),
    "memory-bounds": Advice(
        "an access may reach outside of its memory",
        "bound the offset so that offset + size fits: if (i >= N) return 0; or i &= N - 1 where N is a power of two",
    ),
    "misaligned": Advice(
        "an access is not aligned to its size",
        "access the stack and atomics at multiples of the size; read smaller parts elsewhere",
    ),
    "mixed-pointers": Advice(
        "one instruction is reached with pointers of different kinds",
        "give each kind of pointer its own load: keep the compiler from merging them, as by barrier_var()",
    ),
    "modified-pointer": Advice(
        "a pointer is followed after it was moved, and must not be",
        "use the pointer as it was given, with constant offsets of its fields",
    ),
    "needs-newer-kernel": Advice(
        "the program uses what this kernel does not have yet",
        "do without it on this kernel, or ask for a newer one (`bpflisp needs` tells which)",
    ),
    "no-exit": Advice(
        "a function's code does not end in an exit or a jump",
        "end each function with a return; the compiler leaves it out after undefined behaviour",
    ),
    "packet-access": Advice(
        "this program type may not access the packet's bytes so",
        "use the helper meant for it (bpf_skb_store_bytes, bpf_skb_load_bytes), or copy the bytes to the stack first",
    ),
    "packet-bounds": Advice(
        "packet bytes are accessed that no test has shown to exist",
        "test before the access, with the same pointer: if (p + SIZE > data_end) return;",
    ),
    "pointer-arithmetic": Advice(
        "arithmetic is done on a pointer that does not allow it",
        "add and subtract bounded numbers, in 64 bits, to pointers into memory only; test for null first",
    ),
    "pointer-leak": Advice(
        "a pointer would get to where it must not",
        "store and return numbers, or copies of what the pointer points to",
    ),
    "pointer-offset": Advice(
        "a constant moves a pointer too far",
        "keep offsets below 2**29; look for an overflow in the computation of the offset",
    ),
    "pointer-spill": Advice(
        "a saved pointer is read or overwritten in part",
        "read back all eight bytes of a saved pointer, and keep other data off its slot",
    ),
    "read-only": Advice(
        "memory is written that may only be read, or the reverse",
        "write to a copy, or to a map without the flag that forbids it",
    ),
    "reference": Advice(
        "something that was acquired is not given back, or given back wrongly",
        "release it exactly once on every path after the test for null, by the pointer as it was acquired",
    ),
    "reserved-fields": Advice(
        "an instruction has bits set that must be zero",
        "the bytes come from a tool or a newer instruction set: compile again for this kernel",
    ),
    "return-range": Advice(
        "the program may return a number that its hook does not allow",
        "return one of the allowed constants, or bound the result before the return",
    ),
    "scalar-dereference": Advice(
        "a number is used as an address",
        "use the pointer itself: a pointer is lost by a release, by moving the packet, or by storing it as a number",
    ),
    "section": Advice(
        "a section (RCU, preemption, interrupts) is left open, or closed without having been opened",
        "close on every path, and in the reverse order, what was opened",
    ),
    "sleepable": Advice(
        "something that may sleep is used where sleeping is not allowed",
        "make the program sleepable (section with .s), or use what does not sleep; leave locks and RCU sections first",
    ),
    "stack-bounds": Advice(
        "the stack is accessed outside of the function's frame",
        "keep buffers within 512 bytes, and bound variable indexes into them; larger ones belong into a map",
    ),
    "stack-limit": Advice(
        "the functions of one call chain need more than 512 bytes of stack together",
        "move large buffers to a per-CPU array map, or call the functions one after the other instead of nested",
    ),
    "string-argument": Advice(
        "a string has to be a constant in read-only memory",
        "use a string literal or a static const array, ended by a zero, with formats that the helper knows",
    ),
    "struct-access": Advice(
        "a kernel structure is accessed where it has no such field",
        "access whole fields of the type that the pointer has; compile with CO-RE for the kernel that runs it",
    ),
    "tail-call": Advice(
        "a tail call is made in a way that is not possible",
        "call with the context, a program array and an index, and from no callback",
    ),
    "timer": Advice(
        "a timer or work item in a map is used against its rules",
        "pass the field itself, in a value of the map that it is initialised for, and never read or write its bytes",
    ),
    "too-complex": Advice(
        "the kernel gives up: there are too many paths or too long ones",
        "bound loops tighter, use bpf_loop or an iterator for long ones, and split the code into global functions",
    ),
    "too-many": Advice(
        "the program uses more maps or functions than a program may have",
        "join maps of one kind, or split the program and connect the parts by tail calls",
    ),
    "unbounded": Advice(
        "an offset or size has no bound",
        "bound it just before its use: if (i >= N) return 0; or i &= N - 1 where N is a power of two",
    ),
    "undefined-behaviour": Advice(
        "the compiler found undefined behaviour and left a trap",
        "initialise the variable that is used here, and look at the compiler's warnings (-Wall)",
    ),
    "uninitialised-register": Advice(
        "a register is read that holds nothing on this path",
        "assign a value on every path; after a call, r1 to r5 are lost: keep values in r6 to r9 or on the stack",
    ),
    "uninitialised-stack": Advice(
        "stack is read that was not written on this path",
        "initialise the whole object, padding included: struct key k = {}; or __builtin_memset(&k, 0, sizeof(k))",
    ),
    "unreachable-code": Advice(
        "there is code that no path reaches",
        "remove it; a compiler does so with optimisation (-O2)",
    ),
    "zero-sized": Advice(
        "a size may be zero where the helper needs at least one byte",
        "test that the size is not zero before the call",
    ),
    "refused": Advice(
        "the kernel refuses the program",
        "the kernel's message says why; `bpflisp check --format json` has the log",
    ),
    UNSUPPORTED: Advice(
        "the program uses what this verifier does not model",
        "ask the kernel itself: load the program on a machine of that version",
    ),
}

WITHOUT_TYPES: Final = "without the kernel's BTF"
"""How a refusal ends that another run with the kernel's types would settle."""

ADVICE: Final[Mapping[str, Advice]] = MappingProxyType(_ROWS)
"""Class -> what to say of it."""


_NEEDS_TYPES: Final = Advice(
    "the program uses the kernel's own types, and was judged without them",
    "give the target's types, its /sys/kernel/btf/vmlinux: --kernel-btf FILE, or kernel_btf=FILE",
)


def advice_of(code: str, message: str = "") -> Advice:
    """What to say of a refusal of this class; of a class without a row, what is said of any refusal."""
    if code == UNSUPPORTED and message.endswith(WITHOUT_TYPES):
        return _NEEDS_TYPES
    return ADVICE.get(code, ADVICE["refused"])
