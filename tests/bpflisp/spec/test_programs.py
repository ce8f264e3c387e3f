"""Program types, attach types, sections as libbpf matches them, return ranges, names of actions."""

from __future__ import annotations

import json

import pytest

from bpflisp.spec import programs
from bpflisp.spec.tabledata import table
from tools.facts import ANSWERS

ALL = list(programs.all_program_types())
RETURNS = json.loads((ANSWERS / "6.18.44" / "returns.json").read_text())
ENUMS = json.loads((ANSWERS / "6.18.44" / "enums.json").read_text())


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_found_by_number_and_name(kind: programs.ProgramType) -> None:
    assert programs.by_name(kind.name) is kind
    assert programs.by_number(kind.number) is kind
    assert ENUMS["bpf_prog_type"][kind.name] == kind.number
    assert all(name in programs.attach_numbers() for name in kind.attach_types)
    assert programs.load_rules(kind.name).sleepable in ("never", "may", "must")


def test_attach_numbers_are_the_kernels() -> None:
    for name, number in programs.attach_numbers().items():
        assert programs.attach_number(name) == number
        assert ENUMS["bpf_attach_type"].get(name, number) == number
        assert programs.attach_name(number) == (name if number else "")
    assert programs.attach_number("") == 0
    with pytest.raises(KeyError):
        programs.attach_number("nowhere")


@pytest.mark.parametrize("name", RETURNS)
def test_return_range_is_what_the_kernel_said(name: str) -> None:
    row = RETURNS[name]
    told = programs.return_range(row["prog_type"], row["attach_type"])
    assert told == (tuple(row["range"]) if row["range"] else None)


def test_return_range_of_attach_type_zero() -> None:
    assert programs.return_range("cgroup_skb") == (0, 1)
    assert programs.return_range("cgroup_sock") == (0, 1)
    assert programs.return_range("sock_ops") == (0, 1)
    assert programs.return_range("kprobe", "trace_kprobe_session") == (0, 1)
    assert programs.return_range("tracing", "trace_fentry") == (0, 0)
    assert programs.return_range("tracing", "modify_return") is None
    assert programs.lsm_return_range("lsm_mac", "file_open") == (-4095, 0)
    assert programs.lsm_return_range("lsm_mac", "audit_rule_known") == (0, 1)
    assert programs.lsm_return_range("lsm_mac", "bpf_prog_free", void=True) is None
    assert programs.lsm_return_range("lsm_cgroup", "sk_alloc", void=True) == (1, 1)


SECTIONS = {
    "xdp": ("xdp", "xdp", ""),
    "xdp.frags/devmap": ("xdp", "xdp_devmap", ""),
    "kprobe": ("kprobe", "", ""),
    "kprobe/sys_execve": ("kprobe", "", "sys_execve"),
    "kprobe.multi/tcp_*": ("kprobe", "trace_kprobe_multi", "tcp_*"),
    "uprobe.s//bin/bash:readline": ("kprobe", "", "/bin/bash:readline"),
    "tracepoint/sched/sched_process_exec": ("tracepoint", "", "sched/sched_process_exec"),
    "tc": ("sched_cls", "", ""),
    "classifier": ("sched_cls", "", ""),
    "tcx/egress": ("sched_cls", "tcx_egress", ""),
    "cgroup/connect4": ("cgroup_sock_addr", "cgroup_inet4_connect", ""),
    "cgroup_skb/egress": ("cgroup_skb", "cgroup_inet_egress", ""),
    "fentry.s/do_unlinkat": ("tracing", "trace_fentry", "do_unlinkat"),
    "socket": ("socket_filter", "", ""),
    "sockops": ("sock_ops", "cgroup_sock_ops", ""),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_that_libbpf_knows(name: str) -> None:
    found = programs.libbpf_section(name)
    assert found is not None
    assert (found.prog_type, found.attach_type, found.target) == SECTIONS[name]
    assert programs.section(name) == found
    assert found.libbpf
    assert found.autoload


def test_every_pattern_matches_itself() -> None:
    for pattern, prog_type, attach_type, _ in table("sections"):
        found = programs.libbpf_section(pattern.rstrip("+"))
        assert found is not None
        assert (found.prog_type, found.attach_type) == (prog_type, attach_type)


@pytest.mark.parametrize(
    "name", ["cgroup-skb", "socket-filter", "xdp/handler_a", "tc/main", "socket1", "kprobes/x", ""]
)
def test_sections_that_libbpf_does_not_know(name: str) -> None:
    assert programs.libbpf_section(name) is None


BOOK = {
    "cgroup-skb": ("cgroup_skb", ""),
    "socket-filter": ("socket_filter", ""),
    "cgroup-sock": ("cgroup_sock", ""),
    "cgroup-sock-addr": ("cgroup_sock_addr", ""),
    "xdp/handler_a": ("xdp", "handler_a"),
    "tc/main": ("sched_cls", "main"),
}


@pytest.mark.parametrize("name", BOOK)
def test_sections_of_the_book(name: str) -> None:
    found = programs.section(name)
    assert found is not None
    assert (found.prog_type, found.target) == BOOK[name]
    assert not found.libbpf


def test_sections_of_nobody() -> None:
    assert programs.section("socket1") is None
    assert programs.section(".text") is None


def test_flags_and_question_mark() -> None:
    assert not programs.section("?xdp").autoload  # type: ignore[union-attr]
    assert programs.section("xdp.frags").flags == programs.F_XDP_HAS_FRAGS  # type: ignore[union-attr]
    assert programs.section("syscall").flags == programs.F_SLEEPABLE  # type: ignore[union-attr]
    assert programs.section("lsm.s/file_open").attach_btf  # type: ignore[union-attr]
    assert programs.section("xdp").attach_optional  # type: ignore[union-attr]


def test_a_name_that_libbpf_would_know() -> None:
    assert programs.libbpf_name("socket_filter") == "socket"
    assert programs.libbpf_name("cgroup_skb", "cgroup_inet_egress") == "cgroup_skb/egress"
    assert programs.libbpf_name("kprobe") == "kprobe"
    for kind in ALL:
        name = programs.libbpf_name(kind.name)
        assert name is None or programs.libbpf_section(name).prog_type == kind.name  # type: ignore[union-attr]


def test_names_of_actions() -> None:
    assert programs.action_name("xdp", 2) == "XDP_PASS"
    assert programs.action_name("sched_cls", 0xFFFFFFFF) == "TC_ACT_UNSPEC"
    assert programs.action_name("xdp", 99) == "99"
    assert programs.action_name("kprobe", 0) == "0"


def test_load_rules() -> None:
    assert programs.load_rules("syscall").sleepable == "must"
    assert programs.load_rules("kprobe").sleepable == "may"
    assert programs.load_rules("xdp").attach_types is None
    assert "" in programs.load_rules("cgroup_skb").attach_types  # type: ignore[operator]
    assert "" not in programs.load_rules("sk_lookup").attach_types  # type: ignore[operator]
    assert programs.load_rules("lsm").attach_target
