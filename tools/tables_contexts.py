"""Tables of program contexts: what may be read and written, byte by byte, and the layouts of the structures."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from bpflisp.spec.tabledata import ranges
from tools.facts import answer, attach_type_name, fact, prog_type_name


def contexts(shared: Path) -> dict[str, Any]:
    """`tables`: distinct accesses; `kinds`: (program type, attach type) -> index of its table, and its structure."""
    structs = {
        (prog_type_name(row["prog_type"]), attach_type_name(row["attach_type"])): (row["ctx_struct"], row["ctx_size"])
        for row in fact(shared, "contexts")["contexts"]
    }
    by_type = {prog_type: struct for (prog_type, _), struct in structs.items()}
    tables: list[dict[str, Any]] = []
    kinds = []
    for row in answer("contexts").values():
        table: dict[str, Any] = {"reads": _reads(row["reads"]), "writes": _sizes(row["writes"])}
        if row["prog_type"] in _BUFFERS:
            table = _BUFFERS[row["prog_type"]]
        if table not in tables:
            tables.append(table)
        name, size = by_type[row["prog_type"]]
        kind = [row["prog_type"], row["attach_type"], name or "", size, tables.index(table)]
        if kind not in kinds:
            kinds.append(kind)
    return {"tables": tables, "kinds": kinds}


# Contexts without a structure: bytes from and below, and whether they may be written. Asked of 6.18.44: of a trace
# event the first eight bytes are hidden (not those before them: the kernel compares unsigned), and its buffer ends at
# PERF_MAX_TRACE_SIZE; a syscall program's argument has U16_MAX bytes at most.
_BUFFERS: dict[str, dict[str, Any]] = {
    "tracepoint": {"spans": [[-32768, 0], [8, 8192]], "writable": False},
    "syscall": {"spans": [[0, 65535]], "writable": True},
}


def _sizes(places: list[str]) -> dict[str, str]:
    by_size: dict[int, list[int]] = defaultdict(list)
    for place in places:
        off, size = place.split(":")
        by_size[int(size)].append(int(off))
    return {str(size): ranges(offsets) for size, offsets in sorted(by_size.items())}


def _reads(reads: dict[str, str]) -> dict[str, dict[str, str]]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for place, kind in reads.items():
        kinds[kind].append(place)
    return {kind: _sizes(places) for kind, places in sorted(kinds.items())}


def structs(shared: Path) -> dict[str, Any]:
    """Structure -> size and fields [name, offset, size, C type, bit offset, bits]; the last two only of bit-fields."""
    rows = {}
    for name, struct in fact(shared, "contexts")["structs"].items():
        rows[name] = [struct["size"], [_field(field) for field in struct["fields"]]]
    return rows | _UNSIZED


# The user API ends this one in an array without a length; the kernel lets MAX_BPF_FUNC_ARGS words of it be read.
_UNSIZED = {"bpf_raw_tracepoint_args": [96, [["args", 0, 96, "__u64[12]"]]]}


def _field(field: dict[str, Any]) -> list[Any]:
    plain = [field["field"], field["offset"], field["size"], field["ctype"]]
    return plain if field["bits"] is None else [*plain, field["bit_offset"], field["bits"]]


def pt_regs(shared: Path) -> dict[str, Any]:
    """Architecture -> size, fields [name, offset, size] and the registers that carry what (`parm`)."""
    rows = {}
    for arch, regs in fact(shared, "contexts")["pt_regs"].items():
        fields = regs["fields"] + regs.get("kernel_extra", [])
        rows[arch] = {
            "size": regs["size"],
            "fields": [[field["field"], field["offset"], field["size"]] for field in fields],
            "parm": regs["parm"],
        }
    return rows
