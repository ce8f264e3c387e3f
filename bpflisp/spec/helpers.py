"""Helpers: their numbers, names and prototypes, and which kernel lets which program type call them.

A prototype is what the verifier checks a call against: kinds of arguments with flags, and of what comes back. It is
that of 6.12.117, with what 6.18.44 answered differently. Reading is lazy: nothing is parsed until the first question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any

from bpflisp.lean import dataclass, replace
from bpflisp.spec import kernels
from bpflisp.spec.tabledata import numbers, prefer, table


class ArgType(StrEnum):
    """What the verifier wants in an argument register; the kernel's names without ARG_, flags taken off."""

    ANYTHING = "ANYTHING"
    SCALAR = "SCALAR"
    CONST_MAP_PTR = "CONST_MAP_PTR"
    CONST_SIZE = "CONST_SIZE"
    CONST_SIZE_OR_ZERO = "CONST_SIZE_OR_ZERO"
    CONST_ALLOC_SIZE_OR_ZERO = "CONST_ALLOC_SIZE_OR_ZERO"
    PTR_TO_CTX = "PTR_TO_CTX"
    PTR_TO_MEM = "PTR_TO_MEM"
    PTR_TO_MAP_KEY = "PTR_TO_MAP_KEY"
    PTR_TO_MAP_VALUE = "PTR_TO_MAP_VALUE"
    PTR_TO_STACK = "PTR_TO_STACK"
    PTR_TO_SPIN_LOCK = "PTR_TO_SPIN_LOCK"
    PTR_TO_TIMER = "PTR_TO_TIMER"
    PTR_TO_DYNPTR = "PTR_TO_DYNPTR"
    PTR_TO_FUNC = "PTR_TO_FUNC"
    PTR_TO_CONST_STR = "PTR_TO_CONST_STR"
    PTR_TO_RINGBUF_MEM = "PTR_TO_RINGBUF_MEM"
    PTR_TO_SOCK_COMMON = "PTR_TO_SOCK_COMMON"
    PTR_TO_SOCKET = "PTR_TO_SOCKET"
    PTR_TO_BTF_ID = "PTR_TO_BTF_ID"
    PTR_TO_BTF_ID_SOCK_COMMON = "PTR_TO_BTF_ID_SOCK_COMMON"
    PTR_TO_PERCPU_BTF_ID = "PTR_TO_PERCPU_BTF_ID"
    KPTR_XCHG_DEST = "KPTR_XCHG_DEST"


class RetType(StrEnum):
    """What a helper leaves in r0; the kernel's names without RET_, flags taken off."""

    INTEGER = "INTEGER"
    VOID = "VOID"
    PTR_TO_MAP_VALUE = "PTR_TO_MAP_VALUE"
    PTR_TO_SOCKET = "PTR_TO_SOCKET"
    PTR_TO_TCP_SOCK = "PTR_TO_TCP_SOCK"
    PTR_TO_SOCK_COMMON = "PTR_TO_SOCK_COMMON"
    PTR_TO_MEM = "PTR_TO_MEM"
    PTR_TO_MEM_OR_BTF_ID = "PTR_TO_MEM_OR_BTF_ID"
    PTR_TO_BTF_ID = "PTR_TO_BTF_ID"


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument as the verifier sees it.

    `flags` are the kernel's: PTR_MAYBE_NULL, MEM_RDONLY, MEM_UNINIT, MEM_WRITE, MEM_ALIGNED, MEM_FIXED_SIZE,
    OBJ_RELEASE, DYNPTR_TYPE_LOCAL, DYNPTR_TYPE_RINGBUF. `size` is in bytes, of MEM_FIXED_SIZE, else 0. `btf` names the
    kernel structure of a PTR_TO_BTF_ID; "" where the call itself decides it (kptr_xchg).
    """

    type: ArgType
    flags: frozenset[str] = frozenset()
    size: int = 0
    btf: str = ""

    @property
    def maybe_null(self) -> bool:
        """Whether null may be given."""
        return "PTR_MAYBE_NULL" in self.flags

    @property
    def is_size(self) -> bool:
        """Whether it is the length of the memory that the argument before it points to."""
        return self.type in (ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO)


@dataclass(frozen=True, slots=True)
class Ret:
    """What comes back: its kind, flags (PTR_MAYBE_NULL, MEM_RINGBUF, MEM_RDONLY, PTR_TRUSTED), a structure's name."""

    type: RetType
    flags: frozenset[str] = frozenset()
    btf: str = ""

    @property
    def maybe_null(self) -> bool:
        """Whether it has to be tested before use."""
        return "PTR_MAYBE_NULL" in self.flags


@dataclass(frozen=True, slots=True)
class Proto:
    """What one prototype of a helper wants and gives.

    `pkt_access`: packet pointers may be given as memory. `might_sleep`: only where sleeping is allowed.
    `allow_fastcall`: the JIT may keep caller-saved registers. `allowed_hook` names the kernel's further test of the
    program (a set of hooks that may call it), "" for none.
    """

    name: str
    args: Sequence[Arg]
    ret: Ret
    gpl_only: bool = False
    pkt_access: bool = False
    might_sleep: bool = False
    allow_fastcall: bool = False
    allowed_hook: str = ""


@dataclass(frozen=True, slots=True)
class CArg:
    """A parameter of the C prototype in uapi/linux/bpf.h: `const void *`, `key`."""

    type: str
    name: str

    @property
    def pointer(self) -> bool:
        """Whether it is a pointer."""
        return self.type.endswith("*")


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper. `min_kernel` is the first release that has its number: "4.14"."""

    id: int
    name: str
    c_prototype: str
    c_ret: str
    c_args: Sequence[CArg]
    variadic: bool
    min_kernel: str
    protos: Sequence[Proto]

    @property
    def short_name(self) -> str:
        """The name without bpf_."""
        return self.name.removeprefix("bpf_")


def _declared(text: str) -> CArg:
    """`const void *key` -> its type and name."""
    head = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
    return CArg(head.strip(), text[len(head) :])


def _parse_prototype(text: str) -> tuple[str, tuple[CArg, ...], bool]:
    """The C prototype's return type, parameters, and whether more may follow."""
    head, _, rest = text.partition("(")
    written = [part.strip() for part in rest.rstrip(")").split(",")]
    parameters = [part for part in written if part not in ("void", "...", "")]
    return _declared(head).type, tuple(_declared(part) for part in parameters), "..." in written


def _args(rows: list[Any]) -> tuple[Arg, ...]:
    return tuple(Arg(ArgType(kind), frozenset(flags), size, btf) for kind, flags, size, btf in rows)


def _ret(row: list[Any]) -> Ret:
    kind, flags, btf = row
    return Ret(RetType(kind), frozenset(flags), btf)


def _proto(row: dict[str, Any]) -> Proto:
    gpl, packet, sleeps, fast = (bool(row.get(key)) for key in ("gpl", "pkt", "sleep", "fast"))
    return Proto(row["name"], _args(row["args"]), _ret(row["ret"]), gpl, packet, sleeps, fast, row.get("allowed", ""))


def _before(row: dict[str, Any], proto: Proto) -> Proto:
    """The prototype with what `row` says of it before some rule."""
    args = _args(row["args"]) if "args" in row else proto.args
    ret = _ret(row["ret"]) if "ret" in row else proto.ret
    return replace(proto, args=args, ret=ret, might_sleep=row.get("sleep", proto.might_sleep))


def _helper(row: dict[str, Any]) -> Helper:
    ret, args, variadic = _parse_prototype(row["c"])
    protos = tuple(_proto(proto) for proto in row["protos"])
    return Helper(row["id"], row["name"], row["c"], ret, args, variadic, row["min"], protos)


@cache
def _by_id() -> dict[int, Helper]:
    found = (by_id(row["id"]) for row in table("helpers"))
    return {helper.id: helper for helper in found if helper is not None}


@cache
def known() -> Mapping[str, int]:
    """The number of every helper by its name without bpf_; no more of the table is looked at."""
    return MappingProxyType({row["name"].removeprefix("bpf_"): row["id"] for row in table("helpers")})


def _row(helper_id: int) -> dict[str, Any]:
    """A helper's row of the table: the numbers have no gap. KeyError where the number is no helper."""
    if helper_id not in _by_id():
        raise KeyError(helper_id)
    row: dict[str, Any] = table("helpers")[helper_id - 1]
    return row


@cache
def _uses(helper_id: int) -> dict[str, list[tuple[str, int]]]:
    uses = _row(helper_id).get("uses", {})
    return {prog_type: [(when, at) for when, at in rows] for prog_type, rows in uses.items()}


def all_helpers() -> Iterator[Helper]:
    """Every helper, in the order of ids."""
    return iter(_by_id().values())


@cache
def by_id(helper_id: int) -> Helper | None:
    """The helper of this number; None where no kernel of the table has one. The numbers have no gap."""
    rows = table("helpers")
    return _helper(rows[helper_id - 1]) if 0 < helper_id <= len(rows) else None


def by_name(name: str) -> Helper | None:
    """The helper of this name, with or without bpf_; None where there is none."""
    number = known().get(name.removeprefix("bpf_"))
    return by_id(number) if number is not None else None


def helper_name(helper_id: int, kernel: str = "6.18") -> str:
    """`bpf_map_lookup_elem#1`, as the kernel's log prints it; `unknown#212` for a number beyond its last."""
    helper = by_id(helper_id)
    known = helper is not None and helper_id < first_unknown(kernel)
    return f"{helper.name if helper and known else 'bpf_unspec' if helper_id == 0 else 'unknown'}#{helper_id}"


@cache
def proto(helper_id: int, prog_type: str, attach_type: str = "", sleepable: bool = False, kernel: str = "") -> Proto:
    """The prototype that this program type gets, of 6.18 or of that kernel; KeyError where the number is no helper.

    Whether it may call it at all is `allowed`'s affair: for a type that may not, any prototype is as good.
    """
    uses, chosen = _uses(helper_id), 0
    for when, at in uses.get(prog_type) or uses.get("*") or next(iter(uses.values()), []):
        if when == "" or (when == "sleepable" and sleepable) or when == attach_type:
            chosen = at
            break
    found = _by_id()[helper_id].protos[chosen]
    if not kernel:
        return found
    before: dict[str, Any] = _row(helper_id)["protos"][chosen].get("before", {})
    profile = kernels.profile(kernel)
    older = next((before[rule] for rule in _PROTOTYPE_RULES if rule in before and not profile.has(rule)), None)
    return _before(older, found) if older else found


# The rules that changed prototypes, the first that a kernel may lack foremost.
_PROTOTYPE_RULES = ("helper-types-since-6-1", "helper-memory-flags")


@dataclass(frozen=True, slots=True)
class _Set:
    prog_type: str
    attach_type: str
    sleepable: bool
    helpers: frozenset[int]
    gpl_only: frozenset[int]


@cache
def _sets(version: str) -> dict[str, list[_Set]]:
    """Program type -> what was asked of it on this kernel."""
    found: dict[str, list[_Set]] = {}
    asked = kernels.host_of(version) or table("helper_sets")[version]
    for prog_type, attach_type, sleepable, helpers, gpl in asked["rows"]:
        row = _Set(prog_type, attach_type, sleepable, numbers(helpers), numbers(gpl))
        found.setdefault(prog_type, []).append(row)
    return found


@cache
def _set(version: str, prog_type: str, attach_type: str, sleepable: bool) -> _Set | None:
    rows = _sets(version).get(prog_type, [])
    wanted = prefer(prog_type, attach_type)
    alike = _alike(prog_type, wanted, {row.attach_type: len(row.helpers) for row in rows})
    order = sorted(
        rows,
        key=lambda row: (row.attach_type != wanted, row.attach_type != alike, row.sleepable != sleepable),
    )
    if not order:
        return None
    found = _with_retval(version, _narrowed(order[0], wanted), wanted) if order[0].attach_type != wanted else order[0]
    return _with_sleep(found, sleepable)


# bpf_get_retval and bpf_set_retval: cgroup_common_func_proto() of kernel/bpf/cgroup.c looks at nothing but the number
# of the attach type, which for these program types may be one that is no business of theirs.
_RETVAL = frozenset({186, 187})
_BY_ATTACH_NUMBER = frozenset({"cgroup_device", "cgroup_sysctl", "sock_ops"})
_WITHOUT_RETVAL = frozenset(
    {"", "cgroup_inet_ingress", "cgroup_inet_egress", "cgroup_sock_ops", "cgroup_udp4_recvmsg", "cgroup_udp6_recvmsg"}
    | {f"cgroup_{family}_get{end}name" for family in ("inet4", "inet6", "unix") for end in ("peer", "sock")}
    | {"cgroup_unix_recvmsg"}
)


def _with_retval(version: str, row: _Set, attach_type: str) -> _Set:
    """The row of a program loaded with another type's attach type."""
    known = table("helper_sets").get(version, {}).get("first_unknown", 0)
    if row.prog_type not in _BY_ATTACH_NUMBER or max(_RETVAL) >= known:
        return row
    return replace(row, helpers=row.helpers - _RETVAL if attach_type in _WITHOUT_RETVAL else row.helpers | _RETVAL)


def _narrowed(row: _Set, attach_type: str) -> _Set:
    """The row of another attach type, without what 6.18.44 keeps from the one that is meant."""
    reference = {row.attach_type: row.helpers for row in _sets("6.18.44").get(row.prog_type, [])}
    if row.attach_type == attach_type or not {row.attach_type, attach_type} <= set(reference):
        return row
    kept = reference[row.attach_type] - reference[attach_type]
    return replace(row, helpers=row.helpers - kept, gpl_only=row.gpl_only - kept)


# Before 6.x only a sleepable program may name it; 5.10 and 6.1 could be asked about no sleepable tracing program.
_COPY_FROM_USER = 148


def _with_sleep(row: _Set, sleepable: bool) -> _Set:
    if not sleepable or row.sleepable or row.prog_type not in ("tracing", "lsm"):
        return row
    return replace(row, sleepable=True, helpers=row.helpers | {_COPY_FROM_USER})


def _alike(prog_type: str, attach_type: str, asked: Mapping[str, int]) -> str | None:
    """Of the attach types asked about, the one whose helpers are nearest on 6.18.44, where all were asked about.

    Where several are as near, the one with the fewest (`asked` has how many): to refuse too much shows at once.
    """
    reference = {row.attach_type: row.helpers for row in _sets("6.18.44").get(prog_type, [])}
    if attach_type not in reference:
        return None
    distances = [
        (len(reference[name] ^ reference[attach_type]), count, name)
        for name, count in asked.items()
        if name in reference
    ]
    return min(distances)[2] if distances else None


@cache
def first_unknown(kernel: str) -> int:
    """The first helper number that this kernel does not have: from it on, a call is `invalid func unknown#N`."""
    host = kernels.host_of(kernels.resolve(kernel))
    if host is not None:
        return int(host["first_unknown"])
    version = kernels.parse(kernels.resolve(kernel))
    before, after = kernels.neighbours(version, list(table("helper_sets")))
    if before is not None and kernels.parse(before)[:2] == version[:2]:
        return int(table("helper_sets")[before]["first_unknown"])
    bound = int(table("helper_sets")[after or before]["first_unknown"])
    return 1 + max(n for n, helper in _by_id().items() if n < bound and kernels.at_least(version, helper.min_kernel))


@cache
def _answers(kernel: str, prog_type: str, attach_type: str, sleepable: bool) -> tuple[frozenset[int], frozenset[int]]:
    """The helpers allowed, and those of them that want the GPL.

    Of a kernel that was not asked: what the one before allows, and what the one after allows as far as the helper's
    own first release goes. A helper that a type was given later than the helper itself came is then dated too early.
    """
    full = kernels.resolve(kernel)
    version = kernels.parse(full)
    before, after = kernels.neighbours(version, list(table("helper_sets")))
    if kernels.host_of(full) is not None:
        before = after = full
    rows = {name: _set(name, prog_type, attach_type, sleepable) for name in (before, after) if name}
    old, new = rows.get(before or ""), rows.get(after or "")
    if before is not None and (before == after or kernels.parse(before)[:2] == version[:2]):
        new = None
    helpers = old.helpers if old else frozenset()
    gpl = old.gpl_only if old else frozenset()
    if new is not None:
        known = {n for n in new.helpers if kernels.at_least(version, _by_id()[n].min_kernel)}
        helpers, gpl = helpers | known, gpl | (new.gpl_only & known)
    return helpers, gpl


def allowed(kernel: str, prog_type: str, attach_type: str = "", sleepable: bool = False) -> frozenset[int]:
    """The helpers that a program of this type may call; empty where the kernel does not have the program type."""
    return _answers(kernel, prog_type, attach_type, sleepable)[0]


def gpl_only(kernel: str, prog_type: str, attach_type: str = "", sleepable: bool = False) -> frozenset[int]:
    """Of `allowed`, those that want a GPL-compatible licence."""
    return _answers(kernel, prog_type, attach_type, sleepable)[1]


@cache
def min_kernel(helper_id: int, prog_type: str, attach_type: str = "", sleepable: bool = False) -> str:
    """The first release known to let this program type call the helper; "" where none of the measured ones does.

    The helper's own first release, unless a measured kernel had the helper and the program type and refused: then the
    line of the first measured one that allows it, which is an upper bound ("6.12" says: after 6.1, by 6.12).
    """
    refused = False
    for version in table("helper_sets"):
        row = _set(version, prog_type, attach_type, sleepable)
        if row is None or helper_id >= first_unknown(version):
            continue
        if helper_id in row.helpers:
            return ".".join(version.split(".")[:2]) if refused else _by_id()[helper_id].min_kernel
        refused = True
    return ""


def refusal(helper_id: int, kernel: str = "6.18") -> str:
    """The kernel's words for a helper that this kernel lacks, or that the program's type may not call.

    What decides between them is whether the number is beyond the kernel's last.
    """
    name = helper_name(helper_id, kernel)
    if not 0 <= helper_id < first_unknown(kernel):
        return f"invalid func {name}"
    if kernels.profile(kernel).has("helper-refusal-names-type"):
        return f"program of this type cannot use helper {name}"
    return f"unknown func {name}"
