"""How earlier kernels word a refusal: what is said otherwise today, as rewritings of today's lines, with their release.

The verifier's code says what 6.18 says. A row holds for kernels before its release; rows are tried in order, and each
may change the line that the one before left. Where an earlier kernel decides otherwise, not only words otherwise, a
rule of `bpflisp.spec.rules` says so instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass

if TYPE_CHECKING:
    from bpflisp.spec.kernels import Profile

Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True, slots=True)
class Wording:
    """Kernels before `until` say `text` where later ones say what `pattern` finds."""

    until: str
    pattern: re.Pattern[str]
    text: Replacement


def _constant_bits(found: re.Match[str]) -> str:
    """A known number as value and mask."""
    return f"{found[1]}({int(found[2]) & 0xFFFFFFFFFFFFFFFF:#x}; 0x0){found[3]}"


_MEMORY: Final = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"

WORDINGS: Final = tuple(
    Wording(until, re.compile(pattern), text)
    for until, pattern, text in (
        # what a helper's argument may be
        ("6.2", re.escape(_MEMORY), "fp, pkt, pkt_meta, map_key, map_value, mem, alloc_mem, buf"),
        ("5.13", re.escape("fp, pkt, pkt_meta, map_key, map_value, mem, alloc_mem, buf"),
         "fp, pkt, pkt_meta, map_value, mem, rdonly_buf, rdwr_buf"),
        ("5.13", r"expected=fp, pkt, pkt_meta, map_key, map_value$", "expected=fp, pkt, pkt_meta, map_value"),
        ("6.2", r"(expected=sock_common, sock, tcp_sock, xdp_sock, ptr_), trusted_ptr_", r"\1"),
        ("6.2", r"expected=percpu_ptr_, percpu_rcu_ptr_, percpu_trusted_ptr_", "expected=percpu_ptr_"),
        ("6.2", r"expected=ptr_, trusted_ptr_, rcu_ptr_", "expected=ptr_"),
        ("6.2", r"expected=map_value, ptr_", "expected=map_value"),
        # names of types
        ("6.2", r"\bringbuf_mem", "alloc_mem"),
        ("6.2", r"\btrusted_ptr_", "ptr_"),
        ("5.17", r"\balloc_mem", "mem"),
        ("5.18", r"(mem access '|type=)scalar\b", r"\1inv"),
        # a known number in the place of unknown bits
        ("6.8", r"(misaligned (?:\w+ )?access off (?:2\+)?)(-?\d+)(\+-?\d+\+-?\d+ size \d+)$", _constant_bits),
        ("6.8", r"(variable-offset .*var_off=\S+ \S+) off=-?\d+( size=)", r"\1\2"),
        # calls
        ("6.8", r"^(Caller passes invalid args into func#\d+) \('.*'\)$", r"\1"),
        ("6.14", r"^BPF_EXIT instruction in main prog would lead to reference leak$", ""),
        ("6.14", r"^BPF_LD_\[ABS\|IND\] would lead to reference leak$",
         "BPF_LD_[ABS|IND] cannot be mixed with socket references"),
        ("5.13", r"( pointer arithmetic on (?!map_value)\S+ prohibited), null-check it first$", r"\1"),
        ("6.8", r"^At async callback return the register", "At async callback the register"),
        ("6.15", r"^expected prog array map for tail call$", "kernel subsystem misconfigured verifier"),
        ("6.2", r"^(off \d+ doesn't point to 'struct bpf_spin_lock') that is at \d+$", r"\1"),
        ("5.12", r"^BPF_ATOMIC stores into", "BPF_XADD stores into"),
    )
)  # fmt: skip


@cache
def _rows(profile: Profile) -> tuple[Wording, ...]:
    return tuple(row for row in WORDINGS if not profile.since(row.until))


def reworded(profile: Profile, line: str) -> str:
    """A line of a refusal as that kernel words it; "" where it says nothing."""
    for row in _rows(profile):
        line = row.pattern.sub(row.text, line)
    return line
