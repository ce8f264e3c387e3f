"""`defmap`: a map, its sizes, and the types of its keys and values."""

from __future__ import annotations

from bpflisp.diagnostics import warning
from bpflisp.front import hints
from bpflisp.front.declare import (
    defined_name,
    number_option,
    options_of,
    refuse_duplicate,
    type_option,
)
from bpflisp.front.types import (
    Number,
    Struct,
)
from bpflisp.front.unit import MapDecl, Unit
from bpflisp.spec import map_create, maps
from bpflisp.syntax.evaluator import Scope
from bpflisp.syntax.forms import (
    Cons,
    FormError,
    Symbol,
    cells,
    element_span,
    elements,
    fail,
    text,
)

_MAP_OPTIONS = (
    ":TYPE", ":KEY-SIZE", ":VALUE-SIZE", ":KEY-TYPE", ":VALUE-TYPE", ":MAX-ENTRIES", ":MAP-FLAGS",
    ":PINNING", ":PROGRAMS",
)  # fmt: skip
_SIZELESS = ("ringbuf", "user_ringbuf")
_ENTRYLESS = ("cgroup_storage", "percpu_cgroup_storage")
NOT_BUILT = ("array_of_maps", "hash_of_maps", "struct_ops", "arena")
_KEYLESS = ("queue", "stack", "bloom_filter")


def define_map(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defmap name :type T :key-size N :value-size N :key-type T :value-type T :max-entries N :map-flags N)`."""
    name, span, plist = defined_name(form, "map")
    options = options_of(form, plist, _MAP_OPTIONS)
    refuse_duplicate(unit, name, span, "map")
    kind = _map_type(form, options)

    def number(option: str) -> int:
        return number_option(unit, form, options, option, scope)

    key_type, value_type = (type_option(unit, options, option) for option in (":KEY-TYPE", ":VALUE-TYPE"))
    key_size, value_size = number(":KEY-SIZE"), number(":VALUE-SIZE")
    key_size = _sized(form, "key", key_size, key_type, options)
    value_size = _sized(form, "value", value_size, value_type, options)
    entries = number(":MAX-ENTRIES")
    flags = number(":MAP-FLAGS")
    decl = MapDecl(name.name, kind, key_size, value_size, key_type, value_type, entries, flags, span)
    decl.pinned = _pinned(form, options)
    decl.written_programs = options.get(":PROGRAMS")
    if decl.written_programs is not None and kind != "prog_array":
        problem = f"a map of type `{kind}` holds no programs"
        raise fail("bad-option", problem, element_span(decl.written_programs) or span)
    _check_sizes(unit, decl, form)
    unit.maps[name.name] = decl
    return name


def _pinned(form: Cons, options: dict[str, Cons]) -> bool:
    """`:pinning :by-name` has loaders keep the map under its name in the BPF file system, and take it from there."""
    if ":PINNING" not in options:
        return False
    cell = options[":PINNING"]
    name = cell.car.name if isinstance(cell.car, Symbol) else ""
    if name not in (":BY-NAME", ":NONE", "NIL"):
        raise fail("bad-option", f"`{text(cell.car)}` is no way of pinning", element_span(cell) or form.span,
                   help="`:by-name`, or `:none`")  # fmt: skip
    return name == ":BY-NAME"


def settle_programs(unit: Unit) -> None:
    """Look up the programs that prog-arrays hold from the start, once all are known: `:programs (first (5 second))`."""
    for decl in unit.maps.values():
        try:
            _settle_programs(unit, decl)
        except FormError as problem:
            unit.found.add(problem.diagnostic)


def _settle_programs(unit: Unit, decl: MapDecl) -> None:
    cell = decl.written_programs
    index = 0
    for entry in cells(cell.car) if cell is not None else ():
        name = entry.car
        if isinstance(name, Cons):
            parts = elements(name)
            if len(parts) != 2 or not isinstance(parts[0], int):
                help = "a program's name, or (index name)"
                raise fail("bad-option", f"`{text(name)}` is no entry", element_span(entry), help=help)
            index, name = parts[0], parts[1]
        program = unit.programs.get(name.name) if isinstance(name, Symbol) else None
        if program is None:
            raise fail("unknown-program", f"no program is named `{text(name)}`", element_span(entry))
        if not 0 <= index < decl.max_entries or index in decl.programs:
            problem = f"`{decl.name.lower()}` has no free entry {index}"
            raise fail("bad-option", problem, element_span(entry), because=f"it has {decl.max_entries} entries")
        decl.programs[index] = program.symbol
        index += 1


def _map_type(form: Cons, options: dict[str, Cons]) -> str:
    if ":TYPE" not in options:
        raise fail("missing-option", "`defmap` needs the option `:type`", form.span)
    cell = options[":TYPE"]
    kind = cell.car
    name = kind.name[1:].lower().replace("-", "_") if isinstance(kind, Symbol) and kind.is_keyword else ""
    known = maps.by_name(name)
    if name in NOT_BUILT:
        problem = f"a map of type `{text(kind)}` is not built yet"
        raise fail("not-built", problem, element_span(cell) or form.span)
    if known is None:
        bare = maps.by_name(kind.name.lower().replace("-", "_")) if isinstance(kind, Symbol) else None
        if bare is not None:
            problem = f"a type of map is written with a colon: `:{text(kind)}`"
            raise fail("unknown-map-type", problem, element_span(cell) or form.span)
        names = [f":{kind.name.replace('_', '-')}" for kind in maps.all_map_types()]
        near = hints.nearest(f":{kind if isinstance(kind, str) else text(kind).removeprefix(':')}", names)
        problem, place = f"`{text(kind)}` is no type of map", element_span(cell) or form.span
        raise fail("unknown-map-type", problem, place, help=near or "known are " + " ".join(names))
    return known.name


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
    _check_creation(unit, decl)
    if decl.is_array and decl.key_size != 4:
        problem = f"the key of an array has 4 bytes, not {decl.key_size}"
        raise fail("size-mismatch", problem, form.span, because="the kernel refuses to create any other")


def _check_creation(unit: Unit, decl: MapDecl) -> None:
    """Warn of a map that the kernel refuses to create, with the kernel's rule."""
    if decl.type not in map_create.RULES or (not decl.max_entries and map_create.RULES[decl.type].entries != "none"):
        return
    sizes = decl.key_size, decl.value_size, decl.max_entries
    problem = map_create.check_create(decl.type, *sizes, decl.flags, has_btf=True)
    if problem is not None and not (decl.is_array and decl.key_size != 4):
        told = f"the kernel refuses to create the map `{decl.name.lower()}`"
        unit.found.add(warning("map-refused", told, decl.span, because=problem.reason))
