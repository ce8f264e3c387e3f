"""Tables of program types, attach types, section names, return ranges and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.facts import answer, attach_type_name, fact, prog_type_name

# First releases that the shared list leaves out: by its features, and by which of the booted kernels load them.
_MORE_MINIMA = {
    "netfilter": "6.4",
    "trace_uprobe_multi": "6.6",
    "trace_uprobe_session": "6.13",
    "trace_fsession": "7.0",
    "cgroup_unix_connect": "6.7",
    "cgroup_unix_sendmsg": "6.7",
    "cgroup_unix_recvmsg": "6.7",
    "cgroup_unix_getpeername": "6.7",
    "cgroup_unix_getsockname": "6.7",
}


def programs(shared: Path) -> dict[str, Any]:
    """`types`, `attach` (name -> number, least kernel) and `returns` (kinds of program whose r0 has a range)."""
    minimum = _MORE_MINIMA | {
        attach_type_name(name): least for name, least in fact(shared, "min_kernel")["attach_types"].items()
    }
    numbers = dict(answer("enums")["bpf_attach_type"])
    for section in fact(shared, "sections")["sections"]:
        if section["attach_type"]:
            numbers.setdefault(attach_type_name(section["attach_type"]), section["attach_type_id"])
    numbers.pop("trace_kprobe_session_max", None)
    attach = {
        name: [number, minimum.get(name, "")]
        for name, number in sorted(numbers.items(), key=lambda item: item[1])
        if not name.startswith("_")
    }
    direct = fact(shared, "verifier_tables")["kernels"]["6.12"]["direct_packet_access"]
    rows = [_type_row(row, direct) for row in fact(shared, "prog_types")["prog_types"]]
    returns = [
        [row["prog_type"], row["attach_type"], *row["range"]] for row in answer("returns").values() if row["range"]
    ]
    unique = [row for at, row in enumerate(returns) if row not in returns[:at]]
    # Of fentry and fexit the probed kernel cannot be asked; check_return_code() of 6.12 and 7.2 has one value for both.
    unique += [["tracing", "trace_fentry", 0, 0], ["tracing", "trace_fexit", 0, 0]]
    load = {row["name"]: _load_rules(row["name"]) for row in rows}
    return {"types": rows, "attach": attach, "returns": unique, "load": load}


_BY_BTF = ("tracing", "lsm", "struct_ops", "ext")


def _load_rules(prog_type: str) -> dict[str, Any]:
    """From the answers where the kernel could be asked; a type that wants a BTF target takes the types of libbpf."""
    if prog_type in _BY_BTF:
        return {"sleepable": "never" if prog_type == "ext" else "may", "target": True}
    said = answer("attach").get(prog_type, {"taken": [], "sleepable": [22, ""], "plain": [22, ""]})
    everything = set(answer("enums")["bpf_attach_type"]) - {"__max_bpf_attach_type"}
    row: dict[str, Any] = {"sleepable": "never"}
    if said["sleepable"][0] == 0:
        row["sleepable"] = "must" if "only be sleepable" in said["plain"][1] else "may"
    if set(said["taken"]) < everything and said["taken"]:
        zero = "cgroup_inet_ingress" in said["taken"]
        own = [name for name in said["taken"] if name != "cgroup_inet_ingress" or prog_type == "cgroup_skb"]
        row["attach"] = ([""] if zero else []) + own
    return row


def _type_row(row: dict[str, Any], direct: dict[str, list[str]]) -> dict[str, Any]:
    packet = "rw" if row["name"] in direct["read_write"] else "r" if row["name"] in direct["read_only"] else ""
    return {
        "number": row["id"],
        "name": prog_type_name(row["name"]),
        "min": row["min_kernel"],
        "context": (row["ctx_struct"] or [""])[0],
        "attach": [attach_type_name(entry["name"]) for entry in row["attach_types"]],
        "test_run": row["test_run"]["min_kernel"] or "",
        "packet": packet,
    }


def sections(shared: Path) -> list[list[Any]]:
    """libbpf's table in its order: pattern, program type, attach type, flags."""
    rows = []
    for row in fact(shared, "sections")["sections"]:
        flags = [flag.removeprefix("SEC_").lower() for flag in row["flags"] if flag != "SEC_NONE"]
        rows.append([row["pattern"], prog_type_name(row["prog_type"]), attach_type_name(row["attach_type"]), flags])
    return rows


def features(shared: Path) -> dict[str, Any]:
    """What a kernel can, with the least version; and the least version of program, map and attach types."""
    least = fact(shared, "min_kernel")
    rows = [[row["feature"], row["min_kernel"], row["detect"]] for row in fact(shared, "features")["features"]]
    return {"features": rows, "flags": least["flags"]}
