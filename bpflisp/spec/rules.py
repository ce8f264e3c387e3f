"""The verifier's rules that have not always been so: each with the releases in which it holds.

A rule is data: the verifier asks `profile.has("rule-name")` and does what the answer says. `since` names the first
mainline release, then the stable releases that got it by a fix carried back: `("6.3", "6.1.192")`. `until` names, in
the same form, the first release in which it no longer holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpflisp.lean import dataclass

Version = tuple[int, int, int]


def _parts(text: str) -> Version:
    numbers = [int(part) for part in text.split(".")]
    return numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 0


def _reached(version: Version, points: Sequence[str]) -> bool:
    """Whether the version is past the mainline release, or past the fix carried back to its own stable line."""
    mainline, *carried_back = (_parts(point) for point in points)
    if version >= mainline:
        return True
    return any(version[:2] == point[:2] and version >= point for point in carried_back)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name, when it begins and ends, and what it says."""

    name: str
    since: Sequence[str]
    about: str
    until: Sequence[str] = ()

    def holds(self, version: Version) -> bool:
        """Whether a kernel of that version has it."""
        return _reached(version, self.since) and not (self.until and _reached(version, self.until))


RULES: Final = (
    Rule(
        "stack-uninit-read",
        ("6.3", "6.1.192", "5.10.262"),
        "a privileged program may read stack that nobody wrote",
    ),
    Rule("reads-grow-stack", ("6.8", "6.1.192"), "also below all that it ever wrote; before, within that alone"),
    Rule("jeq-infer-not-null", ("6.2",), "equal to a pointer that is not null: not null"),
    Rule("scalar-ids-in-pruning", ("6.5",), "states are compared with the equalities between their scalars"),
    Rule("constants-get-no-id", ("6.5",), "a copy of a constant is not linked to it"),
    Rule("moves-of-32-bits-keep-id", ("6.7",), "`w1 = w2` links the two where the number fits 32 bits"),
    Rule("callbacks-are-loops", ("6.7",), "the body of a callback is verified as often as a loop's"),
    Rule("spilled-constants", ("6.8",), "zero and unknown numbers, too, are kept as they are in a stack slot"),
    Rule("narrow-spills-narrowed", ("6.9",), "what is learnt of a number is learnt of its copies of 4 bytes or fewer"),
    Rule("maps-are-not-null", ("6.2",), "a pointer to a map, or to memory, is never null"),
    Rule(
        "half-pointers-may-be-null",
        ("7.2", "6.12.117"),
        "the low 32 bits of a pointer may be zero; before, a pointer that is not null compares so with 32 bits, too",
    ),
    Rule("spills-get-id", ("6.9",), "a number in a register and its copy in a stack slot are linked"),
    Rule(
        "scrubbed-by-variable-store",
        ("7.0", "6.12.117", "6.18.44"),
        "a store at a variable offset ends what was spilled in its range; before, half of it",
    ),
    Rule("narrow-fills", ("6.9",), "a load of a part of a spilled number sees what the number's bounds say of it"),
    Rule("global-argument-tags", ("6.8",), "a BTF tag such as `arg:ctx` says what a global function is given"),
    Rule("helper-refusal-names-type", ("6.9",), "`program of this type cannot use helper`, before it `unknown func`"),
    Rule("helper-types-since-6-1", ("6.2",), "prototypes of helpers as they are in 6.12; before, as in 6.1"),
    Rule("helpers-spare-stack", ("6.14",), "a helper's argument on the stack is written to where the helper says so"),
    Rule("empty-reads-are-named", ("6.8",), "`invalid zero-sized read` names the register and what it may hold"),
    Rule("results-need-no-value", ("6.12", "6.1.192"), "where bpf_strtol puts its result nothing need be before"),
    Rule("helper-memory-flags", ("7.0", "6.18.44"), "every helper says which memory it reads and which it writes"),
    Rule("array-constant-key-not-null", ("6.14",), "an array lookup with a constant key in range is never null"),
    Rule("private-stack", ("6.13",), "some tracing programs get a stack of their own beyond 512 bytes"),
    Rule("static-registers", ("6.15",), "registers that may be read are known from the instructions alone"),
    Rule("static-stack", ("6.18",), "so are stack slots; before, reads are noted as they are met"),
    Rule("loops-by-component", ("6.17",), "which states lie in a loop is known from the instructions alone"),
    Rule("precision-across-frames", ("6.4",), "what a decision rests on is followed into and out of functions"),
    Rule("long-histories-end", ("6.12",), "a path of more than 40 remembered steps gets a checkpoint"),
    Rule("returns-are-precise", ("6.8",), "what a program returns decides, where its type bounds it"),
    Rule("zeros-are-imprecise", ("6.8",), "a zero read from the stack decides nothing; before, what is added to it"),
    Rule(
        "packet-loads-return",
        ("7.0", "6.18.44", "6.12.117", "6.1.192"),
        "a legacy packet load in a function may end it, and is looked at both ways",
    ),
    Rule("tail-calls-move-packets", ("6.13", "6.12.117"), "behind a tail call pointers to the packet are void"),
    Rule("tail-calls-return", ("6.19", "6.18.15"), "a tail call in a function may end it, and is looked at both ways"),
    Rule(
        "sums-are-the-pointer",
        ("7.2", "6.12.117", "6.1.192"),
        "a number plus a pointer is that pointer, its reference and its frame with it; before, without these",
    ),
    Rule(
        "global-calls-in-sections", ("6.15",), "a global function that cannot sleep may be called with preemption off"
    ),
    Rule("sections-close-before-references", ("6.14",), "what is left open at an exit is looked at after references"),
    Rule("signed-instructions", ("6.6",), "sign-extending moves and signed division, in the offset of an instruction"),
    Rule("ordered-accesses", ("6.15",), "load-acquire and store-release"),
    Rule("locks-span-functions", ("6.8",), "a function may return to its caller with a lock held"),
    Rule("kptrs-in-values", ("5.19",), "a map's value may keep pointers to objects of the kernel"),
    Rule("kptrs-are-referenced", ("6.4",), "the tag `kptr` says that the pointer holds a reference; before, not"),
    Rule("dynptrs-are-watched", ("6.3",), "a store over a dynptr ends it; before, its slots are no dynptr's any more"),
    Rule("keys-in-any-memory", ("6.2",), "a map's key and value may be in memory that a helper or a ring buffer gave"),
    Rule("globals-when-called", ("6.8",), "a global function is verified once it is called; before, each, and first"),
    Rule(
        "global-memory-arguments",
        ("5.12",),
        "a global function may be given a pointer to memory, too",
    ),
    Rule("task-stacks-are-sized", ("5.11",), "bpf_get_task_stack returns no more than the size that it was given"),
    Rule("processors-are-counted", ("6.10",), "bpf_get_smp_processor_id is less than the number of possible CPUs"),
    Rule(
        "stacks-in-sixteens",
        ("6.8",),
        "a function's stack counts in units of 16 bytes; before, of 32",
    ),
    Rule("constants-stored-in-context", ("6.4",), "a constant may be stored in the context, not a register alone"),
    Rule("records-given-back-whole", ("6.0",), "what is given back has to be pointed to at its very start"),
    Rule("tracepoints-may-be-null", ("6.14", "6.12.117"), "some arguments of tracepoints may be null, or an error"),
    Rule("sockmaps-changed-by-few", ("7.3",), "socket filters, flow dissectors and XDP programs change no socket map"),
    Rule("linked-scalars-delta", ("6.11",), "scalars that differ by a positive constant are narrowed together"),
    Rule(
        "linked-scalars-negative",
        ("7.0", "6.18.44"),
        "also by a negative constant, by a subtraction, and in 32 bits",
    ),
    Rule(
        "linked-scalars-settled",
        ("6.19", "6.18.15"),
        "bounds of a scalar that is narrowed with another, a constant away, are deduced from each other",
    ),
    Rule("may-goto-over-nothing", ("6.14",), "`may_goto +0` is an instruction"),
    Rule("gotol", ("6.6", "6.1.192"), "a jump with a distance of 32 bits; the 6.1 line got it with a fix"),
)
"""Every rule; the versions from design/kernel-versions.md, corrected where a measured kernel says otherwise."""
