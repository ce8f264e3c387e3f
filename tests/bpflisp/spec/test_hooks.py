"""Targets where a helper may be called."""

from __future__ import annotations

import pytest

from bpflisp.spec import helpers, hooks
from bpflisp.spec.programs import BOOL_LSM_HOOKS

CASES = [
    ("bpf_d_path", "tracing", "trace_iter", "task", True),
    ("bpf_d_path", "tracing", "trace_fentry", "filp_close", True),
    ("bpf_d_path", "tracing", "trace_fentry", "do_unlinkat", False),
    ("bpf_d_path", "tracing", "trace_raw_tp", "sched_switch", False),
    ("bpf_d_path", "lsm", "lsm_mac", "file_open", True),
    ("bpf_d_path", "lsm", "lsm_mac", "bpf_lsm_task_free", False),
    ("bpf_d_path", "syscall", "", "", False),
    ("bpf_ima_file_hash", "lsm", "lsm_mac", "bprm_creds_for_exec", True),
    ("bpf_sk_storage_get", "tracing", "trace_fexit", "bpf_sk_storage_free", False),
    ("bpf_sk_storage_get", "tracing", "trace_fexit", "tcp_close", True),
    ("bpf_sk_storage_get", "tracing", "modify_return", "tcp_close", False),
    ("bpf_sk_storage_get", "cgroup_skb", "", "", True),
    ("bpf_map_lookup_elem", "xdp", "", "", True),
]


@pytest.mark.parametrize(("helper", "prog_type", "attach_type", "target", "may"), CASES)
def test_allows(helper: str, prog_type: str, attach_type: str, target: str, may: bool) -> None:
    found = helpers.by_name(helper)
    assert found is not None
    proto = helpers.proto(found.id, prog_type, attach_type)
    assert hooks.allows(proto.allowed_hook, prog_type, attach_type, target) == may


def test_every_test_of_the_tables_is_known() -> None:
    for helper in helpers.all_helpers():
        for proto in helper.protos:
            assert hooks.allows(proto.allowed_hook, "tracing", "trace_fentry", "nowhere") in (True, False)
    with pytest.raises(KeyError):
        hooks.allows("bpf_new_test", "xdp", "", "")


def test_sets_of_hooks() -> None:
    assert len(hooks.SLEEPABLE_LSM_HOOKS) > 80
    assert "file_open" in hooks.SLEEPABLE_LSM_HOOKS
    assert "inode_getsecurity" in hooks.DISABLED_LSM_HOOKS
    assert "task_free" in hooks.UNTRUSTED_LSM_HOOKS
    assert not hooks.DISABLED_LSM_HOOKS & BOOL_LSM_HOOKS
