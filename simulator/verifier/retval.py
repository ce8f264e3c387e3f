"""What a program may return: the range by program type and attach type, and the kernel's words where it is left.

Invariant: ranges are of the signed number in r0, of 64 bits unless the rule says 32; both ends belong to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass
from bpflisp.spec.btf import BtfKind
from simulator.verifier.attach import struct_ops_member, target_type
from simulator.verifier.loadattr import effective_attach_type
from simulator.verifier.refusal import Unsupported

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program

S64_MIN: Final = -(1 << 63)
S64_MAX: Final = (1 << 63) - 1
MAX_ERRNO: Final = 4095

AT_EXIT: Final = "At program exit"
AT_CALLBACK: Final = "At callback return"
AT_ASYNC_CALLBACK: Final = "At async callback return"

VOID_HOOK_NOTE: Final = "Note, BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!"
"""What the kernel adds where such a program returns something else than 1."""


@dataclass(frozen=True, slots=True)
class ReturnRange:
    """The least and greatest number that may come back; `width` is 32 where the low half alone is looked at."""

    low: int
    high: int
    width: int = 64

    def holds(self, smin: int, smax: int, s32_min: int, s32_max: int) -> bool:
        """Whether a number with these signed bounds, of 64 and of 32 bits, lies inside."""
        low, high = (s32_min, s32_max) if self.width == 32 else (smin, smax)
        return self.low <= low and high <= self.high


BOOLEAN: Final = ReturnRange(0, 1)
ZERO: Final = ReturnRange(0, 0)
ONE: Final = ReturnRange(1, 1)
TWO_BITS: Final = ReturnRange(0, 3)

ASYNC_CALLBACK: Final = ZERO
"""What timers, work queues and task work must return."""

_ALWAYS_ONE: Final = frozenset(
    f"cgroup_{name}"
    for name in (
        "udp4_recvmsg",
        "udp6_recvmsg",
        "unix_recvmsg",
        "inet4_getpeername",
        "inet6_getpeername",
        "unix_getpeername",
        "inet4_getsockname",
        "inet6_getsockname",
        "unix_getsockname",
    )
)

_BOOLEAN_TYPES: Final = frozenset(
    {"cgroup_sock", "sock_ops", "cgroup_device", "cgroup_sysctl", "cgroup_sockopt", "sk_lookup", "netfilter"}
)

# Hooks of security modules that answer yes or no; the others answer 0 or a negative error.
_BOOLEAN_HOOKS: Final = frozenset(
    {"bpf_lsm_xfrm_state_pol_flow_match", "bpf_lsm_audit_rule_known", "bpf_lsm_inode_xattr_skipcap"}
)


def return_range(program: Program, profile: Profile, kernel_btf: Btf | None = None) -> ReturnRange | None:
    """The range for the entry function and for exception callbacks; None where anything may be returned.

    Raises Unsupported where the hook's signature decides and no kernel BTF is there.
    """
    attach = effective_attach_type(program)
    kind = program.type
    if kind in _BOOLEAN_TYPES:
        return BOOLEAN
    if kind == "cgroup_skb":
        return TWO_BITS if attach == "cgroup_inet_egress" else BOOLEAN
    if kind == "cgroup_sock_addr":
        return _socket_address(attach, profile)
    if kind == "tracing":
        return _tracing(attach)
    if kind == "kprobe":
        return BOOLEAN if attach in ("trace_kprobe_session", "trace_uprobe_session") else None
    if kind == "lsm":
        return _security(program, profile, kernel_btf)
    return None


def _socket_address(attach: str, profile: Profile) -> ReturnRange:
    if attach in _ALWAYS_ONE:
        return ONE
    binds = attach in ("cgroup_inet4_bind", "cgroup_inet6_bind")
    return TWO_BITS if binds and profile.since("5.12") else BOOLEAN


def _tracing(attach: str) -> ReturnRange | None:
    if attach in ("trace_fentry", "trace_fexit"):
        return ZERO
    return None if attach in ("trace_raw_tp", "modify_return") else BOOLEAN


def _security(program: Program, profile: Profile, kernel_btf: Btf | None) -> ReturnRange | None:
    if kernel_btf is None:
        raise Unsupported(f"the return value of the hook {program.attach_target!r} without the kernel's BTF")
    void = returns_nothing(program, kernel_btf)
    if program.attach_type == "lsm_cgroup":
        return ONE if void else BOOLEAN
    if void or not profile.since("6.12"):
        return None
    hook = "bpf_lsm_" + program.attach_target.removeprefix("bpf_lsm_")
    return ReturnRange(0, 1, 32) if hook in _BOOLEAN_HOOKS else ReturnRange(-MAX_ERRNO, 0, 32)


def returns_nothing(program: Program, kernel_btf: Btf) -> bool:
    """Whether a program's hook or struct_ops member returns void: r0 need not be set then (but for cgroup hooks)."""
    if program.type == "struct_ops":
        member = struct_ops_member(program, kernel_btf)
        return member is not None and kernel_btf.type(member[1]).target == 0
    type_id = target_type(program, kernel_btf)
    if type_id is None or kernel_btf.type(type_id).kind is not BtfKind.FUNC:
        return False
    return kernel_btf.result(kernel_btf.func_proto(type_id)) == 0


def outside_text(where: str, register: str, smin: int, smax: int, wanted: ReturnRange) -> str:
    """The refusal of a number outside its range, as worded from 6.8 on; `register` is "R0", or "R1" of bpf_throw."""
    low = f" smin={smin}" if smin > S64_MIN else ""
    high = f" smax={smax}" if smax < S64_MAX else ""
    found = low + high or " unknown scalar value"
    return f"{where} the register {register} has{found} should have been in [{wanted.low}, {wanted.high}]"


def not_a_number_text(where: str, register: int, kind: str) -> str:
    """The refusal of a pointer where a number has to come back; `kind` as the kernel names the pointer's."""
    return f"{where} the register R{register} is not a known value ({kind})"
