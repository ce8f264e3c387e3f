"""From a kernel's log to the pages of docs/refusals: what was refused, and what to do.

Reads what kernels before 7.3 print, where the refusal is the last line before the statistics, and the report of 7.3
at log level 1, with "Verification failed: ..." and lines that begin with Problem, Reason and Suggestion. Other text
around the log, as libbpf and loaders print it, is skipped.

Invariant: a line is explained only where its class is known; what no row of `refusal.CODES` knows is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from simulator.verifier.advice import advice_of
from simulator.verifier.refusal import CLASSES, UNCLASSED, code_of


class Explained(NamedTuple):
    """A refusal that was found in a log: its class, the problem in a line, what to do, the page ("" for none), and the
    kernel's own line.
    """

    code: str
    problem: str
    help: str
    page: str
    said: str


# What is in front of a log's line: libbpf's name, the time stamps of dmesg, journals and loggers, quotation marks.
_PREFIX = re.compile(
    r"^(?:\s*(?:libbpf|bpftool|\[[\d.,: TZ+-]+\]|\d{4}[-/]\d\d[-/]\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?"
    r"|[A-Z][a-z]{2} +\d+ [\d:]{8} \S+ [\w.\[\]-]+(?=:)"
    r"|(?:ERROR|WARN(?:ING)?|INFO|DEBUG|level=\w+)(?=[ :])|[>|])[: ]*)+"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_OMITTED = re.compile(r"\s*\(\d+ lines?(?:\(s\))? omitted\)\s*$")
# What a loader says in a line of its own, or in front of the kernel's words: libbpf, cilium/ebpf, aya.
_LOADER = re.compile(
    r"^\s*(?:prog '[^']*': (?:BPF program load failed|failed to|-- (?:BEGIN|END))|"
    r"failed to (?!find BTF for kernel f)|Error: |map '[^']*': |"
    r"field \w+: |program \S+: |load(?:ing)? program|the `?BPF_PROG_LOAD|Verifier output|[Cc]ould ?n.?t load |"
    r"libbpf: |verifier log|-- (?:BEGIN|END) PROG)"
)
_STATISTICS = re.compile(r"processed \d+ insns\b.*$")
_HEADING = re.compile(r"^\s*(?:Verification failed|Problem|Reason)\s*:\s*(.*)$", re.I)
_SUGGESTION = re.compile(r"^\s*Suggestion\s*:\s*(.*)$", re.I)
_GLUED = re.compile(r"^\d+: \([0-9a-f]{2}\).*?(?=infinite loop detected at insn)")
# Lines of a log that are no refusal: instructions, states, source, notes of the exploration, loaders' frames.
_NO_REFUSAL = re.compile(
    r"^\s*$|^;|^\s*\d+: |^from \d+ to \d+|^\s*(R\d+=|fp-\d+=|frame\d+:|refs=)|^(caller|callee|returning from|to caller)"
    r"|^mark_precise|^func#\d+ @|^Func#\d+ .*(safe|assumed valid)|^Validating |^(cur|old) state|^Unreleased reference"
    r"|^-- (BEGIN|END)|^verification time|^stack depth|^Live regs"
)


def explain(log: str) -> list[Explained]:
    """What a pasted log says, each refusal once, in its order; empty where nothing in it is known."""
    found: dict[str, Explained] = {}
    for line, suggestion in _refusals(log):
        code = code_of(line)
        if code == UNCLASSED or code in found:
            continue
        advice = advice_of(code)
        page = f"docs/refusals/{code}.md" if code in CLASSES else ""
        found[code] = Explained(code, advice.problem, suggestion or advice.help, page, line)
    return list(found.values())


def _refusals(log: str) -> Iterator[tuple[str, str]]:
    """The lines that refuse, each with the kernel's own suggestion where it makes one."""
    lines = [_PREFIX.sub("", line).rstrip() for line in _plain(log).splitlines()]
    if any(line.lstrip().lower().startswith("verification failed:") for line in lines):
        yield from _reported(lines)
        return
    last = ""
    for line in lines:
        last = _said(line) or last
        if _STATISTICS.search(line):
            if last:
                yield last, ""
            last = ""
    if last:
        yield last, ""


def _reported(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The report of 7.3: the reason names what happened, the heading its class."""
    reports: list[list[str]] = []
    for line in lines:
        if line.lstrip().lower().startswith("verification failed:"):
            reports.append([])
        if reports:
            reports[-1].append(line)
    for report in reports:
        suggestion = next((found[1] for found in map(_SUGGESTION.match, report) if found), "")
        said = [found[1].strip() for found in map(_HEADING.match, report) if found]
        # the reason is the most particular, and comes after the heading
        candidates = [*reversed(said), *(line.strip() for line in report)]
        known = next((text for text in candidates if _known(text)), "")
        if known:
            yield known, suggestion


def _plain(log: str) -> str:
    """A log without colours; one that was pasted as a quoted string, as it was before."""
    text = _COLOUR.sub("", log)
    if "\\n" in text and text.count("\\n") > text.count("\n"):
        text = text.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"').replace("\\'", "'")
    return text


def _said(line: str) -> str:
    """The refusal that a line holds, "" where it holds none. A loader may have put its own words in front, with colons
    between: what is left of those is looked at from the end.
    """
    text = _GLUED.sub("", _STATISTICS.sub("", _OMITTED.sub("", line))).strip().strip('"')
    if not _LOADER.match(text):
        return text if _known(text) else ""
    parts = re.split(r": |\t", text)
    tails = (": ".join(parts[at:]).strip() for at in range(len(parts) - 1, 0, -1))
    return next((tail for tail in tails if not _LOADER.match(tail) and _known(tail)), "")


def _known(text: str) -> bool:
    return bool(text) and not _NO_REFUSAL.match(text) and code_of(text) != UNCLASSED
