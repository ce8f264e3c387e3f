"""What 64-bit loads stand for: numbers, maps, places in map values, functions, kernel variables.

Invariant: the walk goes from the first slot to the last and refuses at the first thing wrong, as the kernel does; a map
is used from the first load on that names it, and checked against the program then.
"""

from __future__ import annotations

from functools import cache, cached_property, lru_cache
from typing import Final

from bpflisp.lean import dataclass, field
from bpflisp.spec import isa
from bpflisp.spec.btf import Btf, BtfKind
from bpflisp.spec.isa import LD_IMM64_OPCODE, LDX, MODE_ATOMIC, MODE_MEM, MODE_MEMSX, STX, Kind
from bpflisp.spec.kernels import Profile
from bpflisp.spec.programs import F_SLEEPABLE
from simulator.program import MapDef, Program
from simulator.verifier.btfinfo import managed_kinds
from simulator.verifier.refusal import Refused, Unsupported
from simulator.verifier.slots import CLASS_MASK, MODE_MASK, Slots

MAX_MAPS: Final = 64

_E2BIG, _EBUSY, _EBADF, _ENOENT, _ERANGE, _ENOTSUPP = 7, 16, 9, 2, 34, 524
_MAX_VALUE_OFFSET = 1 << 29

_ATOMICS_SINCE: Final = "5.12"
_SIGNED_LOADS_SINCE: Final = "6.6"
CALLBACKS_SINCE: Final = "5.13"
"""Functions of the program as callbacks, and kernel functions."""

# From then on x86 links variables of which each CPU has its own at addresses that the symbol table does not show.
_PERCPU_HIDDEN_SINCE: Final = "6.15"

TRACING_TYPES: Final = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable"})

# The maps that sleepable programs may use: (from which release on, these more, the kernel's words from then on).
_SLEEPABLE_MAPS: Final = (
    (
        "5.10",
        frozenset({"hash", "lru_hash", "array"}),
        "Sleepable programs can only use array and hash maps",
    ),
    (
        "5.11",
        frozenset({"percpu_hash", "percpu_array", "lru_percpu_hash", "array_of_maps", "hash_of_maps"}),
        "Sleepable programs can only use array and hash maps",
    ),
    ("5.13", frozenset({"ringbuf"}), "Sleepable programs can only use array, hash, and ringbuf maps"),
    ("6.1", frozenset({"user_ringbuf"}), "Sleepable programs can only use array, hash, and ringbuf maps"),
    (
        "6.3",
        frozenset({"inode_storage", "sk_storage", "task_storage", "cgrp_storage", "queue", "stack", "arena"}),
        "Sleepable programs can only use array, hash, ringbuf and local storage maps",
    ),
    (
        "7.1",
        frozenset({"lpm_trie", "insn_array", "prog_array"}),
        "Sleepable programs can only use array, hash, ringbuf and local storage maps",
    ),
)

_DIRECT_VALUE_MAPS: Final = frozenset({"array", "arena"})
_CGROUP_STORAGE: Final = frozenset({"cgroup_storage", "percpu_cgroup_storage"})

# What may not be in the values of maps that these programs use: (from which release on, managed kinds, program types,
# the kernel's words). Earlier kernels do not know the structure, and take it for data.
_FIELD_RULES: Final = (
    (
        "6.2",
        frozenset({"bpf_list_head", "bpf_rb_root"}),
        TRACING_TYPES,
        "tracing progs cannot use bpf_{list_head,rb_root} yet",
    ),
    (
        "5.1",
        frozenset({"bpf_spin_lock", "bpf_res_spin_lock"}),
        frozenset({"socket_filter"}),
        "socket filter progs cannot use bpf_spin_lock yet",
    ),
    (
        "5.1",
        frozenset({"bpf_spin_lock", "bpf_res_spin_lock"}),
        TRACING_TYPES,
        "tracing progs cannot use bpf_spin_lock yet",
    ),
    ("5.15", frozenset({"bpf_timer"}), TRACING_TYPES, "tracing progs cannot use bpf_timer yet"),
    ("6.10", frozenset({"bpf_wq"}), TRACING_TYPES, "tracing progs cannot use bpf_wq yet"),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one 64-bit load means.

    `kind` is "number", "map", "map_value", "function" or "kernel_symbol". `map` is an index into `Program.maps`,
    `offset` bytes into the value, `function` the slot where a function starts, `symbol` and `type_id` a kernel
    variable's or function's name and its id in the kernel's BTF.
    """

    kind: str
    map: int = -1
    offset: int = 0
    function: int = -1
    symbol: str = ""
    type_id: int = 0


@dataclass
class Resolver:
    """The walk over one program; `run` gives what its loads mean, `used` the maps in the order of their first use."""

    program: Program
    slots: Slots
    profile: Profile
    kernel_btf: Btf | None = None
    used: list[int] = field(default_factory=list)

    def run(self) -> dict[int, Loaded]:
        """Slot of each 64-bit load -> its meaning. Raises Refused."""
        slots = self.slots
        known = known_opcodes(self.profile)
        found: dict[int, Loaded] = {}
        at, count = 0, len(slots)
        while at < count:
            opcode = slots.opcode[at]
            if opcode & CLASS_MASK in (LDX, STX):
                self._check_fields(at)
            if opcode == LD_IMM64_OPCODE:
                found[at] = self._load(at)
                at += 2
                continue
            if opcode not in known:
                raise Refused(f"unknown opcode {opcode:02x}", insn=at)
            at += 1
        return found

    def _check_fields(self, at: int) -> None:
        """The fields of loads and stores that are looked at before any path is."""
        kind, mode = self.slots.opcode[at] & CLASS_MASK, self.slots.opcode[at] & MODE_MASK
        if kind == LDX and (mode not in self._load_modes or self.slots.imm[at]):
            raise Refused("BPF_LDX uses reserved fields", insn=at)
        if kind == STX and not self.profile.since(_ATOMICS_SINCE):
            # The immediate, which then selected nothing, had to be 0; only additions had their mode.
            if mode not in (MODE_MEM, MODE_ATOMIC) or self.slots.imm[at]:
                raise Refused("BPF_STX uses reserved fields", insn=at)

    @cached_property
    def _load_modes(self) -> tuple[int, ...]:
        return (MODE_MEM, MODE_MEMSX) if self.profile.since(_SIGNED_LOADS_SINCE) else (MODE_MEM,)

    def _load(self, at: int) -> Loaded:
        slots = self.slots
        second = at + 1
        if second >= len(slots) or any((slots.opcode[second], slots.dst[second], slots.src[second], slots.off[second])):
            raise Refused("invalid bpf_ld_imm64 insn", insn=at)
        source = slots.src[at]
        if source == 0:
            return Loaded("number")
        if source == isa.PSEUDO_BTF_ID:
            return self._kernel_symbol(at)
        if source == isa.PSEUDO_FUNC and self.profile.since(CALLBACKS_SINCE):
            return Loaded("function", function=at + slots.imm[at] + 1)
        value = source in (isa.PSEUDO_MAP_VALUE, isa.PSEUDO_MAP_IDX_VALUE)
        whole = source in (isa.PSEUDO_MAP_FD, isa.PSEUDO_MAP_IDX) and not slots.imm[second]
        if not value and not whole:
            raise Refused("unrecognized bpf_ld_imm64 insn", insn=at)
        index = self._use_map(at)
        if whole:
            return Loaded("map", map=index)
        return self._map_value(at, index)

    def _use_map(self, at: int) -> int:
        index = self.slots.imm[at]
        by_index = self.slots.src[at] in (isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE)
        if not by_index or not 0 <= index < len(self.program.maps):
            raise Refused(f"fd {index} is not pointing to valid bpf_map", insn=at, errno=_EBADF)
        if index not in self.used:
            if len(self.used) >= MAX_MAPS:
                words = f"The total number of maps per program has reached the limit of {MAX_MAPS}"
                raise Refused(words, insn=at, errno=_E2BIG)
            check_map(self.program, self.program.maps[index], self.profile, at)
            self._check_alone(at, self.program.maps[index])
            self.used.append(index)
        return index

    def _check_alone(self, at: int, new: MapDef) -> None:
        """Some kinds of maps a program may use one of."""
        kinds = [self.program.maps[index].type for index in self.used]
        if new.type in _CGROUP_STORAGE and new.type in kinds:
            raise Refused("only one cgroup storage of each type is allowed", insn=at, errno=_EBUSY)
        if new.type == "arena" and "arena" in kinds:
            raise Refused("Only one arena per program", insn=at, errno=_EBUSY)

    def _map_value(self, at: int, index: int) -> Loaded:
        target = self.program.maps[index]
        offset = self.slots.imm[at + 1] & 0xFFFFFFFF
        if offset >= _MAX_VALUE_OFFSET:
            raise Refused(f"direct value offset of {offset} is not allowed", insn=at)
        if target.type not in _DIRECT_VALUE_MAPS:
            raise Refused("no direct value access support for this map type", insn=at)
        words = f"invalid access to map value pointer, value_size={target.value_size} off={offset}"
        if target.type == "array":
            if target.max_entries != 1:
                raise Refused(words, insn=at, errno=_ENOTSUPP)
            if offset >= target.value_size:
                raise Refused(words, insn=at)
        elif offset > target.max_entries * _PAGE:
            raise Refused(words, insn=at, errno=_ERANGE)
        return Loaded("map_value", map=index, offset=offset)

    def _kernel_symbol(self, at: int) -> Loaded:
        name = self.program.btf_ids.get(at)
        if name is None:
            raise Unsupported("a 64-bit load of a BTF id without the symbol's name", at)
        if self.kernel_btf is None:
            raise Unsupported(f"the kernel symbol {name!r} without the kernel's BTF", at)
        for kind in (BtfKind.VAR, BtfKind.FUNC):
            type_id = self.kernel_btf.find(name, kind)
            if type_id is not None:
                return self._symbol(at, name, type_id, kind)
        raise Refused(f"ldimm64 insn specifies invalid btf_id {self.slots.imm[at]}.", insn=at, errno=_ENOENT)

    def _symbol(self, at: int, name: str, type_id: int, kind: BtfKind) -> Loaded:
        if kind is BtfKind.VAR and self.profile.since(_PERCPU_HIDDEN_SINCE) and name in percpu_names(self.kernel_btf):
            words = f"ldimm64 failed to find the address for kernel symbol '{name}'."
            raise Refused(words, insn=at, errno=_ENOENT)
        return Loaded("kernel_symbol", symbol=name, type_id=type_id)


_PAGE = 4096


@lru_cache(8)
def percpu_names(kernel_btf: Btf | None) -> frozenset[str]:
    """The variables of the kernel of which each CPU has its own."""
    section = None if kernel_btf is None else kernel_btf.find(".data..percpu", BtfKind.DATASEC)
    if kernel_btf is None or section is None:
        return frozenset()
    return frozenset(kernel_btf.type(variable.type).name for variable in kernel_btf.variables(section))


# Opcodes that are younger than the others: from which release on.
_YOUNG_OPCODES: Final = {
    isa.ALU64 | isa.END_CODE: "6.6",  # bswap
    isa.JMP32 | isa.JA_CODE: "6.0",  # gotol, which 6.1.192 takes
    isa.JMP | isa.MAY_GOTO_CODE: "6.9",
    isa.STX | isa.MODE_ATOMIC | isa.SIZE_BITS[1]: "6.15",  # load-acquire and store-release of a byte
    isa.STX | isa.MODE_ATOMIC | isa.SIZE_BITS[2]: "6.15",
}


@cache
def known_opcodes(profile: Profile) -> frozenset[int]:
    """The opcodes that a kernel knows at all; their reserved fields are looked at when a path gets there."""
    opcodes = {row.opcode for rows in (isa.ALU_ROWS, isa.ATOMIC_ROWS) for row in rows.values()}
    opcodes |= {row.opcode for row in isa.PLAIN_ROWS.values() if row.kind is not Kind.CALL_REG}
    return frozenset(code for code in opcodes if profile.since(_YOUNG_OPCODES.get(code, "0.0")))


def check_map(program: Program, target: MapDef, profile: Profile, at: int | None = None) -> None:
    """Whether this program may use that map at all, whatever it does with it. Raises Refused."""
    managed = managed_kinds(target)
    for since, kinds, types, words in _FIELD_RULES:
        if managed & kinds and program.type in types and profile.since(since):
            raise Refused(words, insn=at)
    if target.type == "struct_ops":
        raise Refused("bpf_struct_ops map cannot be used in prog", insn=at)
    if program.flags & F_SLEEPABLE:
        rows = [row for row in _SLEEPABLE_MAPS if profile.since(row[0])] or [_SLEEPABLE_MAPS[0]]
        if not any(target.type in kinds for _, kinds, _ in rows):
            raise Refused(rows[-1][2], insn=at)
