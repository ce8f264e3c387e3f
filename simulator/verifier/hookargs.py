"""Contexts that the kernel's BTF types: the arguments of the function that a program is attached to, eight bytes each.

Invariant: what a load gives is decided by the function's prototype and the kernel's lists alone.
Source: btf_ctx_access of kernel/bpf/btf.c, bpf_tracing_btf_ctx_access, the iterators' ctx_arg_info, and the
`is_valid_access` of net/ipv4/bpf_tcp_ca.c and net/bpf/bpf_dummy_struct_ops.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass
from bpflisp.spec.btf import Btf, BtfKind, BtfParam, BtfType
from simulator.verifier import attach, structs
from simulator.verifier import regs as r
from simulator.verifier.nullable_tracepoints import argument_flags
from simulator.verifier.regs import ZERO, Reg

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_SLOT: Final = 8
_CONTEXT_SIZE: Final = 12 * _SLOT
"""A trampoline passes at most twelve arguments."""

_NUMBERS: Final = frozenset({BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64, BtfKind.STRUCT})
_TAGS: Final = {"user": r.MEM_USER, "percpu": r.MEM_PERCPU}
_MAY_END: Final = r.PTR_BTF_ID | r.MAYBE_NULL
_KEY: Final = r.PTR_BUF | r.MAYBE_NULL | r.MEM_RDONLY
_VALUE: Final = r.PTR_BUF | r.MAYBE_NULL

_ITERATED: Final[dict[str, dict[int, int]]] = {
    "bpf_link": {1: _MAY_END},
    "bpf_map": {1: _MAY_END | r.TRUSTED},
    "bpf_map_elem": {2: _KEY, 3: _VALUE},
    "bpf_prog": {1: _MAY_END},
    "bpf_sk_storage_map": {2: _MAY_END, 3: _VALUE},
    "cgroup": {1: _MAY_END | r.TRUSTED},
    "dmabuf": {1: _MAY_END},
    "ipv6_route": {1: _MAY_END},
    "kmem_cache": {1: _MAY_END | r.TRUSTED},
    "ksym": {1: _MAY_END},
    "netlink": {1: _MAY_END},
    "sockmap": {2: _KEY, 3: _MAY_END},
    "task": {1: _MAY_END | r.TRUSTED},
    "task_file": {1: _MAY_END, 3: _MAY_END},
    "task_vma": {1: _MAY_END, 2: _MAY_END},
    "tcp": {1: _MAY_END | r.TRUSTED},
    "udp": {1: _MAY_END | r.TRUSTED},
    "unix": {1: _MAY_END},
}
"""Iterator -> argument -> what it is: the object that is looked at, null after the last one. Asked of 6.18.44."""

_UNMARKED: Final = frozenset({"signal_generate", "signal_deliver"})
"""Tracepoints with an error in a pointer's place that kernel 6.18.44, when asked, did not mark."""

_UNTRUSTED_HOOKS: Final = frozenset(
    {
        "bpf_map_free", "bpf_prog_free", "file_alloc_security", "file_free_security", "sk_alloc_security",
        "sk_free_security", "task_free", "bdev_alloc_security", "bdev_free_security",
    }
)  # fmt: skip
"""Hooks of security modules that see objects before they are whole, or when they are gone."""

_STRUCT_OPS: Final = frozenset({"tcp_congestion_ops", "bpf_dummy_ops"})


@dataclass(frozen=True, slots=True)
class Hook:
    """The function that a program is attached to. `offsets` counts from the first parameter of `counted`."""

    name: str
    params: tuple[BtfParam, ...]
    counted: tuple[BtfParam, ...]
    result: int


def hook_of(m: Machine, btf: Btf) -> Hook:
    """The prototype that types the context."""
    program = m.program
    if program.type == "struct_ops":
        if program.attach_target not in _STRUCT_OPS:
            m.unsupported(f"the context of struct_ops programs for {program.attach_target}")
        member = attach.struct_ops_member(program, btf)
        assert member is not None  # the attach target was checked before
        name, proto = member
        return Hook(name, btf.params(proto), btf.params(proto), btf.result(proto))
    target = attach.target_type(program, btf)
    assert target is not None  # likewise
    name = btf.type(target).name
    if m.attach_type != "trace_raw_tp":
        proto = btf.func_proto(target)
        return Hook(name, btf.params(proto), btf.params(proto), btf.result(proto))
    name = name.removeprefix("btf_trace_")
    template = btf.find(f"__bpf_trace_{name}", BtfKind.FUNC)
    proto = btf.type(btf.resolve(target)).target if template is None else btf.func_proto(template)
    params = btf.params(btf.resolve(proto))
    return Hook(name, params[1:], params, btf.result(btf.resolve(proto)))


def access(m: Machine, btf: Btf, hook: Hook, off: int, size: int, writes: bool) -> Reg | None:
    """What a load from the context gives, None for a number. Refuses what is no argument."""
    plain = m.program_type != "lsm"
    if writes and not plain:
        m.unsupported("a store into the context of a security hook")
    if off < 0 or (plain and (off >= _CONTEXT_SIZE or writes or off % size)):
        _refuse(m, off, size)
    if off % _SLOT:
        _refuse(m, off, size, f"func '{hook.name}' offset {off} is not multiple of 8")
    number = _argument_at(btf, hook, off)
    type_id = _type_of(m, btf, hook, number, off, size)
    resolved, head = structs.resolve(btf, type_id)
    if head is not None and head.kind in _NUMBERS:
        return None
    if head is not None and head.kind is BtfKind.UNION:
        m.unsupported("a union as an argument of the function that a program is attached to")
    if head is None or head.kind is not BtfKind.PTR:
        kind, name = ("UNKNOWN", "(anon)") if head is None else (head.kind.name, head.name)
        _refuse(
            m, off, size, f"func '{hook.name}' arg{number} '{name}' has type {kind}. Only pointer access is allowed"
        )
    if size != _SLOT:
        _refuse(m, off, size, f"func '{hook.name}' size {size} must be 8")
    return _pointer(m, btf, hook, number, resolved, off)


def _refuse(m: Machine, off: int, size: int, why: str = "") -> None:
    if why:
        m.log_line(why)
    m.fail_at_line(f"invalid bpf_context access off={off} size={size}")


def _slots_of(btf: Btf, type_id: int) -> int:
    """Bytes that a value takes in the context."""
    resolved, head = structs.resolve(btf, type_id)
    if head is None:
        return 0
    size = _SLOT if head.kind is BtfKind.PTR else btf.size_of(resolved)
    return -(-size // _SLOT) * _SLOT


def _argument_at(btf: Btf, hook: Hook, off: int) -> int:
    """Which argument lies at an offset; the result comes after the last one."""
    end = 0
    for number, param in enumerate(hook.counted):
        end += _slots_of(btf, param.type)
        if off < end:
            return number
    return len(hook.counted) + (0 if off < end + _slots_of(btf, hook.result) else 1)


def _type_of(m: Machine, btf: Btf, hook: Hook, number: int, off: int, size: int) -> int:
    """The type of an argument, or of the result where programs of this kind see it."""
    if number < len(hook.params):
        return hook.params[number].type
    if number == len(hook.params):
        if m.attach_type in ("lsm_cgroup", "trace_fexit"):
            return hook.result
        if m.attach_type == "modify_return":
            head = structs.resolve(btf, hook.result)[1]
            if head is not None and head.kind is BtfKind.INT:
                return hook.result
            shown = "UNKNOWN" if head is None else head.kind.name
            _refuse(m, off, size, f"ret type {shown} not allowed for fmod_ret")
        if m.attach_type == "lsm_mac":
            m.unsupported("the return value in the context of a security hook")
    _refuse(m, off, size, f"func '{hook.name}' doesn't have {number + 1}-th argument")
    raise AssertionError  # `_refuse` does not return


def _pointer(m: Machine, btf: Btf, hook: Hook, number: int, pointer: int, off: int) -> Reg | None:
    known = _known(m, btf, hook, number)
    if known and known & r.BASE_MASK == r.PTR_BUF:
        return Reg(known, 0, ZERO, m.new_id())
    target, pointee, tags = _pointee(btf, pointer)
    if pointee is None or pointee.kind is BtfKind.INT:
        return None
    composite = pointee.kind in (BtfKind.STRUCT, BtfKind.UNION)
    if not composite and m.layout.profile.since("7.2"):
        return None
    if known and composite:
        return Reg(known, 0, ZERO, m.new_id() if known & r.MAYBE_NULL else 0, data=(btf, target))
    if not composite:
        _refuse(m, off, _SLOT, f"func '{hook.name}' arg{number} type {pointee.kind.name} is not a struct")
    shown = f"func '{hook.name}' arg{number} has btf_id {target} type {pointee.kind.name} '{pointee.name}'"
    m.log_line(shown)
    flags = tags | (r.TRUSTED if _trusts(m) else 0)
    if number < len(hook.params) and hook.params[number].name.endswith("__nullable"):
        flags |= r.MAYBE_NULL
    if m.attach_type == "trace_raw_tp" and m.ways.tracepoints_may_be_null:
        may_be_null, may_be_error = argument_flags(hook.name, number)
        flags |= r.MAYBE_NULL if may_be_null else 0
        if may_be_error and not (hook.name in _UNMARKED and m.layout.profile.version[:2] == (6, 18)):
            if m.log.level:
                m.log.write(f"marking pointer arg{number} as scalar as it may encode error")
            return None
    return Reg(r.PTR_BTF_ID | flags, 0, ZERO, m.new_id() if flags & r.MAYBE_NULL else 0, data=(btf, target))


def _pointee(btf: Btf, pointer: int) -> tuple[int, BtfType | None, int]:
    """What a pointer points to, and what its tags say of it."""
    flags = 0
    at = btf.type(pointer).target
    while at and btf.type(at).kind is BtfKind.TYPE_TAG:
        flags |= _TAGS.get(btf.type(at).name, 0)
        at = btf.type(at).target
    resolved, head = structs.resolve(btf, at)
    return resolved, head, flags


def _trusts(m: Machine) -> bool:
    if m.program_type == "tracing":
        return m.attach_type in ("trace_raw_tp", "trace_iter")
    if m.program_type == "lsm":
        return m.program.attach_target.removeprefix("bpf_lsm_") not in _UNTRUSTED_HOOKS
    return True


def _known(m: Machine, btf: Btf, hook: Hook, number: int) -> int:
    """What the kernel says of an argument besides its prototype; 0 for nothing."""
    if m.attach_type == "trace_iter":
        return _ITERATED.get(hook.name.removeprefix("bpf_iter_"), {}).get(number, 0)
    if m.program_type == "struct_ops":
        # The kernel's own functions of the structure carry the suffixes; only these have any.
        stub = btf.find(f"{m.program.attach_target}__{hook.name}", BtfKind.FUNC)
        params = btf.params(btf.func_proto(stub)) if stub is not None else ()
        if number < len(params) and params[number].name.endswith("__nullable"):
            return r.PTR_BTF_ID | r.TRUSTED | r.MAYBE_NULL
    return 0


def as_struct_ops_sees_it(m: Machine, btf: Btf, reg: Reg) -> Reg:
    """Congestion control is given a struct sock that is a struct tcp_sock."""
    if m.program.attach_target != "tcp_congestion_ops" or reg.type & r.BASE_MASK != r.PTR_BTF_ID:
        return reg
    sock, tcp = (btf.find(name, BtfKind.STRUCT) for name in ("sock", "tcp_sock"))
    return reg.but(data=(btf, tcp)) if tcp is not None and reg.data[1] == sock else reg


_CONGESTION_FIELDS: Final = (
    "sk_pacing_rate", "sk_pacing_status", "icsk_ca_priv", "icsk_ack.pending", "snd_cwnd", "snd_cwnd_cnt",
    "snd_cwnd_stamp", "snd_ssthresh", "ecn_flags", "app_limited",
)  # fmt: skip
_HOLDERS: Final = {"sk": "sock", "ic": "inet_connection_sock"}


def check_store(m: Machine, btf: Btf, type_id: int, off: int, size: int) -> None:
    """A store through a typed pointer in a struct_ops program: few fields of one structure may be written."""
    name = btf.type(type_id).name
    if m.program.attach_target == "bpf_dummy_ops":
        if name != "bpf_dummy_ops_state":
            m.fail("only access to bpf_dummy_ops_state is supported")
        if off + size > btf.size_of(type_id):
            m.fail(f"write access at off {off} with size {size}")
        return
    if m.program.attach_target != "tcp_congestion_ops":
        m.unsupported(f"a write to struct {name}")
    if name != "tcp_sock":
        m.fail("only read is supported")
    end = _congestion_end(btf, off)
    if end is None:
        m.fail(f"no write support to tcp_sock at off {off}")
    if off + size > end:
        m.fail(f"write access at off {off} with size {size} beyond the member of tcp_sock ended at {end}")


def _congestion_end(btf: Btf, off: int) -> int | None:
    """Where the writable field ends that an offset into struct tcp_sock names; None for no such field."""
    for path in _CONGESTION_FIELDS:
        holder = _HOLDERS.get(path[:2], "tcp_sock")
        place = _field(btf, holder, path.split("."))
        if place is None:
            continue
        start, size = place
        if off == start or (path == "icsk_ca_priv" and start <= off < start + size):
            return start + size
    return None


def _field(btf: Btf, holder: str, path: list[str]) -> tuple[int, int] | None:
    """Offset and size of a field of a structure, through its unnamed parts."""
    at = btf.find(holder, BtfKind.STRUCT)
    start = 0
    for step, name in enumerate(path):
        found = None if at is None else _member(btf, at, name)
        if found is None:
            return None
        offset, type_id = found
        start += offset
        if step + 1 == len(path):
            return start, btf.size_of(type_id)
        at = btf.resolve(type_id)
    return None


def _member(btf: Btf, holder: int, name: str) -> tuple[int, int] | None:
    for member in btf.members(holder):
        if member.name == name:
            return member.bit_offset // 8, member.type
        if not member.name:
            inner = _member(btf, btf.resolve(member.type), name)
            if inner is not None:
                return member.bit_offset // 8 + inner[0], inner[1]
    return None
