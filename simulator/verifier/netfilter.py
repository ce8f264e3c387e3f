"""Writes through typed pointers by programs on packets: of all the kernel's structures, they may change one field.

Source: tc_cls_act_btf_struct_access of net/core/filter.c and _nf_conntrack_btf_struct_access of
net/netfilter/nf_conntrack_bpf.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.btf import Btf, BtfKind

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

WRITERS: Final = frozenset({"sched_cls", "sched_act", "xdp"})
_CONNECTIONS: Final = ("nf_conn", "nf_conn___init")
_FIELD: Final = "mark"


def check_write(m: Machine, btf: Btf, type_id: int, off: int, size: int) -> None:
    """That a store changes the mark of a tracked connection, and nothing else."""
    known = [btf.find(name, BtfKind.STRUCT) for name in _CONNECTIONS]
    if None in known:
        m.fail_silently()  # a kernel without connection tracking says no more than EACCES
    if type_id not in known:
        m.fail("only read is supported")
    connection = known[0]
    assert connection is not None  # both were found
    field = next((member for member in btf.members(connection) if member.name == _FIELD), None)
    if field is None or field.bit_offset // 8 != off:
        m.fail(f"no write support to nf_conn at off {off}")
    end = off + btf.size_of(field.type)
    if off + size > end:
        m.fail(f"write access at off {off} with size {size} beyond the member of nf_conn ended at {end}")
