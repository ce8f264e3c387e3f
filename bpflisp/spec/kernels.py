"""Kernel versions: what each can, and which of the verifier's rules it has.

A profile is of one release x.y.z. "6.18" means the one that was measured, 6.18.44; a line that was not measured
("5.15") means its first release, and what it offers is worked out from its measured neighbours. A path that ends in
.json means the host that `bpflisp probe` wrote it of: its name is "6.8.0@host.json". A rule of the verifier has a name,
and begins with a mainline release; stable releases to which it was carried back are named besides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from bpflisp.lean import dataclass
from bpflisp.spec.rules import RULES, Rule
from bpflisp.spec.tabledata import table

MEASURED: Final = (
    "5.10.262", "6.1.192", "6.12.117", "6.16.12", "6.17.13", "6.18.15", "6.18.44", "6.19.14", "7.0.13", "7.2.12",
    "7.3.4",
)  # fmt: skip
"""The kernels that were booted and asked; 6.18.44 is the one that the tables are exact for."""

DEFAULT: Final = "6.18"

Version = tuple[int, int, int]


class UnknownKernelError(ValueError):
    """The text is no kernel version."""


def parse(text: str) -> Version:
    """`6.18`, `6.18.44`, `v6.1-rc3` or `6.1.0-56-cloud-amd64` -> (6, 18, 44); what is left out is 0."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-+].*)?", text.strip().partition("@")[0])
    if found is None:
        raise UnknownKernelError(f"{text!r} is no kernel version; one reads like 6.18 or 6.18.44")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def resolve(text: str) -> str:
    """The full version that a text names: "6.18" -> "6.18.44", the last measured of its line; "5.15" -> "5.15.0".

    A file of `bpflisp probe`: "host.json" -> "6.8.0@host.json". UnknownKernelError where it is none, and where it is
    later than any that was measured: what such a kernel would say nobody knows.
    """
    if "@" in text:
        return text
    if text.endswith(".json"):
        return f"{'.'.join(map(str, parse(str(host(text)['version']))))}@{text}"
    version = parse(text)
    if version[:2] > parse(MEASURED[-1])[:2]:
        raise UnknownKernelError(f"kernel {text} is not known: the last that was asked is {MEASURED[-1]}")
    named_patch = re.match(r"v?\d+\.\d+\.\d+", text.strip()) is not None
    if not named_patch:
        of_line = [measured for measured in MEASURED if parse(measured)[:2] == version[:2]]
        if of_line:
            return of_line[-1]
    return ".".join(str(part) for part in version)


def at_least(version: Version, needed: str) -> bool:
    """Whether a version is the needed release ("5.8") or a later one; "" is needed by nobody and had by nobody."""
    return bool(needed) and version >= parse(needed)


@cache
def host(path: str) -> Mapping[str, Any]:
    """What `bpflisp probe` wrote of a host: version, first_unknown, rows of helpers. UnknownKernelError if not so."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownKernelError(f"{path}: no profile of a kernel: {error}") from None
    if not isinstance(found, dict) or not {"version", "first_unknown", "rows"} <= set(found):
        raise UnknownKernelError(f"{path}: no profile of a kernel: `bpflisp probe` writes one")
    return found


def host_of(kernel: str) -> Mapping[str, Any] | None:
    """What was written of the host that a full version names ("6.8.0@host.json"); None for a release."""
    _, at, path = kernel.partition("@")
    return host(path) if at else None


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers that bound a program and the verifier's work."""

    insns: int
    processed: int
    states_per_insn: int
    jump_sequence: int
    subprograms: int
    frames: int
    stack: int
    maps: int
    tail_calls: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One kernel release, or one host. `measured` says whether it was asked, or is worked out from its neighbours.

    `host` is the path of the file that was written of it, "" for a release.
    """

    version: Version
    host: str = ""

    @property
    def name(self) -> str:
        """`6.18.44`, or `6.8.0@host.json`."""
        release = ".".join(str(part) for part in self.version)
        return f"{release}@{self.host}" if self.host else release

    @property
    def measured(self) -> bool:
        """Whether this very release was booted and asked."""
        return bool(self.host) or self.name in MEASURED

    def since(self, release: str) -> bool:
        """Whether it is that release or a later one."""
        return at_least(self.version, release)

    def has(self, name: str) -> bool:
        """Whether this kernel has a rule (`bpflisp.spec.rules`) or a feature of that name; KeyError for neither."""
        return _has(self.version, name)

    @property
    def limits(self) -> Limits:
        """The bounds of this kernel, for a loader with CAP_BPF."""
        return limits(self.version)


@cache
def profile(kernel: str = DEFAULT) -> Profile:
    """The profile that a version names. UnknownKernelError where it names none."""
    full = resolve(kernel)
    return Profile(parse(full), full.partition("@")[2])


@cache
def _rules() -> Mapping[str, Rule]:
    return {rule.name: rule for rule in RULES}


@cache
def _has(version: Version, name: str) -> bool:
    rule = _rules().get(name)
    if rule is not None:
        return rule.holds(version)
    return at_least(version, features()[name].min_kernel)


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that a program can use, the first release that has it, and how to see that a program uses it."""

    name: str
    title: str
    min_kernel: str
    detect: str


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


@cache
def features() -> Mapping[str, Feature]:
    """Every feature by its name: the title in lower case with dashes, "bounded-loops"."""
    rows = (Feature(_slug(title), title, least, detect) for title, least, detect in table("features")["features"])
    return {row.name: row for row in rows if re.fullmatch(r"[\d.]+", row.min_kernel)}


@cache
def flag_min_kernel() -> Mapping[str, str]:
    """The first release of each BPF_F_* flag."""
    return dict(table("features")["flags"])


@cache
def limits(version: Version) -> Limits:
    """The bounds of a release. Sources: kernel/bpf/verifier.c and include/linux/bpf.h of 6.1, 6.12 and 7.2."""
    big = at_least(version, "5.2")
    return Limits(
        insns=1_000_000 if big else 4096,
        processed=1_000_000 if big else 131_072,
        states_per_insn=64,
        jump_sequence=8192,
        subprograms=256,
        frames=8,
        stack=512,
        maps=64,
        tail_calls=33,
    )


def neighbours(version: Version, names: Sequence[str]) -> tuple[str | None, str | None]:
    """Of these versions, the last at or before the given one and the first at or after it."""
    ordered = sorted(names, key=parse)
    before = [name for name in ordered if parse(name) <= version]
    after = [name for name in ordered if parse(name) >= version]
    return (before[-1] if before else None), (after[0] if after else None)
