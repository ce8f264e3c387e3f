"""What instructions do to memory: which places a load reads and a store writes, what a call may touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, Space, overlap, place_of, root, slots_passed, space
from bpflisp.ir.ssa import Call, CallKind, Instr, Slot
from bpflisp.lean import dataclass
from bpflisp.spec import helpers
from bpflisp.spec.helpers import ArgType


@dataclass(frozen=True, slots=True)
class Written:
    """Memory that a helper writes: what argument `arg` points to.

    `size_arg` is the argument that says how many bytes, `size` their number where it is fixed; None and 0 where neither
    is known. `whole` says that all of them are written, whatever happens, and none is read.
    """

    arg: int
    size_arg: int | None = None
    size: int = 0
    whole: bool = False


@dataclass(frozen=True, slots=True)
class CallEffect:
    """What a call may do.

    `spaces` are those whose contents change, `context` says whether its fields and the packet do, `written` what it
    writes through arguments; `taken`, that it may change what any address among its arguments leads to.
    """

    spaces: frozenset[Space] = frozenset()
    context: bool = False
    written: tuple[Written, ...] = ()
    taken: bool = False


_EVERYTHING = CallEffect(frozenset(Space), context=True, taken=True)

_PLAIN = frozenset(
    {
        ArgType.ANYTHING,
        ArgType.SCALAR,
        ArgType.CONST_MAP_PTR,
        ArgType.CONST_SIZE,
        ArgType.CONST_SIZE_OR_ZERO,
        ArgType.CONST_ALLOC_SIZE_OR_ZERO,
        ArgType.PTR_TO_CONST_STR,
        ArgType.PTR_TO_RINGBUF_MEM,
    }
)
"""Arguments through which nothing changes that may be loaded afterwards; a submitted record may not be."""

_LOOKUPS = frozenset({"bpf_map_lookup_elem", "bpf_map_lookup_percpu_elem"})

_ONLY_READS_CONTEXT = frozenset(
    {
        "bpf_check_mtu", "bpf_fib_lookup", "bpf_get_attach_cookie", "bpf_get_cgroup_classid", "bpf_get_func_arg",
        "bpf_get_func_arg_cnt", "bpf_get_func_ip", "bpf_get_func_ret", "bpf_get_netns_cookie", "bpf_get_route_realm",
        "bpf_get_socket_cookie", "bpf_get_socket_uid", "bpf_get_stack", "bpf_get_stackid", "bpf_perf_event_output",
        "bpf_skb_ancestor_cgroup_id", "bpf_skb_cgroup_classid", "bpf_skb_cgroup_id", "bpf_skb_get_tunnel_key",
        "bpf_skb_load_bytes", "bpf_skb_load_bytes_relative", "bpf_skb_under_cgroup", "bpf_sysctl_get_current_value",
        "bpf_sysctl_get_name", "bpf_sysctl_get_new_value", "bpf_xdp_get_buff_len", "bpf_xdp_load_bytes",
    }
)  # fmt: skip
"""Helpers that take the context and leave it, and the packet, as they are. All others that take it may change both."""

_STABLE = frozenset(
    {
        "bpf_get_current_pid_tgid", "bpf_get_current_uid_gid", "bpf_get_current_task", "bpf_get_smp_processor_id",
        "bpf_get_numa_node_id",
    }
)  # fmt: skip
"""Helpers that say the same whenever a program asks in one run: it neither moves to another CPU nor to another task."""

_FILLS = frozenset(
    {
        "bpf_get_current_comm", "bpf_probe_read", "bpf_probe_read_kernel", "bpf_probe_read_user", "bpf_skb_load_bytes",
        "bpf_skb_load_bytes_relative",
    }
)  # fmt: skip
"""Helpers that write all of the memory that they are given: zeros where they fail. A read string is as long as it is,
and others leave the memory alone when they fail."""


@cache
def _helper_effect(number: int) -> CallEffect:
    """By the prototypes; where these differ, or an argument is of a kind not thought of here, it may do everything."""
    helper = helpers.by_id(number)
    if helper is None or len({tuple((arg.type, arg.flags) for arg in proto.args) for proto in helper.protos}) != 1:
        return _EVERYTHING
    spaces: set[Space] = set()
    written: list[Written] = []
    args = helper.protos[0].args
    for index, arg in enumerate(args):
        if "MEM_WRITE" in arg.flags:
            sized = index + 1 < len(args) and args[index + 1].is_size
            written.append(Written(index, index + 1 if sized else None, arg.size, helper.name in _FILLS))
        elif arg.type in (ArgType.PTR_TO_MAP_KEY, ArgType.PTR_TO_MAP_VALUE):
            # What is updated or deleted may be a value that a pointer leads to.
            spaces |= set() if helper.name in _LOOKUPS else {Space.OBJECT, Space.UNKNOWN}
        elif arg.type is ArgType.PTR_TO_CTX:
            if helper.name not in _ONLY_READS_CONTEXT:
                return _EVERYTHING
        elif arg.type not in _PLAIN and not (arg.type is ArgType.PTR_TO_MEM and "MEM_RDONLY" in arg.flags):
            return _EVERYTHING
    return CallEffect(frozenset(spaces), written=tuple(written))


def effect_of(call: Call) -> CallEffect:
    """What this call may do."""
    return _helper_effect(call.number) if call.kind is CallKind.HELPER else _EVERYTHING


def is_stable_call(call: Call) -> bool:
    """Whether every such call gives the same in one run of a program, so that one does for all, and none for none.

    No other call is taken out: a look-up marks the entry of an LRU map, and a clock or a random number moves on.
    """
    helper = helpers.by_id(call.number) if call.kind is CallKind.HELPER else None
    return helper is not None and helper.name in _STABLE


def places_written(call: Call) -> Iterator[tuple[Place, bool]]:
    """The memory behind a call's arguments that it writes, and whether it writes all of it and reads none."""
    for each in effect_of(call).written:
        if each.arg < len(call.args):
            base, distance = root(call.args[each.arg])
            size = _size(call, each)
            known = distance is not None and size is not None
            yield Place(base, distance if known else None, size or 0), each.whole and known


def _size(call: Call, written: Written) -> int | None:
    """How many bytes, if the call says it by a number."""
    if written.size_arg is not None and written.size_arg < len(call.args):
        size = call.args[written.size_arg]
        return size.number if isinstance(size, ssa.Const) else None
    return written.size or None


def killing(instr: Instr, escaped: frozenset[Slot]) -> Callable[[Place], bool] | None:
    """The places whose bytes the instruction may change; None where it changes no memory."""
    if isinstance(instr, ssa.Store | ssa.Zero | ssa.Atomic):
        written = place_of(instr)
        return None if written is None else partial(overlap, written, escaped=escaped)
    if isinstance(instr, ssa.Asm):
        return lambda place: True
    return _call_killing(instr, escaped) if isinstance(instr, Call) else None


def _call_killing(call: Call, escaped: frozenset[Slot]) -> Callable[[Place], bool]:
    effect = effect_of(call)
    writes = [written for written, _ in places_written(call)]
    passed = frozenset(slots_passed(call))

    def killed(place: Place) -> bool:
        if any(overlap(written, place, escaped) for written in writes):
            return True
        if isinstance(place.base, Slot):
            return effect.taken and (place.base in escaped or place.base in passed)
        return space(place.base) in effect.spaces

    return killed


def kills_context(instr: Instr) -> bool:
    """Whether the instruction may change a field of the context, or make a loaded pointer invalid."""
    if isinstance(instr, ssa.ContextStore | ssa.Asm):
        return True
    return isinstance(instr, Call) and effect_of(instr).context
