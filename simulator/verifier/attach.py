"""What a program attaches to, as far as that is checked before any path is explored.

Invariant: what the kernel's BTF alone decides is decided; what only the running kernel knows (addresses, which
functions may be overridden) is refused as unsupported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.btf import BtfKind
from bpflisp.spec.programs import F_SLEEPABLE
from simulator.verifier.refusal import Refused, Unsupported

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program

_SLEEPABLE_TRACING: Final = frozenset({"trace_fentry", "trace_fexit", "modify_return", "trace_iter"})
_NOT_SLEEPABLE: Final = "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable"

# Attach type -> (kind of the target's BTF type, what the kernel puts before the target's name).
_TARGETS: Final = {
    "trace_raw_tp": (BtfKind.TYPEDEF, "btf_trace_"),
    "trace_iter": (BtfKind.FUNC, "bpf_iter_"),
    "lsm_mac": (BtfKind.FUNC, "bpf_lsm_"),
    "lsm_cgroup": (BtfKind.FUNC, "bpf_lsm_"),
    "trace_fentry": (BtfKind.FUNC, ""),
    "trace_fexit": (BtfKind.FUNC, ""),
    "modify_return": (BtfKind.FUNC, ""),
}


def check_attach_target(program: Program, profile: Profile, kernel_btf: Btf | None) -> None:
    """Raises Refused where the program may not sleep, or has no target that it needs."""
    sleepable = bool(program.flags & F_SLEEPABLE)
    if program.type == "syscall":
        if not sleepable:
            raise Refused("Syscall programs can only be sleepable")
        return
    if sleepable and not can_sleep(program, profile):
        raise Refused(_NOT_SLEEPABLE)
    if program.type not in ("tracing", "lsm", "ext"):
        return
    if not program.attach_target:
        raise Refused("Tracing programs must provide btf_id")
    if program.type == "ext":
        raise Refused("Cannot replace kernel functions")
    if program.attach_type not in _TARGETS:
        raise Refused("", "attach-target")
    if kernel_btf is None:
        raise Unsupported(f"the attach target {program.attach_target!r} without the kernel's BTF")
    _check_exists(program, kernel_btf)


def can_sleep(program: Program, profile: Profile) -> bool:
    """Whether programs of this type and attach type may be sleepable at all."""
    if program.type == "tracing":
        return program.attach_type in _SLEEPABLE_TRACING
    if program.type == "lsm":
        return program.attach_type != "lsm_cgroup"
    if program.type == "kprobe":
        return profile.since("6.0")
    return program.type == "struct_ops"


def target_type(program: Program, kernel_btf: Btf) -> int | None:
    """The id of the attach target in the kernel's BTF: a function, or the typedef of a raw tracepoint."""
    kind, prefix = _TARGETS[program.attach_type]
    name = program.attach_target
    return kernel_btf.find(name if name.startswith(prefix) else prefix + name, kind)


def _check_exists(program: Program, kernel_btf: Btf) -> None:
    if target_type(program, kernel_btf) is None:
        raise Refused("Tracing programs must provide btf_id")
