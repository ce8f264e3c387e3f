"""What a program attaches to, as far as that is checked before any path is explored.

Invariant: what the kernel's BTF alone decides is decided; what only the running kernel knows (addresses, which
functions may be overridden) is refused as unsupported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.btf import BtfKind
from bpflisp.spec.programs import F_SLEEPABLE, attach_number
from simulator.verifier.refusal import Refused, Unsupported

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program

GPL_LICENSES: Final = frozenset(
    {"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}
)
"""The licences that let a program call what is for the GPL alone."""

_ENOTSUPP = 524

_SLEEPABLE_TRACING: Final = frozenset({"trace_fentry", "trace_fexit", "modify_return", "trace_iter"})

# What the kernel says where a program may not sleep: from which release on, newest first.
_NOT_SLEEPABLE: Final = (
    ("6.2", "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable"),
    ("6.0", "Only fentry/fexit/fmod_ret, lsm, and kprobe/uprobe programs can be sleepable"),
    ("0.0", "Only fentry/fexit/fmod_ret and lsm programs can be sleepable"),
)

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
        raise Refused(next(words for since, words in _NOT_SLEEPABLE if profile.since(since)))
    if program.type == "struct_ops":
        _check_member(program, kernel_btf)
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
        return program.attach_type in _SLEEPABLE_TRACING or not profile.since("6.2")
    if program.type == "lsm":
        return program.attach_type != "lsm_cgroup" or not profile.since("6.2")
    if program.type == "kprobe":
        return profile.since("6.0")
    return program.type == "struct_ops" and profile.since("6.2")


def target_type(program: Program, kernel_btf: Btf) -> int | None:
    """The id of the attach target in the kernel's BTF: a function, or the typedef of a raw tracepoint."""
    kind, prefix = _TARGETS[program.attach_type]
    name = program.attach_target
    return kernel_btf.find(name if name.startswith(prefix) else prefix + name, kind)


def struct_ops_member(program: Program, kernel_btf: Btf) -> tuple[str, int] | None:
    """The function that a struct_ops program stands for: the member's name and the id of its FUNC_PROTO.

    The structure is the attach target, the member's index the attach type's number; None where there is no such thing.
    """
    struct = kernel_btf.find(program.attach_target, BtfKind.STRUCT)
    members = () if struct is None else kernel_btf.members(struct)
    index = _member_index(program)
    if index >= len(members):
        return None
    pointee = kernel_btf.pointee(kernel_btf.resolve(members[index].type))
    proto = 0 if pointee is None else kernel_btf.resolve(pointee)
    return (members[index].name, proto) if proto and kernel_btf.type(proto).kind is BtfKind.FUNC_PROTO else None


def _member_index(program: Program) -> int:
    """The member's number, which loaders put where other programs have an attach type."""
    return int(program.attach_type) if program.attach_type.isdigit() else attach_number(program.attach_type)


def _check_member(program: Program, kernel_btf: Btf | None) -> None:
    if program.license not in GPL_LICENSES:
        raise Refused("struct ops programs must have a GPL compatible license")
    target = program.attach_target
    if not target:
        raise Refused("", "attach-target", errno=_ENOTSUPP)
    if kernel_btf is None:
        raise Unsupported(f"the structure {target!r} without the kernel's BTF")
    struct = kernel_btf.find(target, BtfKind.STRUCT)
    if struct is None or kernel_btf.find(f"bpf_struct_ops_{target}", BtfKind.STRUCT) is None:
        raise Refused(f"attach_btf_id {struct or 0} is not a supported struct", errno=_ENOTSUPP)
    index = _member_index(program)
    members = kernel_btf.members(struct)
    if index >= len(members):
        raise Refused(f"attach to invalid member idx {index} of struct {target}")
    if struct_ops_member(program, kernel_btf) is None:
        raise Refused(f"attach to invalid member {members[index].name}(@idx {index}) of struct {target}")


def _check_exists(program: Program, kernel_btf: Btf) -> None:
    if target_type(program, kernel_btf) is None:
        raise Refused("Tracing programs must provide btf_id")
