"""Why programs of each class are refused, and what helps: what can be said of a class, knowing nothing of the program.

A verdict's own `reason` says more where there is one; this is what stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

BY_CODE: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "packet-bounds": (
            "no comparison with data_end on this path covers the bytes that are read or written",
            "compare data + offset + size with data_end before the access, and leave where it is greater",
        ),
        "packet-access": (
            "programs of this type may not write to the packet, or not through this helper",
            "read it only, or copy by bpf_skb_load_bytes and bpf_skb_store_bytes",
        ),
        "maybe-null": (
            "the pointer came from a helper that may return NULL, and it was not compared with 0 on this path",
            "test it for NULL right after the call, and use it only in the branch where it is not",
        ),
        "scalar-dereference": (
            "the register holds a number here, not a pointer: it was computed, or read as a number",
            "keep the pointer in a variable of pointer type; load it again after a helper that moves the packet",
        ),
        "bad-pointer": (
            "the pointer in this register is not of a kind that may be read or written directly",
            "go through the helper that is made for it, or use a pointer to stack, packet or map value",
        ),
        "uninitialised-register": (
            "nothing was written to the register on this path; calls clobber r1 to r5",
            "give the variable a value on every path, and keep in r6 to r9 what has to outlive a call",
        ),
        "uninitialised-stack": (
            "bytes on the stack are read that were not written on this path",
            "initialise the whole buffer, padding included, before it is read or given to a helper",
        ),
        "stack-bounds": (
            "the access is outside of the 512 bytes of the frame",
            "check index and size; move large buffers to a per-CPU array map",
        ),
        "stack-limit": (
            "the frames of a chain of calls need more than 512 bytes together",
            "move large buffers to a per-CPU array map, or make the functions of the chain smaller",
        ),
        "memory-bounds": (
            "the offset may be outside of the map's value or of the buffer that the helper is given",
            "bound the index right before the access: compare it, or mask it with a power of two less one",
        ),
        "unbounded": (
            "the verifier knows no upper bound of the offset or size on this path",
            "compare it with a constant, unsigned, in the register that is used afterwards",
        ),
        "maybe-negative": (
            "the verifier knows no lower bound: the number may be negative",
            "make it unsigned, or compare it with 0 as a signed number first",
        ),
        "context-access": (
            "programs of this type have no such field at this offset and size, or may not write it",
            "access whole fields at their own offsets and sizes; see the context structure of this program type",
        ),
        "modified-pointer": (
            "the pointer was moved before it was used, and this kind may be used only as it was given",
            "use it with constant offsets in the instruction",
        ),
        "pointer-arithmetic": (
            "the operation would make a number of a pointer, or a pointer that nobody can bound",
            "add and subtract numbers only, and compare pointers of the same object only",
        ),
        "pointer-leak": (
            "a kernel address would get out to where user space can read it",
            "store numbers only in maps, contexts and return values",
        ),
        "infinite-loop": (
            "the same instruction is reached again in the same state, or the loop has no bound that is known",
            "count to a constant, or use bpf_loop, bpf_for or may_goto",
        ),
        "too-complex": (
            "the paths together are more instructions than the verifier is willing to follow",
            "take apart: functions with checked arguments, fewer branches before loops, bpf_loop for long ones",
        ),
        "unreachable-code": (
            "no path leads to some instructions",
            "remove the code after a return or a jump; let the compiler optimise",
        ),
        "helper-not-allowed": (
            "this kernel has no such helper, or not for this program type",
            "see the first kernel of the helper by `bpflisp needs`, or choose a helper of this type",
        ),
        "gpl-only": (
            "the helper is for programs under the GPL",
            'declare a license that the kernel knows, such as "GPL"',
        ),
        "argument-type": (
            "the helper takes another kind of argument in this register",
            "give what its prototype says: a pointer to stack, packet or map value, with its size in the next register",
        ),
        "map-not-allowed": (
            "this kind of map does not go with this helper or program type",
            "use a map type that the helper takes",
        ),
        "read-only": (
            "the memory may be read and not written: a frozen map, .rodata, or memory of the kernel",
            "write to a copy on the stack or to another map",
        ),
        "return-range": (
            "programs of this type return only certain numbers",
            "return one of the actions of this type on every path",
        ),
        "reference": (
            "what the program acquired is not given back on every path",
            "release or submit it on each path before the exit, the error paths too",
        ),
        "lock": ("a lock is held where it must not be, or not held where it must", "lock and unlock on the same path"),
        "misaligned": ("the access is not at a multiple of its size", "align the field, or read it byte by byte"),
        "zero-sized": ("the size may be 0 here", "test that it is greater than 0 before the call"),
        "reserved-fields": ("a field of the instruction that has to be 0 is not", "rebuild it with a current compiler"),
        "bad-opcode": ("this kernel knows no such instruction", "compile for an older instruction set: -mcpu=v3"),
        "unsupported": (
            "the program uses what this verifier does not model: it claims nothing about the kernel",
            "give the kernel's types by --kernel-btf where they are missing; else ask a kernel",
        ),
    }
)
"""Class of a refusal -> what lies behind it, and what helps."""
