"""Programs, maps and objects as values: what the loader makes, and what verifier and engines read.

Invariant: an instruction names a map by its index in `Program.maps`, with src_reg BPF_PSEUDO_MAP_IDX (5), or
BPF_PSEUDO_MAP_IDX_VALUE (6) for an address inside its value; file descriptors occur nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bpflisp.spec.insn import Insn, decode

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from simulator.outcome import Outcome, Outcomes
    from simulator.results import Result
    from simulator.structs import Types
    from simulator.verdict import Verdict
    from simulator.world import World


@dataclass(frozen=True, slots=True)
class MapDef:
    """A map as its creator asks for it. Sizes in bytes; `type` by the kernel's name in lower case: "percpu_array".

    `btf`, `btf_key` and `btf_value` type its keys and values, as ids in that BTF, 0 where there is none. `init` is the
    first contents of a map that backs a data section (.rodata, .data, .bss); `frozen` says that programs and user space
    can no longer write it, so that the verifier knows its bytes. `slots` are initial entries of a prog array or an
    array of maps: index -> name of the program or map. `inner` is the template of a map in map.
    """

    name: str
    type: str
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    flags: int = 0
    extra: int = 0
    inner: MapDef | None = None
    btf: Btf | None = None
    btf_key: int = 0
    btf_value: int = 0
    init: bytes | None = None
    frozen: bool = False
    slots: Mapping[int, str] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> MapDef:
        return self  # a value: copies of worlds share it


@dataclass(frozen=True, slots=True)
class FuncInfo:
    """Where a function of the program starts, in slots, and the id of its BTF FUNC."""

    insn: int
    type_id: int


@dataclass(frozen=True, slots=True)
class LineInfo:
    """Where a source line's code starts, in slots, and the line's own text as BTF keeps it."""

    insn: int
    file: str
    text: str
    line: int
    column: int


@dataclass(frozen=True, repr=False)
class Program:
    """A program ready to be verified, run or given to BPF_PROG_LOAD.

    `insns` are raw instructions, 8 bytes a slot; `type` and `attach_type` the kernel's names in lower case without
    prefix ("sched_cls", "cgroup_inet4_connect"), `attach_type` "" for number 0 or none named. `flags` are the BPF_F_*
    bits of prog_flags. `attach_target` names the kernel function or type that a tracing, LSM or struct_ops program
    attaches to. `kfuncs` and `btf_ids` name what a call's or a load's immediate stands for: slot -> name. `siblings`
    are the programs of its object, itself among them, which its prog arrays may name; `origin` is the path of that
    object. The Object fills both in.
    """

    insns: bytes
    type: str
    maps: Sequence[MapDef] = ()
    license: str = "GPL"
    name: str = ""
    section: str = ""
    attach_type: str = ""
    attach_target: str = ""
    flags: int = 0
    btf: Btf | None = None
    func_info: Sequence[FuncInfo] = ()
    line_info: Sequence[LineInfo] = ()
    kfuncs: Mapping[int, str] = field(default_factory=dict)
    btf_ids: Mapping[int, str] = field(default_factory=dict)
    siblings: Mapping[str, Program] = field(default_factory=dict, init=False, repr=False, compare=False)
    origin: str = field(default="", init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<{self.type} program {self.name or 'without a name'}, {len(self.insns) // 8} slots>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # a value: copies of worlds share it, and what engines know of it

    @cached_property
    def code(self) -> Sequence[Insn | None]:
        """The decoded instructions, one entry a slot, None for the second half of a 64-bit load."""
        return decode(self.insns)

    @staticmethod
    def from_record(record: Mapping[str, Any], btf: Mapping[str, bytes] = MappingProxyType({})) -> Program:
        """A program from a record of the corpus' form; `btf` maps the names that it uses to BTF bytes."""
        from simulator.loader import program_from_record

        return program_from_record(record, btf)

    def verify(self, kernel: str = "6.18", kernel_btf: Any = None) -> Verdict:
        """The verdict of that kernel's verifier; see `simulator.verify`."""
        from simulator.verifier import verify

        return verify(self, kernel=kernel, kernel_btf=kernel_btf)

    def run(self, packet: Any = None, world: World | None = None, engine: str = "python", **options: Any) -> Outcome:
        """Runs once, unverified; see `simulator.run`."""
        from simulator.run import run

        return run(self, packet, world, engine, **options)

    def run_many(
        self, packets: Iterable[Any], world: World | None = None, engine: str = "python", **options: Any
    ) -> Outcomes:
        """Runs once on each of many inputs, in one world; see `simulator.run.run_many`."""
        from simulator.run import run_many

        return run_many(self, packets, world, engine, **options)

    def __call__(
        self,
        packet: Any = None,
        *,
        maps: Mapping[str, Any] | None = None,
        world: World | None = None,
        verify: bool | None = None,
        **options: Any,
    ) -> Result:
        """Runs once as tests want it: verified first (the verdict is kept), in a fresh world unless one is given.

        `maps` sets entries of its maps before the run: map's name -> mapping of keys to values, or list of an array's
        values. `verify=False` skips the verifier. Of the options, `engine` (also "all") and `kernel` take the place of
        what `simulator.using` has set, `context` and `fuel` are those of `run`.

        Raises RefusedError where the program is refused, FaultError for what a verified program does not do,
        EnginesDifferError, and what `run` raises.
        """
        from simulator.calling import call

        return call(self, packet, maps=maps, world=world, verify=verify, **options)


@dataclass(frozen=True, repr=False)
class Object(Mapping[str, Program]):
    """The programs and maps of one object file; indexed by program name or by section.

    `notes` say what the loader took for granted.
    """

    path: str
    programs: Mapping[str, Program]
    maps: Mapping[str, MapDef]
    btf: Btf | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for program in self.programs.values():
            object.__setattr__(program, "siblings", self.programs)
            object.__setattr__(program, "origin", self.path)

    def __getitem__(self, name: str) -> Program:
        if name in self.programs:
            return self.programs[name]
        in_section = [program for program in self.programs.values() if program.section == name]
        if len(in_section) == 1:
            return in_section[0]
        known = ", ".join(self.programs) or "no program at all"
        if in_section:
            several = ", ".join(program.name for program in in_section)
            raise KeyError(f"section {name!r} of {self.path} has several programs: name one of {several}")
        raise KeyError(f"no program or section {name!r} in {self.path}; it has {known}")

    def __repr__(self) -> str:
        return f"<object {self.path}: programs {', '.join(self.programs) or 'none'}>"

    @cached_property
    def types(self) -> Types:
        """Its structs as classes: `obj.types.flow_key(dport=80)`."""
        from simulator.structs import Types

        return Types(self.path, self.btf)

    def __iter__(self) -> Iterator[str]:
        return iter(self.programs)

    def __len__(self) -> int:
        return len(self.programs)
