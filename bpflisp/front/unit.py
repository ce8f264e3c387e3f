"""What a source file defines, as values: maps, structs, programs; before any body is looked at."""

from __future__ import annotations

from bpflisp.diagnostics import Diagnostics, Source, Span
from bpflisp.front.objects import GlobalDecl, SubprogramDecl
from bpflisp.front.types import (
    Number,
    Struct,
    c_name,
)
from bpflisp.lean import dataclass, field
from bpflisp.spec import btf_build, maps
from bpflisp.syntax.evaluator import Interpreter
from bpflisp.syntax.forms import Cons


@dataclass(slots=True, eq=False)
class MapDecl:
    """A map. Sizes in bytes; `key_type` and `value_type` where they were given. `programs` are a prog-array's first
    entries, index -> symbol, as the cell `written_programs` names them."""

    name: str
    type: str
    key_size: int
    value_size: int
    key_type: Number | Struct | None
    value_type: Number | Struct | None
    max_entries: int
    flags: int
    span: Span | None
    pinned: bool = False
    written_programs: Cons | None = None
    programs: dict[int, str] = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        """Its C name."""
        return c_name(self.name)

    @property
    def scalar(self) -> Number | None:
        """The type of its values where they are numbers: declared so, or of a number's size."""
        if isinstance(self.value_type, Number):
            return self.value_type
        return Number(self.value_size * 8) if self.value_type is None and self.value_size in (1, 2, 4, 8) else None

    @property
    def per_cpu(self) -> bool:
        """Whether each CPU has values of its own."""
        return self.type in maps.PERCPU

    @property
    def is_array(self) -> bool:
        """Whether its keys are indices, all of which exist."""
        return self.type in ("array", "percpu_array")


@dataclass(slots=True, eq=False)
class ProgramDecl:
    """A program: what `defprog` says of it, and what its section says."""

    name: str
    prog_type: str
    attach_type: str
    section: str
    license: str
    body: object
    span: Span | None

    @property
    def symbol(self) -> str:
        """Its C name."""
        return c_name(self.name)


@dataclass(slots=True, eq=False)
class Accessor:
    """A name that reads or addresses a struct's member: `event-pid`, `event-comm-ptr`, `set-event-pid!`."""

    struct: Struct
    member: str
    kind: str  # "get", "pointer" or "set"


@dataclass(frozen=True, slots=True)
class HeaderAccessor:
    """A field that `defheader` names: `swapped` where it is kept in network order."""

    offset: int
    type: Number
    swapped: bool


@dataclass(slots=True, eq=False)
class Unit:
    """All that a file defines; names in upper case, as symbols have them."""

    interpreter: Interpreter
    found: Diagnostics
    maps: dict[str, MapDecl] = field(default_factory=dict)
    structs: dict[str, Struct] = field(default_factory=dict)
    programs: dict[str, ProgramDecl] = field(default_factory=dict)
    accessors: dict[str, Accessor] = field(default_factory=dict)
    makers: dict[str, Struct] = field(default_factory=dict)
    headers: dict[str, HeaderAccessor] = field(default_factory=dict)
    globals: dict[str, GlobalDecl] = field(default_factory=dict)
    subprograms: dict[str, SubprogramDecl] = field(default_factory=dict)
    core_types: dict[str, btf_build.Struct] = field(default_factory=dict)
    strings: dict[bytes, str] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    loading: list[Source] = field(default_factory=list)
    enums: set[str] = field(default_factory=set)
    host_functions: set[str] = field(default_factory=set)
    place: Span | None = None
    complete: bool = False
    arch: str = "x86_64"
    broken: set[str] = field(default_factory=set)

    def is_broken(self, name: str) -> bool:
        """Whether a name comes of a definition that has an error: that it is not there is then no further error."""
        bare = name.removeprefix("MAKE-").removeprefix("SET-")
        return any(bare == each or bare.startswith(f"{each}-") for each in self.broken)

    @property
    def license(self) -> str:
        """The licence of the programs, which is one."""
        return next((program.license for program in self.programs.values()), "GPL")

    def string(self, content: bytes) -> str:
        """The name of a constant string in the object's read-only data, kept once."""
        return self.strings.setdefault(content, f"str_{len(self.strings)}")
