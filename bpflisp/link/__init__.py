"""Linking: functions, maps and globals as values -> the bytes of an ELF object with BTF.

The object is what clang would write, so that libbpf, cilium/ebpf and aya take it: BTF-defined maps in `.maps`, one
section per program section name, subprograms in `.text`, `.BTF` and `.BTF.ext` with function and line information.
Invariant: equal input gives equal bytes; nothing of the host gets in.
"""

from __future__ import annotations

from bpflisp.link.assemble import link
from bpflisp.link.values import (
    CoreAccess,
    Line,
    LinkError,
    LinkFunction,
    LinkGlobal,
    LinkMap,
    LinkObject,
    Relocation,
    RelocKind,
)

__all__ = [
    "CoreAccess",
    "Line",
    "LinkError",
    "LinkFunction",
    "LinkGlobal",
    "LinkMap",
    "LinkObject",
    "RelocKind",
    "Relocation",
    "link",
]
