"""Map types: found both ways, tied to their helpers, and creation refused exactly where the kernel refused it."""

from __future__ import annotations

import json

import pytest

from bpflisp.spec import helpers, maps
from bpflisp.spec.map_create import RULES, check_create
from tools.facts import ANSWERS

ALL = list(maps.all_map_types())
PROBED = json.loads((ANSWERS / "6.18.44" / "maps.json").read_text())


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_found_by_number_and_name(kind: maps.MapType) -> None:
    assert maps.by_name(kind.name) is kind
    assert maps.by_number(kind.number) is kind
    assert all(helpers.by_name(name) for name in kind.helpers or ())


def test_deprecated_names_are_the_same_type() -> None:
    assert maps.by_name("cgroup_storage_deprecated") is maps.by_name("cgroup_storage") is maps.by_number(19)
    assert maps.by_name("no_such") is None
    assert maps.by_number(0) is None


def test_compatible_looks_from_both_sides() -> None:
    assert maps.compatible("bpf_map_lookup_elem", "hash")
    assert not maps.compatible("bpf_map_lookup_elem", "ringbuf")
    assert not maps.compatible("bpf_ringbuf_output", "hash")
    assert maps.compatible("bpf_tail_call", "prog_array")
    assert not maps.compatible("bpf_tail_call", "array")
    for name, kinds in maps.helper_map_types().items():
        assert helpers.by_name(name)
        assert any(maps.compatible(name, kind) for kind in kinds), name


def test_socket_maps_are_changed_where_no_socket_is_locked() -> None:
    for kind in ("sockmap", "sockhash"):
        assert maps.compatible("bpf_map_delete_elem", kind)
        assert not maps.compatible("bpf_map_push_elem", kind)
    assert maps.may_change_sockets("bpf_map_update_elem", "xdp")
    assert maps.may_change_sockets("bpf_map_delete_elem", "sock_ops")
    assert not maps.may_change_sockets("bpf_map_update_elem", "sock_ops")
    assert maps.may_change_sockets("bpf_map_update_elem", "tracing", "trace_iter")
    assert not maps.may_change_sockets("bpf_map_delete_elem", "kprobe")


@pytest.mark.parametrize("name", sorted(PROBED))
def test_creation_is_refused_where_the_kernel_refused(name: str) -> None:
    row = PROBED[name]
    if "form" not in row:
        pytest.skip("no form of it is made of sizes alone")
    form = dict(zip(("key_size", "value_size", "max_entries", "flags"), row["form"], strict=True))
    kind = name.removesuffix("_deprecated")
    for what, field in (("keys", "key_size"), ("values", "value_size"), ("entries", "max_entries"), ("flags", "flags")):
        if (name, what) == ("cpumap", "entries"):
            continue  # as many as the kernel was built for CPUs
        for number, told in row[what].items():
            asked = int(number) | (form["flags"] if what == "flags" else 0)
            problem = check_create(kind, **(form | {field: asked}))
            assert (problem.errno if problem else 0) == told, (what, number, problem)


def test_every_map_type_of_6_18_has_a_rule_but_two() -> None:
    assert {kind.name for kind in ALL} - set(RULES) == {"struct_ops", "insn_array", "rhash"}


def test_reasons_name_what_is_wrong() -> None:
    problem = check_create("ringbuf", 0, 0, 6000)
    assert problem is not None
    assert "power of two" in problem.reason
    assert check_create("array_of_maps", 4, 4, 1, has_inner=True) is None
    assert check_create("task_storage", 4, 8, 0, maps.F_NO_PREALLOC, has_btf=True) is None
    assert check_create("task_storage", 4, 8, 0, maps.F_NO_PREALLOC) is not None
