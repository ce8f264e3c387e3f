"""What BPF_PROG_LOAD looks at before the verifier: sizes, flags, whether the attach type fits the program type.

Invariant: a refusal here has an errno and no message, as the kernel's.
"""

from __future__ import annotations

from typing import Final

from bpflisp.spec import programs
from bpflisp.spec.kernels import Profile
from simulator.program import Program
from simulator.verifier.refusal import Refused

CODE: Final = "load-attributes"

_E2BIG, _EINVAL = 7, 22

# The kernel's own value where a program of the type names no attach type.
_DEFAULT_ATTACH: Final = {
    "cgroup_sock": "cgroup_inet_sock_create",
    "sk_reuseport": "sk_reuseport_select",
}

# Program types whose attach type must be one of theirs; of others any value is taken.
_CHECKED: Final = frozenset(
    {"cgroup_sock", "cgroup_sock_addr", "cgroup_skb", "cgroup_sockopt", "sk_lookup", "sk_reuseport", "netfilter"}
)

# Program types that must not name one.
_WITHOUT: Final = frozenset({"syscall", "ext"})

_KNOWN_FLAGS: Final = 0xFF


def effective_attach_type(program: Program) -> str:
    """The attach type after the kernel filled in what the loader left out."""
    return program.attach_type or _DEFAULT_ATTACH.get(program.type, "")


def check_attributes(program: Program, profile: Profile) -> None:
    """Raises Refused with no message where the load is refused before the verifier runs."""
    if program.flags & ~_KNOWN_FLAGS:
        raise _refused(_EINVAL)
    count = len(program.insns) // 8
    if not 0 < count <= profile.limits.processed:
        raise _refused(_E2BIG)
    kind = programs.by_name(program.type)
    if kind is None or not profile.since(kind.min_kernel):
        raise _refused(_EINVAL)
    attach = effective_attach_type(program)
    if program.type in _CHECKED:
        # Number 0 is the ingress of cgroups, and of no other type here.
        if (attach or "cgroup_inet_ingress") not in kind.attach_types:
            raise _refused(_EINVAL)
    elif program.type in _WITHOUT and attach:
        raise _refused(_EINVAL)
    if program.attach_target and program.type not in ("tracing", "lsm", "struct_ops", "ext"):
        raise _refused(_EINVAL)


def _refused(errno: int) -> Refused:
    return Refused("", CODE, errno=errno)
