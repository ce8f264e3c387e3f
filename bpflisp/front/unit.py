"""A source file as declarations: what its top-level forms define, before any body is looked at.

Top-level forms are evaluated one after the other, as Common Lisp loads a file; `defmap`, `defstruct`, `defprog` and
their kin are special forms of that evaluation, so that macros and `progn` may produce them. Bodies are kept as forms
until the file is read: they may use what is defined after them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from bpflisp.diagnostics import Diagnostics, Source, Span, warning
from bpflisp.front.objects import MAX_PARAMETERS, GlobalDecl, SubprogramDecl
from bpflisp.front.types import (
    C_SPELLINGS,
    SCALARS,
    U64,
    ArrayOf,
    Number,
    Pointer,
    Region,
    Struct,
    Type,
    c_name,
    lay_out,
)
from bpflisp.spec import headers, maps, programs
from bpflisp.syntax.evaluator import Interpreter, Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    FormError,
    Symbol,
    cells,
    element_span,
    elements,
    fail,
    intern,
    span_of,
    symbol,
    text,
)
from bpflisp.syntax.reader import END, Reader


@dataclass(slots=True, eq=False)
class MapDecl:
    """A map. Sizes in bytes; `key_type` and `value_type` where they were given."""

    name: str
    type: str
    key_size: int
    value_size: int
    key_type: Number | Struct | None
    value_type: Number | Struct | None
    max_entries: int
    flags: int
    span: Span | None

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
    strings: dict[bytes, str] = field(default_factory=dict)
    source: Source | None = None
    arch: str = "x86_64"

    @property
    def license(self) -> str:
        """The licence of the programs, which is one."""
        return next((program.license for program in self.programs.values()), "GPL")

    def string(self, content: bytes) -> str:
        """The name of a constant string in the object's read-only data, kept once."""
        return self.strings.setdefault(content, f"str_{len(self.strings)}")


LATER = (
    "DEFTRACEPOINT", "IMPORT-KERNEL-STRUCT", "WITH-BPF-SESSION", "INCLUDE",
)  # fmt: skip
"""Top-level forms that are known, and not built yet."""


def read_unit(source: Source, found: Diagnostics, arch: str = "x86_64") -> Unit:
    """Read and evaluate a file; `arch` names the target's registers.

    What is wrong with it is in `found`; the unit holds what could be made of the rest.
    """
    interpreter = Interpreter()
    unit = Unit(interpreter, found, source=source, arch=arch)
    _define_constants(interpreter)
    _define_forms(unit)
    _load(unit, _prelude())
    _load(unit, source)
    return unit


def _load(unit: Unit, source: Source) -> None:
    reader = Reader(source, unit.interpreter.toplevel)
    while True:
        try:
            form = reader.read()
        except FormError as problem:
            unit.found.add(problem.diagnostic)
            reader.recover()
            continue
        if form is END:
            return
        try:
            unit.interpreter.toplevel(form)
        except FormError as problem:
            place = problem.diagnostic.span or span_of(form)
            unit.found.add(replace(problem.diagnostic, span=place))


@cache
def _prelude() -> Source:
    path = Path(__file__).parent.parent / "syntax" / "prelude.lisp"
    return Source("prelude.lisp", path.read_text(encoding="utf-8"))


@cache
def _constants() -> dict[Symbol, int]:
    """The names that mean a number without a definition."""
    plus = dict(headers.NAMED_CONSTANTS)
    plus |= {c_name(name).replace("_", "-"): value for name, value in headers.BUILTIN_CONSTANTS.items()}
    plus |= {f"bpf-map-type-{kind.name.replace('_', '-')}": kind.number for kind in maps.all_map_types()}
    plus |= {"bpf-f-no-prealloc": maps.F_NO_PREALLOC}
    constants = {symbol(f"+{name}+"): value for name, value in plus.items()}
    constants |= {symbol(name): value for name, value in headers.BUILTIN_CONSTANTS.items()}
    constants |= {symbol(name): value for name, value in headers.MORE_CONSTANTS.items()}
    flags = {f"BPF_{name}": value for name, value in vars(maps).items() if name.startswith("F_")}
    constants |= {symbol(name): value for name, value in flags.items()}
    return constants | {symbol("MOST-POSITIVE-FIXNUM"): (1 << 62) - 1, symbol("MOST-NEGATIVE-FIXNUM"): -(1 << 62)}


def _define_constants(interpreter: Interpreter) -> None:
    interpreter.variables.update(_constants())
    interpreter.constants.update(_constants())


# Top-level forms

Definer = Callable[[Unit, Cons, Scope], object]


def _define_forms(unit: Unit) -> None:
    definers: dict[str, Definer] = {
        "DEFMAP": define_map, "DEFPROG": define_program, "DEFSTRUCT": define_struct, "SIZEOF": _sizeof,
        "DEFUNION": define_union, "DEFHEADER": define_header,
        "DEFGLOBAL": define_global, "DEFSUBPROG": define_subprogram,
    }  # fmt: skip
    for name, definer in definers.items():
        unit.interpreter.special[intern(name)] = _bound(unit, definer)
    for name in LATER:
        unit.interpreter.special[intern(name)] = _not_built


def _bound(unit: Unit, definer: Definer) -> Callable[[Interpreter, Cons, Scope], object]:
    return lambda _, form, scope: definer(unit, form, scope)


def _not_built(_: Interpreter, form: Cons, __: Scope) -> object:
    raise fail("not-built", f"`{text(form.car)}` is not built yet", form.span)


def _name(form: Cons, what: str) -> tuple[Symbol, Span | None, object]:
    """The name after the head of a defining form, its place, and what follows it."""
    if not isinstance(form.cdr, Cons):
        raise fail("bad-definition", f"`{text(form.car)}` needs the name of a {what}", form.span)
    cell = form.cdr
    name = cell.car
    if not isinstance(name, Symbol) or name is NIL or name.is_keyword:
        raise fail("bad-name", f"a {what} needs a name, not `{text(name)}`", element_span(cell) or form.span)
    return name, element_span(cell) or form.span, cell.cdr


def _options(form: Cons, plist: object, known: tuple[str, ...]) -> dict[str, Cons]:
    """Keyword -> the cell of its value."""
    options: dict[str, Cons] = {}
    rest = plist
    while isinstance(rest, Cons):
        key = rest.car
        if not isinstance(key, Symbol) or not key.is_keyword:
            raise fail(
                "unknown-option", f"an option is expected here, not `{text(key)}`", element_span(rest) or form.span
            )
        if key.name not in known:
            raise fail(
                "unknown-option",
                f"`{text(form.car)}` has no option `{text(key)}`",
                element_span(rest) or form.span,
                help="it has " + " ".join(name.lower() for name in known),
            )
        if not isinstance(rest.cdr, Cons):
            raise fail("unknown-option", f"the option `{text(key)}` has no value", element_span(rest) or form.span)
        options[key.name] = rest.cdr
        rest = rest.cdr.cdr
    return options


def _defined_twice(unit: Unit, name: Symbol, span: Span | None, what: str) -> None:
    """Refuse a second object of one C name: they share the symbols of the object file."""
    others = [(decl.symbol, "map") for decl in unit.maps.values()]
    others += [(decl.symbol, "program") for decl in unit.programs.values()]
    others += [(decl.symbol, "global") for decl in unit.globals.values()]
    others += [(decl.symbol, "subprogram") for decl in unit.subprograms.values()]
    for other, kind in others:
        if other == c_name(name.name):
            raise fail("duplicate", f"a {kind} named `{text(name)}` exists already, and so cannot this {what}", span)


# defmap

_MAP_OPTIONS = (":TYPE", ":KEY-SIZE", ":VALUE-SIZE", ":KEY-TYPE", ":VALUE-TYPE", ":MAX-ENTRIES", ":MAP-FLAGS")
_SIZELESS = ("ringbuf", "user_ringbuf", "arena")
_ENTRYLESS = ("cgroup_storage", "percpu_cgroup_storage", "struct_ops")
_KEYLESS = ("queue", "stack", "bloom_filter")


def define_map(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defmap name :type T :key-size N :value-size N :key-type T :value-type T :max-entries N :map-flags N)`."""
    name, span, plist = _name(form, "map")
    options = _options(form, plist, _MAP_OPTIONS)
    _defined_twice(unit, name, span, "map")
    kind = _map_type(form, options)

    def number(option: str) -> int:
        return _number_option(unit, form, options, option, scope)

    key_type, value_type = (_type_option(unit, options, option) for option in (":KEY-TYPE", ":VALUE-TYPE"))
    key_size, value_size = number(":KEY-SIZE"), number(":VALUE-SIZE")
    key_size = _sized(form, "key", key_size, key_type, options)
    value_size = _sized(form, "value", value_size, value_type, options)
    entries = number(":MAX-ENTRIES")
    decl = MapDecl(name.name, kind, key_size, value_size, key_type, value_type, entries, number(":MAP-FLAGS"), span)
    _check_sizes(unit, decl, form)
    unit.maps[name.name] = decl
    return name


def _map_type(form: Cons, options: dict[str, Cons]) -> str:
    if ":TYPE" not in options:
        raise fail("missing-option", "`defmap` needs the option `:type`", form.span)
    cell = options[":TYPE"]
    kind = cell.car
    name = kind.name[1:].lower().replace("-", "_") if isinstance(kind, Symbol) and kind.is_keyword else ""
    known = maps.by_name(name)
    if known is None:
        raise fail(
            "unknown-map-type",
            f"`{text(kind)}` is no type of map",
            element_span(cell) or form.span,
            help="known are " + " ".join(f":{kind.name.replace('_', '-')}" for kind in maps.all_map_types()),
        )
    return known.name


def _number_option(unit: Unit, form: Cons, options: dict[str, Cons], option: str, scope: Scope) -> int:
    """The value of an option that is evaluated; 0 where it is not given."""
    if option not in options:
        return 0
    cell = options[option]
    value = unit.interpreter.value(cell.car, scope)
    if value is NIL:
        return 0
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        problem = f"`{option.lower()}` needs a number of at most 32 bits, not `{text(value)}`"
        raise fail("bad-option", problem, element_span(cell) or form.span)
    return value


def _type_option(unit: Unit, options: dict[str, Cons], option: str) -> Number | Struct | None:
    if option not in options:
        return None
    cell = options[option]
    kind = scalar_or_struct(unit, cell.car)
    if kind is None:
        raise fail(
            "unknown-type",
            f"`{text(cell.car)}` is neither a struct that was defined before nor a scalar type",
            element_span(cell),
            help=_spelling(cell.car),
        )
    return kind


def _sized(form: Cons, what: str, size: int, kind: Number | Struct | None, options: dict[str, Cons]) -> int:
    if kind is None:
        return size
    if size and size != kind.size:
        cell = options[f":{what.upper()}-SIZE"]
        problem = f"`:{what}-size` is {size}, but `:{what}-type` has {kind.size} bytes"
        raise fail("size-mismatch", problem, element_span(cell) or form.span)
    return kind.size


def _check_sizes(unit: Unit, decl: MapDecl, form: Cons) -> None:
    if decl.type in _SIZELESS:
        if decl.key_size or decl.value_size:
            problem = f"a map of type `{decl.type}` has neither key nor value size; they are passed over"
            unit.found.add(warning("needless-size", problem, decl.span))
            decl.key_size = decl.value_size = 0
            decl.key_type = decl.value_type = None
    else:
        for what, size in (("key", decl.key_size), ("value", decl.value_size)):
            if not size and not (what == "key" and decl.type in _KEYLESS):
                raise fail(
                    "missing-option",
                    f"the map `{decl.name.lower()}` has no {what} size",
                    form.span,
                    help=f"say `:{what}-size BYTES` or `:{what}-type TYPE`",
                )
    if not decl.max_entries and decl.type not in (*maps.LOCAL_STORAGE, *_ENTRYLESS):
        problem = f"the map `{decl.name.lower()}` has no entries"
        because = "the kernel refuses to create it"
        unit.found.add(warning("no-entries", problem, decl.span, because=because, help="say `:max-entries N`"))
    if decl.is_array and decl.key_size != 4:
        problem = f"the key of an array has 4 bytes, not {decl.key_size}"
        raise fail("size-mismatch", problem, form.span, because="the kernel refuses to create any other")


# defstruct

STRUCT_HELP = "a member is (name type) or (name (array type count)), a type u8 to u64, i8 to i64, or a struct"


def define_struct(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defstruct name (field type)...)`: a C layout, and accessors."""
    name, span, rest = _name(form, "struct")
    if name.name in SCALARS:
        raise fail("bad-name", f"`{text(name)}` is a scalar type, and cannot be a struct", span)
    members: list[tuple[str, Number | ArrayOf | Struct]] = []
    for cell in cells(rest):
        member, kind = _member(unit, cell, scope)
        if member in [known for known, _ in members]:
            raise fail("duplicate", f"the struct has a member `{member.lower()}` already", element_span(cell))
        members.append((member, kind))
    add_struct(unit, lay_out(name.name, members))
    return name


def add_struct(unit: Unit, struct: Struct) -> None:
    """Make a struct's name, maker and accessors known."""
    unit.structs[struct.name] = struct
    unit.makers[f"MAKE-{struct.name}"] = struct
    for member in struct.fields:
        unit.accessors[f"{struct.name}-{member}"] = Accessor(struct, member, "get")
        unit.accessors[f"{struct.name}-{member}-PTR"] = Accessor(struct, member, "pointer")
        unit.accessors[f"SET-{struct.name}-{member}!"] = Accessor(struct, member, "set")


def define_union(unit: Unit, form: Cons, _: Scope) -> object:
    """`(defunion name struct...)`: as large as the largest; its members are reached through their own accessors."""
    name, _span, rest = _name(form, "union")
    members: list[tuple[str, Number | ArrayOf | Struct]] = []
    for cell in cells(rest):
        struct = unit.structs.get(cell.car.name) if isinstance(cell.car, Symbol) else None
        if struct is None:
            raise fail("unknown-type", f"no struct named `{text(cell.car)}` was defined before", element_span(cell))
        members.append((struct.name, struct))
    if not members:
        raise fail("bad-definition", f"the union `{text(name)}` has no members", form.span)
    add_struct(unit, lay_out(name.name, members, union=True))
    return name


def define_header(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defheader name (field :offset N :type T [:net-order BOOL])...)`: accessors, which are places too."""
    name, _span, rest = _name(form, "header")
    for cell in cells(rest):
        if not isinstance(cell.car, Cons) or not isinstance(cell.car.car, Symbol):
            help = "(field :offset N :type T [:net-order t])"
            raise fail("bad-member", f"`{text(cell.car)}` is no field of a header", element_span(cell), help=help)
        options = _options(form, cell.car.cdr, (":OFFSET", ":TYPE", ":NET-ORDER"))
        if ":OFFSET" not in options or ":TYPE" not in options:
            raise fail("missing-option", f"`{text(cell.car)}` needs `:offset` and `:type`", element_span(cell))
        kind = _type_option(unit, options, ":TYPE")
        if not isinstance(kind, Number):
            raise fail("unknown-type", "a field of a header is a scalar", element_span(options[":TYPE"]))
        swap = ":NET-ORDER" in options and unit.interpreter.value(options[":NET-ORDER"].car, scope) is not NIL
        offset = _number_option(unit, form, options, ":OFFSET", scope)
        accessor = HeaderAccessor(offset, kind, swap and kind.bits in (16, 32))
        unit.headers[f"{name.name}-{cell.car.car.name}"] = accessor
    return name


def _member(unit: Unit, cell: Cons, scope: Scope) -> tuple[str, Number | ArrayOf | Struct]:
    parts = elements(cell.car) if isinstance(cell.car, Cons) else []
    if len(parts) != 2 or not isinstance(parts[0], Symbol) or parts[0] is NIL:
        raise fail("bad-member", f"`{text(cell.car)}` is no member of a struct", element_span(cell), help=STRUCT_HELP)
    assert isinstance(cell.car, Cons)
    assert isinstance(cell.car.cdr, Cons)
    return parts[0].name, member_type(unit, cell.car.cdr, scope)


def member_type(unit: Unit, cell: Cons, scope: Scope) -> Number | ArrayOf | Struct:
    """The type of a member, from the cell that it is written in."""
    form = cell.car
    if isinstance(form, Cons) and form.car is intern("ARRAY"):
        parts = elements(form)
        element = scalar_or_struct(unit, parts[1]) if len(parts) == 3 else None
        count = unit.interpreter.value(parts[2], scope) if len(parts) == 3 else None
        if element is None or not isinstance(count, int) or not 0 < count < 1 << 20:
            raise fail("unknown-type", f"`{text(form)}` is no array type", element_span(cell), help=STRUCT_HELP)
        return ArrayOf(element, count)
    kind = scalar_or_struct(unit, form)
    if kind is None:
        help = _spelling(form) or STRUCT_HELP
        raise fail("unknown-type", f"`{text(form)}` is no type of a struct's member", element_span(cell), help=help)
    return kind


def scalar_or_struct(unit: Unit, form: object) -> Number | Struct | None:
    """The type that a name means."""
    if not isinstance(form, Symbol):
        return None
    return SCALARS.get(form.name) or unit.structs.get(form.name)


def _spelling(form: object) -> str:
    """A hint where a type is spelt as another language does."""
    known = C_SPELLINGS.get(form.name.replace("-", "_")) if isinstance(form, Symbol) else None
    return f"`{text(form)}` is written `{known}` here" if known else ""


def _sizeof(unit: Unit, form: Cons, _: Scope) -> object:
    rest = elements(form.cdr)
    kind = scalar_or_struct(unit, rest[0]) if len(rest) == 1 else None
    if kind is None:
        raise fail("unknown-type", f"`{text(form)}`: no struct of that name was defined before", form.span)
    return kind.size


# defglobal, defsubprog


def define_global(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defglobal name TYPE [value] [:constant t])`: a number, an array or a struct; zero where no value is given."""
    name, span, rest = _name(form, "global")
    _defined_twice(unit, name, span, "global")
    if not isinstance(rest, Cons):
        raise fail("bad-definition", f"the global `{text(name)}` has no type", span, help="(defglobal name u64 0)")
    kind = member_type(unit, rest, scope)
    value: object = NIL
    value_cell, plist = rest, rest.cdr
    if isinstance(plist, Cons) and not (isinstance(plist.car, Symbol) and plist.car.is_keyword):
        value_cell, plist = plist, plist.cdr
        value = unit.interpreter.value(value_cell.car, scope)
    options = _options(form, plist, (":CONSTANT",))
    constant = ":CONSTANT" in options and unit.interpreter.value(options[":CONSTANT"].car, scope) is not NIL
    content = _content(kind, value, element_span(value_cell) or form.span)
    unit.globals[name.name] = GlobalDecl(name.name, kind, content, constant, span)
    return name


def _content(kind: Number | ArrayOf | Struct, value: object, span: Span | None) -> bytes:
    """The bytes of an initial value."""
    if value is NIL:
        return bytes(kind.size)
    if isinstance(kind, Number) and isinstance(value, int) and kind.holds(value):
        return (value & ((1 << kind.bits) - 1)).to_bytes(kind.size, "little")
    if isinstance(kind, ArrayOf):
        data = value.encode() + b"\0" if isinstance(value, str) and kind.element.size == 1 else b""
        items = value if isinstance(value, list) else elements(value) if isinstance(value, Cons) else []
        data = data or b"".join(_content(kind.element, item, span) for item in items)
        if data and len(data) <= kind.size:
            return data.ljust(kind.size, b"\0")
    raise fail("bad-value", f"`{text(value, 60)}` is no value of this type, or does not fit into it", span)


def define_subprogram(unit: Unit, form: Cons, _: Scope) -> object:
    """`(defsubprog name (param...) body...)`; a parameter is a name, `(name TYPE)`, `(name ptr)`, `(name (ptr STRUCT))`
    or `(name ctx)`. `(declare (global))` at the head of the body has the kernel verify it on its own."""
    name, span, rest = _name(form, "subprogram")
    _defined_twice(unit, name, span, "subprogram")
    if not isinstance(rest, Cons) or not (isinstance(rest.car, Cons) or rest.car is NIL):
        help = "(defsubprog name (parameter...) body...)"
        raise fail("bad-definition", f"the subprogram `{text(name)}` has no list of parameters", span, help=help)
    params = [_parameter(unit, cell) for cell in cells(rest.car)]
    if len(params) > MAX_PARAMETERS:
        raise fail("argument-count", f"a subprogram takes at most {MAX_PARAMETERS} arguments, not {len(params)}", span)
    body = rest.cdr
    is_global = isinstance(body, Cons) and text(body.car) == "(declare (global))"
    if is_global and isinstance(body, Cons):
        body = body.cdr
    unit.subprograms[name.name] = SubprogramDecl(name.name, params, body, is_global, span)
    return name


def _parameter(unit: Unit, cell: Cons) -> tuple[object, Type, Span | None]:
    parts = elements(cell.car) if isinstance(cell.car, Cons) else [cell.car]
    kind = _parameter_type(unit, parts[1]) if len(parts) == 2 else U64 if len(parts) == 1 else None
    if kind is None or not isinstance(parts[0], Symbol) or parts[0] is NIL:
        help = "a parameter is name, (name TYPE), (name ptr), (name (ptr STRUCT)) or (name ctx)"
        raise fail(
            "bad-parameter", f"`{text(cell.car)}` is no parameter of a subprogram", element_span(cell), help=help
        )
    return parts[0], kind, element_span(cell)


def _parameter_type(unit: Unit, form: object) -> Type | None:
    if isinstance(form, Symbol):
        if form.name == "CTX":
            return Pointer(Region.CONTEXT)
        return Pointer(Region.OTHER) if form.name == "PTR" else SCALARS.get(form.name)
    if isinstance(form, Cons) and form.car is intern("PTR"):
        target = elements(form)[1:]
        struct = unit.structs.get(target[0].name) if len(target) == 1 and isinstance(target[0], Symbol) else None
        return Pointer(Region.OTHER, struct, size=struct.size) if struct else None
    return None


# defprog

TYPE_ALIASES = {
    "tc": "sched_cls", "classifier": "sched_cls", "action": "sched_act", "sockops": "sock_ops", "fentry": "tracing",
    "fexit": "tracing", "raw_tp": "raw_tracepoint", "uprobe": "kprobe", "kretprobe": "kprobe", "uretprobe": "kprobe",
    "struct_ops": "struct_ops",
}  # fmt: skip
"""Names of program types that are not the kernel's: those of sections, as the book uses them."""


def define_program(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defprog name (:type T :section S :license L) body...)`."""
    name, span, rest = _name(form, "program")
    if not isinstance(rest, Cons) or not (isinstance(rest.car, Cons) or rest.car is NIL):
        help = "(defprog name (:type :xdp) body...)"
        raise fail("bad-definition", f"the program `{text(name)}` has no list of options", span, help=help)
    options = _options(form, rest.car, (":TYPE", ":SECTION", ":LICENSE"))
    _defined_twice(unit, name, span, "program")
    keyword, prog_type = _program_type(form, options)
    section = _text_option(unit, form, options, ":SECTION", scope)
    license = _text_option(unit, form, options, ":LICENSE", scope)
    decl = ProgramDecl(
        name.name, prog_type, "", section or keyword, "GPL" if license is None else license, rest.cdr, span
    )
    _settle_section(unit, decl, form, options)
    others = {program.license for program in unit.programs.values()} - {decl.license}
    unit.programs[name.name] = decl
    if others:
        raise fail(
            "license-conflict",
            f"the licence of `{text(name)}` is {decl.license!r}, of a program before it {others.pop()!r}",
            element_span(options[":LICENSE"]) if ":LICENSE" in options else span,
            because="an object has one licence",
        )
    return name


def _program_type(form: Cons, options: dict[str, Cons]) -> tuple[str, str]:
    """The keyword in lower case, and the kernel's name of the type."""
    cell = options.get(":TYPE")
    if cell is None:
        return "xdp", "xdp"
    keyword = cell.car
    if isinstance(keyword, Symbol) and keyword.is_keyword:
        name = keyword.name[1:].lower()
        kind = programs.by_name(TYPE_ALIASES.get(name.replace("-", "_"), name.replace("-", "_")))
        if kind is not None:
            return name, kind.name
    raise fail(
        "unknown-program-type",
        f"`{text(keyword)}` is no program type",
        element_span(cell) or form.span,
        help="known are " + " ".join(f":{kind.name.replace('_', '-')}" for kind in programs.all_program_types()),
    )


def _text_option(unit: Unit, form: Cons, options: dict[str, Cons], option: str, scope: Scope) -> str | None:
    if option not in options:
        return None
    cell = options[option]
    value = unit.interpreter.value(cell.car, scope)
    if value is NIL:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise fail(
            "bad-option", f"`{option.lower()}` needs a string, not `{text(value)}`", element_span(cell) or form.span
        )
    return value


def _settle_section(unit: Unit, decl: ProgramDecl, form: Cons, options: dict[str, Cons]) -> None:
    """Take from the section what it says of the program; warn where libbpf will not know it."""
    span = element_span(options[":SECTION"]) if ":SECTION" in options else decl.span
    meant = programs.section(decl.section)
    if meant is not None:
        if meant.prog_type != decl.prog_type and ":TYPE" in options:
            unit.found.add(
                warning(
                    "section-type",
                    f"the section {decl.section!r} holds programs of type `{meant.prog_type}`, not `{decl.prog_type}`",
                    span,
                    because="a loader goes by the section; so do the context and the helpers here",
                )
            )
        decl.prog_type, decl.attach_type = meant.prog_type, meant.attach_type
    if meant is None or not meant.libbpf:
        known = _known_section(decl)
        unit.found.add(
            warning(
                "unknown-section",
                f"libbpf does not know the section {decl.section!r}",
                span,
                help=f'it knows `:section "{known}"` for this type of program' if known else "",
            )
        )


def _known_section(decl: ProgramDecl) -> str | None:
    """A section that libbpf knows for the program: what stands before the slash if that is one, else by its type."""
    head = decl.section.split("/")[0]
    if programs.libbpf_section(head) is not None:
        return head
    return programs.libbpf_name(decl.prog_type, decl.attach_type)
