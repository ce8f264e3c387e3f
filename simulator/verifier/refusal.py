"""Refusals: the kernel's words for why a program is not loaded, and the stable class of each.

Invariant: a `Refused` says what the kernel says; an `Unsupported` claims nothing about the kernel, it names what this
verifier does not model. Messages are facts observed of kernel 6.18.44; the classes are ours and are never renamed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from simulator.verdict import UNSUPPORTED

UNCLASSED: Final = "refused"
"""The class of a message that no row of `CODES` knows."""


class Refused(Exception):  # noqa: N818  a refusal is an answer, not an error
    """The program is refused.

    `message` is the deciding line as the kernel words it, empty where the kernel answers with an errno alone; `code`
    the stable class; `insn` the slot, None where it is the whole program; `log` the lines that the kernel prints
    around it, the message among them; `errno` the positive error number; `functions` where the program's functions
    start, as far as that was known when it was refused before the first path.
    """

    functions: Sequence[int] = ()

    def __init__(
        self,
        message: str,
        code: str = "",
        insn: int | None = None,
        log: Sequence[str] = (),
        errno: int = 22,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or code_of(message)
        self.insn = insn
        self.log = list(log) or ([message] if message else [])
        self.errno = errno


class Unsupported(Refused):
    """The program uses what is not modelled: nothing is claimed of it."""

    def __init__(self, what: str, insn: int | None = None) -> None:
        super().__init__(f"not modelled: {what}", UNSUPPORTED, insn)


# First match decides, so the particular stands before the general. `\d` also stands for a register's number.
CODES: Final[tuple[tuple[str, str], ...]] = (
    # those that name a function, whose name may hold any of the words below
    (r"^calling kernel function \S+ is not allowed", "kernel-function"),
    (r"^Caller passes invalid args|^Global function|^Arg#\d+ |memory, len pair leads", "function-arguments"),
    (r"^program must be sleepable|^helper call might sleep", "sleepable"),
    # the shape of the program
    (r"^unreachable insn", "unreachable-code"),
    (r"^jump out of range|^jump into the middle of ldimm64|^invalid jump|^call to invalid destination", "bad-jump"),
    (r"^last insn is not an exit or jmp|^No program starts at insn|^not an exit$|^no subprog start", "no-exit"),
    (r"^back-edge from insn|^infinite loop detected|^recursive call", "infinite-loop"),
    (
        r"^unknown opcode|unknown class|^invalid bpf_ld_imm64 insn|^unrecognized bpf_ld_imm64|^invalid insn idx",
        "bad-opcode",
    ),
    (r"uses reserved fields|reserved field|^BPF_END uses|^invalid (BPF_LD_IMM insn|may_goto)", "reserved-fields"),
    (
        r"^R\d+ is invalid$|^addr_space_cast insn|^invalid shift|^div by zero"
        r"|^BPF_(ATOMIC|LOAD_ACQ|STORE_REL).*invalid|^invalid atomic",
        "bad-operand",
    ),
    (r"^number of funcs in func_info|^func_info|^invalid func_info|^line_info|^missing btf func_info", "bad-btf"),
    (r"^Invalid (insn_off|line_info|name_offset)|^the rec size of|^func#\d+ .*(btf|BTF)|^invalid btf", "bad-btf"),
    (
        r"^combined stack size|^insn \d+ cannot be patched|^stack depth|^tail_calls are not allowed when call stack",
        "stack-limit",
    ),
    (r"^the call stack of \d+ frames is too deep|^too many subprograms", "call-depth"),
    (
        r"^BPF program is too large|^The sequence of \d+ jumps is too complex|^too many different module BTFs",
        "too-complex",
    ),
    (r"^The total number of (maps|btfs) per program|^too many (different )?(maps|kernel function)", "too-many"),
    (r"func info record|in func info$|bpf_line_info|at line_info", "bad-btf"),
    (r"^LD_ABS is (not|only) allowed", "legacy-packet-load"),
    (
        r"^no direct value access|^only one cgroup storage|^Only one arena|is not pointing to valid bpf_map",
        "map-not-allowed",
    ),
    # values
    (r"^(R\d+|r\d+) !read_ok|^R\d+ is not a known value|^processing .* uninit", "uninitialised-register"),
    (r"frame pointer is read only", "frame-pointer"),
    (r"^invalid (indirect |variable-offset )?(indirect )?read from stack", "uninitialised-stack"),
    (r"^(invalid|potential) (variable-offset )?(indirect )?(write to|access to) stack", "stack-bounds"),
    (
        r"^invalid stack|^R\d+ invalid (indirect )?.*stack|^invalid variable stack|^invalid unbounded variable-offset",
        "stack-bounds",
    ),
    (
        r"^attempt to corrupt spilled|^corrupted spill|^invalid size of register (fill|spill)|^cannot spill",
        "pointer-spill",
    ),
    (r"^misaligned", "misaligned"),
    (
        r"_or_null_?'|^R\d+ pointer arithmetic on \S+_or_null|Possibly NULL pointer|^NULL pointer passed|may be NULL",
        "maybe-null",
    ),
    (r"^R\d+ invalid mem access '(scalar|inv)'", "scalar-dereference"),
    (r"^R\d+ invalid mem access", "bad-pointer"),
    (r"offset is outside of the packet|^invalid access to packet", "packet-bounds"),
    (
        r"^cannot write into packet|does not allow writes to packet|helper access to the packet is not allowed",
        "packet-access",
    ),
    (r"outside of the allowed memory range|^invalid access to map (value|key)|^direct value offset", "memory-bounds"),
    (r"min value is negative", "maybe-negative"),
    (r"unbounded (memory access|size)|unbounded min value|makes \S+ pointer be out of bounds", "unbounded"),
    (r"^invalid zero-sized read|^R\d+ invalid zero-sized", "zero-sized"),
    (r"^math between .* pointer and -?\d+ is not allowed|pointer offset -?\d+ is not allowed", "pointer-offset"),
    (
        r"pointer arithmetic|subtraction from stack pointer"
        r"|bitwise operator|pointer \+= pointer|tried to subtract pointer|pointer comparison"
        r"|32-bit pointer|^R\d+ (partial copy|leaks addr)|pointer \S+ pointer prohibited",
        "pointer-arithmetic",
    ),
    (
        r"^invalid bpf_context access|^BPF_ST stores into R\d+ ctx|^dereference of modified ctx|ctx access var_off"
        r"|^negative offset ctx",
        "context-access",
    ),
    (r"cannot be used with different pointers|^same insn cannot", "mixed-pointers"),
    (r"^dereference of modified|^negative offset \S+ ptr|^variable \S* ?access var_off", "modified-pointer"),
    (r"^BPF_(ATOMIC|XADD)|^BPF_LOAD_ACQUIRE|^BPF_STORE_RELEASE", "atomic-access"),
    (r"leaks addr|leak pointer|^cannot return stack pointer", "pointer-leak"),
    (
        r"^write to change key"
        r"|^write into map forbidden|^read from map forbidden|cannot write into|only read (is|from)|no write support"
        r"|^write access at off|^only access to \S+ is supported|may write into memory pointed",
        "read-only",
    ),
    (
        r"callback function not allowed for map|cannot use bpf_(spin_lock|res_spin_lock|timer|wq|task_work|\{)",
        "map-not-allowed",
    ),
    (
        r"bpf_(array|map|map_def|htab) .*access|^access beyond the end of|^access beyond struct"
        r"|^cannot access ptr member|^R\d+ is .* invalid",
        "struct-access",
    ),
    (r"^invalid access to|^invalid size|^R\d+ invalid \S+ access|buffer (access|offset): off=", "memory-bounds"),
    # helpers and kernel functions
    (
        r"^invalid func|^unknown func|^program of this type cannot use helper|helper.*not (allowed|supported)",
        "helper-not-allowed",
    ),
    (r"cannot call GPL-restricted|GPL", "gpl-only"),
    (r"^cannot pass map_type|^cannot pass map", "map-not-allowed"),
    (r"Sleepable programs can only use|map.*compatib|offload", "map-not-allowed"),
    (r"bpf_timer|bpf_wq|bpf_task_work|^timer pointer|^workqueue pointer", "timer"),
    (r"dynptr", "dynptr"),
    (r"iter_|an iterator|iterator", "iterator"),
    (r"kptr", "kptr"),
    (
        r"local type ID|^struct \S+ doesn't have field|bpf_(list|rb)|rbtree|non-owning"
        r"|bpf_(obj|percpu_obj|refcount)|local kptr|allocated object",
        "graph",
    ),
    (r"bpf_(rcu_read_lock|preempt_disable|local_irq_save)-ed region|^unmatched rcu", "section"),
    (
        r"spin_?(lock|_\{)|spin_\{|while holding a lock|bpf_spin|res_spin|lock-ed|lock.* must be held|AA deadlock",
        "lock",
    ),
    (r"rcu_read|preempt_(disable|enable)|-ed region|irq|preempt", "section"),
    (r"sleep", "sleepable"),
    (
        r"reference leak|Unreleased reference|^arg \d+ is an unacquired|unacquired|must be referenced|release",
        "reference",
    ),
    (r"^calling kernel function|kernel function|kfunc|kernel symbol|bpf_throw|exception", "kernel-function"),
    (r"At (program exit|callback return|subprogram exit|async callback|bpf_set_retval)", "return-range"),
    (r"^Caller passes invalid args|^Func#\d+|^func#\d+|^arg#\d+|global|static function", "function-arguments"),
    (
        r"^R\d+ type=.* expected=|^R\d+ (must|doesn't|is|has|expected|not a scalar)|^Unsupported reg type|pointer type"
        r"|isn't map pointer",
        "argument-type",
    ),
    (r"^tail_call|tail call|^kernel subsystem misconfigured", "tail-call"),
    (r"BPF_LD_\[ABS\|IND\]|^at the time of BPF_LD_ABS", "legacy-packet-load"),
    (r"btf_id|attach|Tracing programs|BTF|btf|Only fentry|fmod_ret|lsm", "attach-target"),
    (r"uninitialized variable", "undefined-behaviour"),
    (r"No program to jit|backtracking misuse", "function-arguments"),
    (r"readonly map|zero-terminated|format", "string-argument"),
    (r"support non-zero flags|^arg\d+ expected pointer to func", "function-arguments"),
)
"""(pattern searched in the kernel's message, stable class)."""


CLASSES: Final = frozenset(code for _, code in CODES)
"""The classes that a kernel's words lead to; each has a page in docs/refusals."""


@cache
def _rows() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), code) for pattern, code in CODES)


def code_of(message: str) -> str:
    """The stable class of a kernel's message; `UNCLASSED` where it is in none."""
    for pattern, code in _rows():
        if pattern.search(message):
            return code
    return UNCLASSED
