"""The verifier's rules that have not always been so: each with the releases in which it holds.

A rule is data: the verifier asks `profile.has("rule-name")` and does what the answer says. `since` names the first
mainline release, then the stable releases that got it by a fix carried back: `("6.3", "6.1.192")`. `until` names, in
the same form, the first release in which it no longer holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
    Rule("stack-uninit-read", ("6.3", "6.1.192"), "a privileged program may read stack bytes that nobody wrote"),
    Rule("jeq-infer-not-null", ("6.2",), "equal to a pointer that is not null: not null"),
    Rule("scalar-ids-in-pruning", ("6.4",), "states are compared with the equalities between their scalars"),
    Rule("callbacks-are-loops", ("6.7",), "the body of a callback is verified as often as a loop's"),
    Rule("branch-register-bounds", ("6.8",), "a comparison of two registers narrows both"),
    Rule("spilled-constants", ("6.8",), "constants and narrow scalars are tracked through the stack"),
    Rule("narrow-fills", ("6.9",), "a load of a part of a spilled number sees what the number's bounds say of it"),
    Rule("global-argument-tags", ("6.8",), "a BTF tag such as `arg:ctx` says what a global function is given"),
    Rule("helper-refusal-names-type", ("6.9",), "`program of this type cannot use helper`, before it `unknown func`"),
    Rule("helper-types-since-6-1", ("6.2",), "prototypes of helpers as they are in 6.12; before, as in 6.1"),
    Rule("helper-memory-flags", ("7.0", "6.18.44"), "every helper says which memory it reads and which it writes"),
    Rule("array-constant-key-not-null", ("6.14",), "an array lookup with a constant key in range is never null"),
    Rule("private-stack", ("6.13",), "some tracing programs get a stack of their own beyond 512 bytes"),
    Rule("linked-scalars-delta", ("6.12",), "scalars that differ by a constant are narrowed together"),
    Rule("gotol", ("6.6", "6.1.192"), "a jump with a distance of 32 bits; the 6.1 line got it with a fix"),
    Rule("failure-report", ("7.3",), "the log ends in a report for people: Reason, At, Causal path, Suggestion"),
)
"""Every rule; the versions from design/kernel-versions.md, corrected where a measured kernel says otherwise."""
