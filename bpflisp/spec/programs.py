"""Program types, attach types, section names, and what a program may return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass
from bpflisp.spec.tabledata import prefer, table

# Bits of prog_flags.
F_STRICT_ALIGNMENT, F_ANY_ALIGNMENT, F_TEST_RND_HI32, F_TEST_STATE_FREQ, F_SLEEPABLE = (1 << bit for bit in range(5))
F_XDP_HAS_FRAGS, F_XDP_DEV_BOUND_ONLY, F_TEST_REG_INVARIANTS = (1 << bit for bit in range(5, 8))


@dataclass(frozen=True, slots=True)
class ProgramType:
    """One program type.

    `context` is the C name of its context's structure, "" for a raw buffer or one typed by the kernel's BTF.
    `attach_types` are those that belong to it. `test_run` is the first release whose BPF_PROG_TEST_RUN takes it, "" for
    none. `packet` says what it may do with packet pointers: "rw", "r" or "".
    """

    number: int
    name: str
    min_kernel: str
    context: str
    attach_types: Sequence[str]
    test_run: str
    packet: str


@cache
def _by_name() -> dict[str, ProgramType]:
    return {
        row["name"]: ProgramType(
            row["number"], row["name"], row["min"], row["context"], tuple(row["attach"]), row["test_run"], row["packet"]
        )
        for row in table("programs")["types"]
    }


@cache
def _by_number() -> dict[int, ProgramType]:
    return {kind.number: kind for kind in _by_name().values()}


def all_program_types() -> Iterator[ProgramType]:
    """Every program type, in the order of numbers."""
    return iter(_by_name().values())


def by_name(name: str) -> ProgramType | None:
    """The program type of this lower-case name: "sched_cls"; None where there is none."""
    return _by_name().get(name)


def by_number(number: int) -> ProgramType | None:
    """The program type of this number; None where there is none."""
    return _by_number().get(number)


@cache
def attach_numbers() -> Mapping[str, int]:
    """Attach type -> its number: "cgroup_inet_egress" -> 1."""
    return MappingProxyType({name: number for name, (number, _) in table("programs")["attach"].items()})


@cache
def _attach_names() -> dict[int, str]:
    return {number: name for name, number in attach_numbers().items()}


def attach_number(name: str) -> int:
    """The number of an attach type, 0 for ""; KeyError where there is none of this name."""
    return attach_numbers()[name] if name else 0


def attach_name(number: int) -> str:
    """The name of an attach type; "" for 0, as `Program.attach_type` has it. KeyError for an unknown number."""
    return _attach_names()[number] if number else ""


def attach_min_kernel(name: str) -> str:
    """The first release with this attach type, "" where the sources do not say."""
    return str(table("programs")["attach"][name][1])


@cache
def return_range(prog_type: str, attach_type: str = "") -> tuple[int, int] | None:
    """The least and greatest r0, signed, that 6.18 lets such a program exit with; None where any is accepted.

    The range of an LSM program hangs on its hook: `lsm_return_range`. That of a struct_ops program is any; one whose
    member gives nothing back may leave anything in r0.
    """
    wanted = prefer(prog_type, attach_type)
    rows = {row[1]: (row[2], row[3]) for row in table("programs")["returns"] if row[0] == prog_type}
    if wanted in rows:
        return rows[wanted]
    return (0, 1) if rows and prog_type not in _RANGE_BY_ATTACH_TYPE else None


# Of these program types only the listed attach types have a range; of the others every program has.
_RANGE_BY_ATTACH_TYPE = frozenset({"kprobe", "tracing"})

BOOL_LSM_HOOKS: Final = frozenset({"audit_rule_known", "inode_xattr_skipcap", "xfrm_state_pol_flow_match"})
"""LSM hooks whose answer is a truth value, not an error number. Source: kernel/bpf/bpf_lsm.c."""


def lsm_return_range(attach_type: str, hook: str, void: bool = False) -> tuple[int, int] | None:
    """The range of an LSM program's r0. `hook` is the hook without bpf_lsm_; `void` says that it gives nothing back."""
    if attach_type == "lsm_cgroup":
        return (1, 1) if void else (0, 1)
    if void:
        return None
    return (0, 1) if hook in BOOL_LSM_HOOKS else (-4095, 0)


@dataclass(frozen=True, slots=True)
class LoadRules:
    """What BPF_PROG_LOAD of 6.18 asks of a program type besides instructions.

    `attach_types` are those that it loads with, None where it does not look at them ("" is number 0). `sleepable` is
    "never", "may" or "must". `attach_target` says that a BTF id of a kernel function or type has to be named.
    """

    attach_types: frozenset[str] | None
    sleepable: str
    attach_target: bool


NOT_SLEEPABLE: Final = "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable"
"""What the verifier says to BPF_F_SLEEPABLE on any other program."""

ONLY_SLEEPABLE: Final = "Syscall programs can only be sleepable"
"""What the verifier says to a syscall program without BPF_F_SLEEPABLE."""


@cache
def load_rules(prog_type: str) -> LoadRules:
    """The rules of a program type; KeyError where there is none of this name."""
    row = table("programs")["load"][prog_type]
    taken = frozenset(row["attach"]) if "attach" in row else None
    return LoadRules(taken, row["sleepable"], row.get("target", False))


@dataclass(frozen=True, slots=True)
class Section:
    """What a section's name says of the programs in it.

    `target` is what follows the prefix: a function, a tracepoint, an interface. `sleepable`, `xdp_frags` ask for the
    BPF_F_* flag; `attach_btf`: the target is looked up in the kernel's BTF; `attach_optional`: libbpf drops the attach
    type where the kernel knows none. `libbpf` is False for a name that our loader knows and libbpf does not.
    """

    pattern: str
    prog_type: str
    attach_type: str
    target: str = ""
    sleepable: bool = False
    xdp_frags: bool = False
    attach_btf: bool = False
    attach_optional: bool = False
    autoload: bool = True
    libbpf: bool = True

    @property
    def flags(self) -> int:
        """The BPF_F_* bits of prog_flags that it asks for."""
        return (F_SLEEPABLE if self.sleepable else 0) | (F_XDP_HAS_FRAGS if self.xdp_frags else 0)


def _section(row: list[object], target: str, autoload: bool) -> Section:
    pattern, prog_type, attach_type, flags = row
    assert isinstance(flags, list)
    return Section(
        str(pattern), str(prog_type), str(attach_type), target,
        sleepable="sleepable" in flags, xdp_frags="xdp_frags" in flags, attach_btf="attach_btf" in flags,
        attach_optional="attachable_opt" in flags, autoload=autoload,
    )  # fmt: skip


def libbpf_section(name: str) -> Section | None:
    """What libbpf makes of a section name; None where it knows none such, and then refuses the object.

    The first pattern that matches wins: `kprobe+` matches `kprobe` and `kprobe/...`, any other the whole name alone.
    A leading `?` means that the program is not loaded unless asked for.
    """
    autoload, name = not name.startswith("?"), name.removeprefix("?")
    for row in table("sections"):
        pattern: str = row[0]
        if not pattern.endswith("+"):
            if name == pattern:
                return _section(row, "", autoload)
            continue
        prefix = pattern[:-1]
        if name == prefix or name.startswith(prefix + "/"):
            return _section(row, name[len(prefix) + 1 :], autoload)
    return None


def section(name: str) -> Section | None:
    """What a section name means to our loader: as libbpf has it, or one of the book's own names; None where neither.

    The book's: the lower-case type ("cgroup-skb", "socket-filter"), and a known name with something behind a slash
    ("xdp/handler_a").
    """
    known = libbpf_section(name)
    if known is not None:
        return known
    bare = name.removeprefix("?")
    head, _, target = bare.partition("/")
    # With something behind a slash, the name before it decides: libbpf's attach type for "xdp" is that of "xdp/a" too,
    # or the kernel would not let the one tail-call the other.
    short = libbpf_section(head) if target else None
    if short is not None:
        return Section(bare, short.prog_type, short.attach_type, target, short.sleepable, short.xdp_frags,
                       short.attach_btf, short.attach_optional, not name.startswith("?"), libbpf=False)  # fmt: skip
    kind = by_name(head.replace("-", "_"))
    if kind is None:
        return None
    return Section(bare, kind.name, "", target, sleepable=kind.name == "syscall", libbpf=False,
                   autoload=not name.startswith("?"))  # fmt: skip


def libbpf_name(prog_type: str, attach_type: str = "") -> str | None:
    """A section name that libbpf knows for such a program, without a target; None where it has none."""
    rows = [row for row in table("sections") if row[1] == prog_type]
    exact = [row for row in rows if row[2] == attach_type]
    return str((exact or rows)[0][0]).rstrip("+") if rows else None


_XDP = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
_TC = (
    "TC_ACT_OK", "TC_ACT_RECLASSIFY", "TC_ACT_SHOT", "TC_ACT_PIPE", "TC_ACT_STOLEN", "TC_ACT_QUEUED",
    "TC_ACT_REPEAT", "TC_ACT_REDIRECT", "TC_ACT_TRAP",
)  # fmt: skip
_TC_ACTIONS = {-1: "TC_ACT_UNSPEC"} | dict(enumerate(_TC))
_SK = {0: "SK_DROP", 1: "SK_PASS"}
_LWT = {0: "BPF_OK", 2: "BPF_DROP", 7: "BPF_REDIRECT", 128: "BPF_LWT_REROUTE"}

ACTIONS: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {
        "xdp": MappingProxyType(dict(enumerate(_XDP))),
        "sched_cls": MappingProxyType(_TC_ACTIONS),
        "sched_act": MappingProxyType(_TC_ACTIONS),
        "sk_skb": MappingProxyType(_SK),
        "sk_msg": MappingProxyType(_SK),
        "sk_lookup": MappingProxyType(_SK),
        "sk_reuseport": MappingProxyType(_SK),
        "netfilter": MappingProxyType({0: "NF_DROP", 1: "NF_ACCEPT"}),
        "flow_dissector": MappingProxyType({0: "BPF_OK", 2: "BPF_DROP", 129: "BPF_FLOW_DISSECTOR_CONTINUE"}),
        "lwt_in": MappingProxyType(_LWT),
        "lwt_out": MappingProxyType(_LWT),
        "lwt_xmit": MappingProxyType(_LWT),
        "lwt_seg6local": MappingProxyType(_LWT),
    }
)
"""Program type -> return value -> the kernel's name of that action."""


def action_name(prog_type: str, value: int) -> str:
    """The name of what such a program returned: "XDP_PASS"; the number where it has none. `value` is unsigned."""
    signed = value - (1 << 32) if value >> 31 else value
    return ACTIONS.get(prog_type, {}).get(signed, str(signed))
