"""Injected failures: which calls of a helper fail, with what error, and what such a call leaves behind.

    world.helpers.bpf_map_update_elem.fails(ENOMEM, on=3)          the third call from now on
    world.helpers.bpf_map_update_elem.fails(map="flows")           every call on that map, with the usual error
    world.helpers.bpf_probe_read_kernel.fails(after=2)             all but the first two
    world.helpers.bpf_ringbuf_reserve.fails()                      a null pointer, as where there is no room

A helper that fails has filled with zeros what it was to write, as the verifier takes for granted; one that returns a
pointer fails with null.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bpflisp.spec.helpers import Proto
    from simulator.mocks import Call

USUAL: Final = {
    "bpf_map_update_elem": errno.ENOMEM,
    "bpf_map_delete_elem": errno.ENOENT,
    "bpf_map_push_elem": errno.E2BIG,
    "bpf_map_pop_elem": errno.ENOENT,
    "bpf_map_peek_elem": errno.ENOENT,
    "bpf_ringbuf_output": errno.EAGAIN,
    "bpf_perf_event_output": errno.ENOSPC,
    "bpf_probe_read": errno.EFAULT,
    "bpf_probe_read_str": errno.EFAULT,
    "bpf_probe_read_kernel": errno.EFAULT,
    "bpf_probe_read_kernel_str": errno.EFAULT,
    "bpf_probe_read_user": errno.EFAULT,
    "bpf_probe_read_user_str": errno.EFAULT,
    "bpf_copy_from_user": errno.EFAULT,
    "bpf_skb_load_bytes": errno.EFAULT,
    "bpf_skb_store_bytes": errno.EFAULT,
    "bpf_skb_change_head": errno.ENOMEM,
    "bpf_skb_change_tail": errno.ENOMEM,
    "bpf_skb_adjust_room": errno.ENOTSUP,
    "bpf_xdp_adjust_head": errno.EINVAL,
    "bpf_xdp_adjust_tail": errno.EINVAL,
    "bpf_xdp_adjust_meta": errno.EINVAL,
    "bpf_loop": errno.E2BIG,
}
"""The error of a helper that fails as it usually does."""


@dataclass(slots=True)
class Failure:
    """Calls that fail with -`error`: those numbered `on`, or those behind the first `after`, counted from 1 among the
    calls on `map` ("" for any). `error` 0 stands for a null pointer."""

    error: int
    on: frozenset[int] | None = None
    after: int = 0
    map: str = ""
    seen: int = 0

    def strikes(self, call: Call) -> bool:
        """Whether this call, which is counted, fails."""
        if self.map and not self._is_on_its_map(call):
            return False
        self.seen += 1
        return self.seen in self.on if self.on is not None else self.seen > self.after

    def _is_on_its_map(self, call: Call) -> bool:
        wanted = call.world.maps.get(self.map)
        return wanted is not None and any(call.world.handles.get(given) is wanted for given in call.args)


def failure(name: str, error: int | None, on: int | Collection[int] | None, after: int, map_name: str) -> Failure:
    """A failure of the helper of this name. ValueError where no error is given and it has no usual one."""
    proto = _proto(name)
    if proto is not None and proto.ret.type.startswith("PTR_TO"):
        error = 0
    elif error is None:
        error = USUAL.get(name)
        if error is None:
            raise ValueError(f"{name}: say with which error it fails, as in fails(errno.EINVAL)")
    numbers = None if on is None else frozenset({on} if isinstance(on, int) else on)
    return Failure(abs(error), numbers, after, map_name)


def failed(call: Call, error: int) -> int:
    """r0 of a call that fails; what it was to fill is zeros."""
    proto = _proto(call.name)
    arguments = proto.args if proto is not None else ()
    for at, argument in enumerate(arguments):
        if "MEM_UNINIT" not in argument.flags or not call.args[at]:
            continue
        sized = at + 1 < len(arguments) and arguments[at + 1].is_size
        size = call.args[at + 1] & 0xFFFF_FFFF if sized else argument.size or _value_size(call)
        call.write(call.args[at], bytes(size))
    return -error


def _value_size(call: Call) -> int:
    found = call.world.handles.get(call.args[0])
    return found.definition.value_size if found is not None else 0


def _proto(name: str) -> Proto | None:
    from bpflisp.spec.helpers import by_name

    helper = by_name(name)
    return helper.protos[0] if helper is not None and helper.protos else None
