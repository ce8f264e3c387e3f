"""Helpers: every row is found by number and by name, prototypes are whole, and kernels differ as they do."""

from __future__ import annotations

import json

import pytest

from bpflisp.spec import helpers, kernels, programs
from bpflisp.spec.helpers import ArgType, RetType
from tools.facts import ANSWERS

ALL = list(helpers.all_helpers())
PROBED = json.loads((ANSWERS / "6.18.44" / "helpers.json").read_text())


def test_numbers_have_no_gap() -> None:
    assert [helper.id for helper in ALL] == list(range(1, 212))


@pytest.mark.parametrize("helper", ALL, ids=lambda helper: helper.name)
def test_found_by_number_and_name(helper: helpers.Helper) -> None:
    assert helpers.by_id(helper.id) is helper
    assert helpers.by_name(helper.name) is helper
    assert helpers.by_name(helper.short_name) is helper
    assert helpers.helper_name(helper.id) == f"{helper.name}#{helper.id}"


@pytest.mark.parametrize("helper", ALL, ids=lambda helper: helper.name)
def test_prototypes_are_whole(helper: helpers.Helper) -> None:
    assert helper.protos
    assert helper.c_ret
    assert all(arg.type and arg.name for arg in helper.c_args)
    for proto in helper.protos:
        assert len(proto.args) <= 5
        for before, arg in zip((None, *proto.args), proto.args, strict=False):
            if arg.is_size:
                assert before is not None
                assert before.type is ArgType.PTR_TO_MEM
            assert (arg.size > 0) == ("MEM_FIXED_SIZE" in arg.flags)


@pytest.mark.parametrize("helper", ALL, ids=lambda helper: helper.name)
def test_c_prototype_has_as_many_parameters_as_some_prototype(helper: helpers.Helper) -> None:
    """But bpf_get_branch_snapshot, whose flags the kernel's prototype leaves out, and those that take more at will."""
    counts = {len(proto.args) for proto in helper.protos}
    if not helper.variadic and helper.name != "bpf_get_branch_snapshot":
        assert len(helper.c_args) in counts, (helper.c_prototype, counts)


def test_what_is_not_there_is_none() -> None:
    assert helpers.by_id(0) is None
    assert helpers.by_id(100_000) is None
    assert helpers.by_name("bpf_no_such") is None
    with pytest.raises(KeyError):
        helpers.proto(100_000, "xdp")


def test_composite_types_are_taken_apart() -> None:
    load_bytes = helpers.proto(26, "sched_cls")
    assert load_bytes.args[2].type is ArgType.PTR_TO_MEM
    assert load_bytes.args[2].flags == {"MEM_UNINIT", "MEM_WRITE"}
    lookup = helpers.proto(1, "xdp")
    assert lookup.ret.type is RetType.PTR_TO_MAP_VALUE
    assert lookup.ret.maybe_null
    reserve = helpers.proto(131, "xdp").ret
    assert reserve.type is RetType.PTR_TO_MEM
    assert reserve.flags == {"PTR_MAYBE_NULL", "MEM_RINGBUF"}


def test_prototype_by_program_type() -> None:
    assert helpers.proto(26, "sk_reuseport").name == "sk_reuseport_load_bytes"
    assert helpers.proto(46, "sock_ops").args[0].type is ArgType.PTR_TO_CTX
    assert helpers.proto(46, "tracing").args[0].btf == "" or helpers.proto(46, "tracing").args[0].maybe_null
    assert helpers.proto(67, "kprobe", sleepable=True).might_sleep
    assert not helpers.proto(67, "kprobe").might_sleep
    assert helpers.proto(17, "sched_cls").args
    assert not helpers.proto(17, "socket_filter").args


def test_written_memory_is_marked() -> None:
    """The fix that 6.18.44 has and 6.12.117 lacks: it refuses a read-only map here."""
    for number, prog_type, at in (
        (165, "tracepoint", 0),
        (69, "xdp", 1),
        (69, "sched_cls", 1),
        (101, "cgroup_sysctl", 1),
    ):
        assert "MEM_WRITE" in helpers.proto(number, prog_type).args[at].flags


def test_prototypes_of_older_kernels() -> None:
    assert helpers.proto(181, "xdp").args[0].type is ArgType.SCALAR
    assert helpers.proto(181, "xdp", kernel="6.1").args[0].type is ArgType.ANYTHING
    assert helpers.proto(181, "xdp", kernel="6.12") == helpers.proto(181, "xdp")
    assert "MEM_WRITE" not in helpers.proto(69, "xdp", kernel="6.12").args[1].flags
    assert "MEM_WRITE" not in helpers.proto(69, "xdp", kernel="6.1").args[1].flags
    assert helpers.proto(69, "xdp", kernel="6.18") == helpers.proto(69, "xdp") == helpers.proto(69, "xdp", kernel="7.2")
    assert not helpers.proto(158, "tracing", kernel="6.1").ret.flags
    assert helpers.proto(158, "tracing").ret.flags == {"PTR_TRUSTED"}
    for helper in ALL:
        assert len(helpers.proto(helper.id, "xdp", kernel="5.10").args) == len(helpers.proto(helper.id, "xdp").args)


@pytest.mark.parametrize("name", PROBED["shapes"])
def test_allowed_is_what_the_kernel_answered(name: str) -> None:
    row = PROBED["shapes"][name]
    if "helpers" not in row:
        pytest.skip(f"6.18.44 could not be asked about {name}: {row['refused']}")
    about = (row["prog_type"], row["attach_type"], bool(row["flags"] & programs.F_SLEEPABLE))
    assert helpers.allowed("6.18", *about) == set(row["helpers"])
    assert helpers.gpl_only("6.18.44", *about) == set(row["gpl_only"])


@pytest.mark.parametrize("kernel", kernels.MEASURED)
def test_gpl_only_is_part_of_allowed(kernel: str) -> None:
    for kind in programs.all_program_types():
        assert helpers.gpl_only(kernel, kind.name) <= helpers.allowed(kernel, kind.name)
        assert all(number < helpers.first_unknown(kernel) for number in helpers.allowed(kernel, kind.name))


def test_attach_type_zero_is_the_one_that_the_kernel_reads() -> None:
    assert helpers.allowed("6.18", "cgroup_skb") == helpers.allowed("6.18", "cgroup_skb", "cgroup_inet_ingress")
    assert helpers.allowed("6.18", "cgroup_sock") == helpers.allowed("6.18", "cgroup_sock", "cgroup_inet_sock_create")


def test_attach_type_that_was_not_asked_follows_its_like() -> None:
    """Of sock_addr, older kernels were asked about five attach types; getpeername may not use what connect may."""
    asked = helpers.allowed("6.12", "cgroup_sock_addr", "cgroup_inet4_connect")
    assert helpers.allowed("6.12", "cgroup_sock_addr", "cgroup_inet6_connect") == asked


def test_a_kernel_between_two_measured_ones() -> None:
    """5.15 has what 5.10 had, and of what 6.1 has the helpers whose number it knows."""
    ids = {name: helpers.by_name(name).id for name in ("bpf_timer_init", "bpf_loop", "bpf_xdp_load_bytes")}  # type: ignore[union-attr]
    assert ids["bpf_timer_init"] in helpers.allowed("5.15", "xdp")
    assert ids["bpf_loop"] not in helpers.allowed("5.15", "xdp")
    assert ids["bpf_xdp_load_bytes"] not in helpers.allowed("5.15", "xdp")
    assert helpers.allowed("5.10", "xdp") <= helpers.allowed("5.15", "xdp") <= helpers.allowed("6.1", "xdp")
    assert helpers.first_unknown("5.15") == 176


def test_first_release_that_lets_a_type_call() -> None:
    assert helpers.min_kernel(1, "xdp") == helpers.by_id(1).min_kernel  # type: ignore[union-attr]
    assert helpers.min_kernel(16, "socket_filter") == "6.16", "asked of 6.12.117, which refused, and of 6.16.12"
    assert helpers.min_kernel(26, "xdp") == "", "no kernel lets XDP load bytes of an skb"
    assert helpers.min_kernel(148, "tracing", "trace_fentry", sleepable=True) == "5.10"


def test_refusals_as_each_kernel_words_them() -> None:
    assert helpers.refusal(212) == "invalid func unknown#212"
    assert helpers.refusal(-1) == "invalid func unknown#-1"
    assert helpers.refusal(0) == "program of this type cannot use helper bpf_unspec#0"
    assert helpers.refusal(13) == "program of this type cannot use helper bpf_clone_redirect#13"
    assert helpers.refusal(13, "6.1") == "unknown func bpf_clone_redirect#13"
    assert helpers.refusal(181, "5.10") == "invalid func unknown#181"
