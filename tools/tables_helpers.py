"""Tables of helpers, of who may call them on which kernel, and of kfuncs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bpflisp.spec.tabledata import numbers, ranges
from tools.facts import PROBED_KERNEL, answer, fact, prog_type_name

# What the kernel's lists of BTF ids stand for: the symbol in its sources -> the structure's name.
_BTF_SYMBOLS = {
    "BPF_PTR_POISON": "",
    "btf_sock_ids[BTF_SOCK_TYPE_SOCK_COMMON]": "sock_common",
    "btf_sock_ids[BTF_SOCK_TYPE_TCP6]": "tcp6_sock",
    "btf_sock_ids[BTF_SOCK_TYPE_TCP]": "tcp_sock",
    "btf_sock_ids[BTF_SOCK_TYPE_TCP_TW]": "tcp_timewait_sock",
    "btf_sock_ids[BTF_SOCK_TYPE_TCP_REQ]": "tcp_request_sock",
    "btf_sock_ids[BTF_SOCK_TYPE_UDP6]": "udp6_sock",
    "btf_sock_ids[BTF_SOCK_TYPE_UNIX]": "unix_sock",
    "btf_sock_ids[BTF_SOCK_TYPE_MPTCP]": "mptcp_sock",
    "btf_tracing_ids[BTF_TRACING_TYPE_TASK]": "task_struct",
    "btf_seq_file_ids[0]": "seq_file",
    "tcp_sock_id": "tcp_sock",
    "bpf_skb_output_btf_ids[0]": "sk_buff",
    "bpf_xdp_output_btf_ids[0]": "xdp_buff",
    "bpf_xdp_get_buff_len_bpf_ids[0]": "xdp_buff",
    "bpf_inode_storage_btf_ids[0]": "inode",
    "bpf_d_path_btf_ids[0]": "path",
    "bpf_bprm_opts_set_btf_ids[0]": "linux_binprm",
    "bpf_ima_inode_hash_btf_ids[0]": "inode",
    "bpf_ima_file_hash_btf_ids[0]": "file",
    "bpf_sock_from_file_btf_ids[0]": "socket",
    "bpf_sock_from_file_btf_ids[1]": "file",
    "bpf_cgroup_btf_id[0]": "cgroup",
    "bpf_task_pt_regs_ids[0]": "pt_regs",
}

_SIZES = {
    "sizeof(s64)": 8,
    "sizeof(u64)": 8,
    "sizeof(u32)": 4,
    "sizeof(struct iphdr)": 20,
    "sizeof(struct ipv6hdr)": 40,
    "sizeof(struct tcphdr)": 20,
}

# Names that the kernel gives to a base type with flags.
_COMPOSITES = {
    "ARG_PTR_TO_UNINIT_MEM": ("ARG_PTR_TO_MEM", "MEM_UNINIT", "MEM_WRITE"),
    "ARG_PTR_TO_FIXED_SIZE_MEM": ("ARG_PTR_TO_MEM", "MEM_FIXED_SIZE"),
    "RET_PTR_TO_RINGBUF_MEM_OR_NULL": ("RET_PTR_TO_MEM", "PTR_MAYBE_NULL", "MEM_RINGBUF"),
    "RET_PTR_TO_DYNPTR_MEM_OR_NULL": ("RET_PTR_TO_MEM", "PTR_MAYBE_NULL"),
    "RET_PTR_TO_BTF_ID_TRUSTED": ("RET_PTR_TO_BTF_ID", "PTR_TRUSTED"),
}


# Prototypes of 6.12.117 whose memory arguments got the flags that they lacked, by one fix of 2026: 6.18.44 has it (it
# refuses to write a read-only map through each of those with MEM_WRITE). (prototype, argument from 0) -> flag.
_FLAGS_SINCE_FIXED = {
    ("bpf_d_path_proto", 1): "MEM_WRITE",
    ("bpf_get_stack_proto_raw_tp", 1): "MEM_WRITE",
    ("bpf_read_branch_records_proto", 1): "MEM_WRITE",
    ("bpf_skb_fib_lookup_proto", 1): "MEM_WRITE",
    ("bpf_xdp_fib_lookup_proto", 1): "MEM_WRITE",
    ("bpf_snprintf_proto", 0): "MEM_WRITE",
    ("bpf_snprintf_btf_proto", 0): "MEM_WRITE",
    ("bpf_sysctl_get_name_proto", 1): "MEM_WRITE",
    ("bpf_kallsyms_lookup_name_proto", 0): "MEM_RDONLY",
    ("bpf_tcp_raw_gen_syncookie_ipv4_proto", 0): "MEM_RDONLY",
    ("bpf_tcp_raw_gen_syncookie_ipv4_proto", 1): "MEM_RDONLY",
    ("bpf_tcp_raw_gen_syncookie_ipv6_proto", 0): "MEM_RDONLY",
    ("bpf_tcp_raw_gen_syncookie_ipv6_proto", 1): "MEM_RDONLY",
    ("bpf_tcp_raw_check_syncookie_ipv4_proto", 0): "MEM_RDONLY",
    ("bpf_tcp_raw_check_syncookie_ipv4_proto", 1): "MEM_RDONLY",
    ("bpf_tcp_raw_check_syncookie_ipv6_proto", 0): "MEM_RDONLY",
    ("bpf_tcp_raw_check_syncookie_ipv6_proto", 1): "MEM_RDONLY",
}

# Helpers that later kernels give to every program type, in the form that the types without one of their own get.
_ELSEWHERE = {"bpf_get_cgroup_classid": "bpf_get_cgroup_classid_curr_proto"}


def _split(written: str) -> tuple[str, list[str]]:
    """`ARG_PTR_TO_MEM_OR_NULL | MEM_RDONLY` -> the base type and its flags, in order."""
    head, *flags = written.split(" | ")
    if head in _COMPOSITES:
        head, *more = _COMPOSITES[head]
        flags = more + flags
    elif head.endswith("_OR_NULL"):
        head, flags = head.removesuffix("_OR_NULL"), ["PTR_MAYBE_NULL", *flags]
    return head, sorted(set(flags))


# Types of 6.1 that have another name since: the table has one name for each thing.
_RENAMED = {
    "ARG_PTR_TO_ALLOC_MEM": "ARG_PTR_TO_RINGBUF_MEM",
    "ARG_PTR_TO_KPTR": "ARG_KPTR_XCHG_DEST",
    "RET_PTR_TO_ALLOC_MEM_OR_NULL": "RET_PTR_TO_RINGBUF_MEM_OR_NULL",
}


def _argument(arg: dict[str, Any], written: str, added: str = "") -> list[Any]:
    """A row of the argument: its type as `written`, with one flag more where the fix `added` it."""
    head, *rest = written.split(" | ")
    base, flags = _split(" | ".join([_RENAMED.get(head, head), *rest]))
    if added:
        flags = sorted({*flags, added} - ({"MEM_RDONLY"} if added == "MEM_WRITE" else set()))
    size = _SIZES[arg["size"]] if "size" in arg else 0
    return [base.removeprefix("ARG_"), flags, size, _BTF_SYMBOLS[arg["btf_id"]] if "btf_id" in arg else ""]


def _returned(written: str, btf: str) -> list[Any]:
    base, flags = _split(_RENAMED.get(written, written))
    return [base.removeprefix("RET_"), flags, btf]


_SWITCHES = {"gpl": "gpl_only", "pkt": "pkt_access", "sleep": "might_sleep", "fast": "allow_fastcall"}


def _proto(proto: dict[str, Any], in_6_1: dict[str, Any]) -> dict[str, Any]:
    """One prototype; `before` has what it said before a rule of `spec.rules` began, by the rule's name."""
    name, written = proto["proto"], [arg["type"] for arg in proto["args"]]
    row: dict[str, Any] = {"name": name.removesuffix("_proto")}
    row["ret"] = _returned(proto["ret_type"], _BTF_SYMBOLS[proto.get("ret_btf_id", "BPF_PTR_POISON")])
    added = [_FLAGS_SINCE_FIXED.get((name, at), "") for at in range(len(written))]
    row["args"] = [_argument(*each) for each in zip(proto["args"], written, added, strict=True)]
    for short, key in _SWITCHES.items():
        if proto[key]:
            row[short] = True
    if "allowed_check" in proto:
        row["allowed"] = proto["allowed_check"]
    before = _before(proto, written, row, in_6_1)
    return row | ({"before": before} if before else {})


def _before(proto: dict[str, Any], written: list[str], row: dict[str, Any], in_6_1: dict[str, Any]) -> dict[str, Any]:
    name, found = proto["proto"], {}
    plain = [_argument(*each) for each in zip(proto["args"], written, strict=True)]
    if plain != row["args"]:
        found["helper-memory-flags"] = {"args": plain}
    old: dict[str, Any] = {}
    if f"{name}.args" in in_6_1:
        types = in_6_1[f"{name}.args"]
        old["args"] = [_argument(*each) for each in zip(proto["args"], types, strict=True)]
    elif plain != row["args"]:
        old["args"] = plain
    if f"{name}.ret_type" in in_6_1:
        old["ret"] = _returned(in_6_1[f"{name}.ret_type"][0], row["ret"][2])
    if f"{name}.might_sleep" in in_6_1:
        old["sleep"] = in_6_1[f"{name}.might_sleep"][0]
    if any(old[key] != row.get(key, False) for key in old):
        found["helper-types-since-6-1"] = old
    return found


def _condition(when: str | None) -> str:
    """What selects among several prototypes, in a word of ours: `sleepable`, an attach type, `locked`, or ""."""
    if when is None or "check_recur" in when or "has_trampoline" in when:
        return ""
    if "is_kprobe_multi" in when:
        return "trace_kprobe_multi"
    if "BPF_TRACE_UPROBE_MULTI" in when:
        return "trace_uprobe_multi"
    return "trace_raw_tp" if "BPF_TRACE_RAW_TP" in when else ""


def _uses(helper: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """Program type -> [condition, index of the prototype], most special first."""
    index = {proto["proto"]: at for at, proto in enumerate(helper["protos"])}
    uses: dict[str, list[list[Any]]] = {}
    for key, entries in sorted(helper["prog_types_6_12"].items()):
        prog_type = prog_type_name(key.split(":")[0])
        rows = []
        for entry in entries:
            if isinstance(entry, str):
                rows.append(["", index[entry]])
            elif "prog->sleepable ?" in (entry["when"] or ""):
                rows.append(["sleepable" if "sleepable" in entry["proto"] else "", index[entry["proto"]]])
            else:
                rows.append([_condition(entry["when"]), index[entry["proto"]]])
        kept = uses.setdefault(prog_type, [])
        kept += [row for row in rows if row[0] not in {known[0] for known in kept}]
    if helper["name"] in _ELSEWHERE:
        uses["*"] = [["", index[_ELSEWHERE[helper["name"]]]]]
    return {prog_type: sorted(rows, key=lambda row: row[0] == "") for prog_type, rows in uses.items()}


def _of_6_1(helper: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = helper.get("changes_since_6_1", {}).get("proto_in_6_1", {})
    return changes


def helpers(shared: Path) -> list[dict[str, Any]]:
    """One row a helper, in the order of ids."""
    rows = []
    for helper in sorted(fact(shared, "helpers")["helpers"], key=lambda helper: helper["id"]):
        uses = _uses(helper)
        plain = all(rows == [["", 0]] for rows in uses.values())
        rows.append(
            {
                "id": helper["id"],
                "name": helper["name"],
                "c": helper["c_prototype"],
                "min": helper["min_kernel"],
                "protos": [_proto(proto, _of_6_1(helper)) for proto in helper["protos"]],
            }
            | ({} if plain and len(helper["protos"]) == 1 else {"uses": uses})
        )
    return rows


def helper_sets(shared: Path) -> dict[str, Any]:
    """Kernel -> first unknown id and, for each kind of program that it loads, its helpers and which want the GPL."""
    attach_names = {number: name for name, number in answer("enums")["bpf_attach_type"].items()}
    sets = {}
    for version, kernel in fact(shared, "helpers_by_kernel")["kernels"].items():
        rows = [
            _set_row(row, attach_names)
            for row in kernel["prog_types"].values()
            if row["supported"] and "helpers" in row
        ]
        unknown = {row["first_unknown_id"] for row in kernel["prog_types"].values() if "first_unknown_id" in row}
        sets[version] = {"first_unknown": unknown.pop(), "rows": rows}
    sets[PROBED_KERNEL] = _probed_set(sets["6.18.15"])
    for kernel in sets.values():
        kernel["rows"] += [_release_row(row) for row in kernel["rows"] if row[0] == "struct_ops"]
    return {
        version: sets[version] for version in sorted(sets, key=lambda name: [int(part) for part in name.split(".")])
    }


def _release_row(row: list[Any]) -> list[Any]:
    """The row of `release` of tcp_congestion_ops, its member 17: it may not call bpf_setsockopt and bpf_getsockopt.

    Asked of 6.18.44, member by member. The attach type of a struct_ops program is a member's number, which reads as
    the attach type of that number.
    """
    prog_type, _, sleepable, helpers, gpl = row
    without = frozenset({49, 57})
    return [prog_type, "flow_dissector", sleepable, ranges(numbers(helpers) - without), ranges(numbers(gpl) - without)]


def _set_row(row: dict[str, Any], attach_names: dict[int, str]) -> list[Any]:
    types = {number: name for name, number in answer("enums")["bpf_prog_type"].items()}
    prog_type, attach = types[row["prog_type"]], row["expected_attach_type"]
    attach_type = attach_names[attach] if attach or prog_type == "cgroup_skb" else ""
    if prog_type == "struct_ops":
        attach_type = ""
    return [prog_type, attach_type, bool(row["flags"] & 16), ranges(row["helpers"]), ranges(row["gpl_only"])]


def _probed_set(neighbour: dict[str, Any]) -> dict[str, Any]:
    """The probed kernel's own answers; for kinds of program that it cannot attach, those of 6.18.15."""
    probed = answer("helpers")
    rows = [
        [row["prog_type"], row["attach_type"], bool(row["flags"] & 16), ranges(row["helpers"]), ranges(row["gpl_only"])]
        for row in probed["shapes"].values()
        if "helpers" in row
    ]
    asked = {tuple(row[:3]) for row in rows}
    borrowed = [row for row in neighbour["rows"] if tuple(row[:3]) not in asked and row[0] in ("tracing", "lsm")]
    return {"first_unknown": probed["first_unknown"], "rows": rows + borrowed}


_MORE_FLAGS = {
    "bpf_rbtree_root": ("RET_NULL",), "bpf_rbtree_left": ("RET_NULL",), "bpf_rbtree_right": ("RET_NULL",),
    "bpf_list_front": ("RET_NULL",), "bpf_list_back": ("RET_NULL",),
}  # fmt: skip
"""Flags that the sets of the data lack, and that 6.18.44 acts on: its log shows what these give as ptr_or_null_."""


_MORE_SETS: dict[str, list[list[Any]]] = {
    name: [["test_sk_check_kfunc_ids", ["RELEASE"], ["sched_cls", "tracing", "syscall"]]]
    for name in ("bpf_kfunc_call_test_release", "bpf_kfunc_call_memb_release")
}
"""Registrations that the data lack, of functions for the kernel's own tests: 6.18.44 asks for a reference there."""


def kfuncs(shared: Path) -> list[dict[str, Any]]:
    """One row a kfunc; `args` and `ret` where the probed kernel's BTF has it, else absent."""
    rows = []
    for kfunc in sorted(fact(shared, "kfuncs")["kfuncs"], key=lambda kfunc: kfunc["name"]):
        row = {"name": kfunc["name"], "min": kfunc["min_kernel"]}
        if "args" in kfunc:
            row["ret"] = kfunc["ret"]
            row["args"] = [[arg["name"], arg["ctype"]] for arg in kfunc["args"]]
        row["sets"] = [[entry["set"], sorted(_flags(kfunc["name"], entry)), _types(entry)] for entry in kfunc["sets"]]
        row["sets"] += _MORE_SETS.get(kfunc["name"], [])
        rows.append(row)
    return rows


def _flags(name: str, entry: dict[str, Any]) -> set[str]:
    return {re.sub("^KF_", "", flag) for flag in entry["flags"] or ()} | set(_MORE_FLAGS.get(name, ()))


def _types(entry: dict[str, Any]) -> list[str]:
    return [prog_type_name(name) for name in entry["program_types"]]
