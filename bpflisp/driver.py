"""The pipeline: from a source's text to an object's bytes, stage by stage.

    read_unit -> check -> lower -> optimise -> compile -> link

Each stage is a function from a value to a value. What is wrong with the source is collected, and told at once.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bpflisp import link
from bpflisp.back.compile import compile_function
from bpflisp.back.machine import BackError, Code, MFunction
from bpflisp.diagnostics import Diagnostic, Diagnostics, Source, Span, error
from bpflisp.front.check import check_program
from bpflisp.front.check_objects import check_hidden, check_uncalled
from bpflisp.front.lower import lower, lower_subprogram
from bpflisp.front.objects import GlobalDecl, SubprogramDecl
from bpflisp.front.read import read_unit
from bpflisp.front.tree import Local
from bpflisp.front.types import Number, Pointer, Region, align_of, c_name, to_btf
from bpflisp.front.unit import MapDecl, ProgramDecl, Unit
from bpflisp.ir.ssa import Function, Position
from bpflisp.lean import dataclass, field
from bpflisp.opt import run as optimise
from bpflisp.spec import btf_build as btf
from bpflisp.spec import maps
from bpflisp.spec.context_btf import context_type

TEXT = ".text"
"""Where subprograms lie."""

RECURSION = 20_000
"""How deeply Python may recurse while compiling: forms nest up to 300 deep, and macros recurse."""


Observer = Callable[[str, Function | MFunction], None]
"""Called with a stage's name (`lower`, a pass of `opt`, a stage of `back`) and the function as it leaves it."""


@dataclass(frozen=True, slots=True)
class Choices:
    """How to compile: for which instructions, how well, without which passes, and who watches."""

    mcpu: str = "v3"
    opt: int = 2
    without: Collection[str] = ()
    after: Observer | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of a source: the object's bytes, slots by program, its maps, and warnings."""

    elf: bytes
    programs: Mapping[str, CompiledProgram]
    maps: Sequence[str]
    warnings: Sequence[Diagnostic] = field(default=())


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """One program: its section and its length in slots."""

    section: str
    slots: int


def compile_source(
    source: Source,
    *,
    mcpu: str = "v3",
    opt: int = 2,
    arch: str = "x86_64",
    without: Collection[str] = (),
    after: Observer | None = None,
) -> Compiled:
    """Compile a source. Raises CompileError with all that is wrong, ValueError for an unknown `mcpu`.

    `arch` (x86_64 or arm64) is whose registers `pt-regs-...` means. `without` names passes to leave out; `after` sees
    what every stage leaves of every function.
    """
    found = Diagnostics()
    with _deep_recursion():
        try:
            choices = Choices(mcpu, opt, without, after)
            return _compile(read_unit(source, found, arch), source, found, choices)
        except RecursionError:
            found.add(error("too-deep", "forms are nested too deeply here", where=source.name))
            found.raise_errors()
            raise


def _compile(unit: Unit, source: Source, found: Diagnostics, choices: Choices) -> Compiled:
    trees = {program.name: check_program(unit, program) for program in unit.programs.values()}
    if not unit.programs and not found.errors:
        help = "(defprog name (:type :xdp) ...)"
        found.add(error("no-program", "the source defines no program", where=source.name, help=help))
    found.raise_errors()
    check_hidden(unit)
    check_uncalled(unit)
    found.raise_errors()
    functions = [lower(unit.programs[name].symbol, tree, unit.programs[name].span) for name, tree in trees.items()]
    subprograms = [decl for decl in unit.subprograms.values() if decl.tree is not None]
    functions += [lower_subprogram(d.symbol, d.locals, d.tree, d.span) for d in subprograms if d.tree is not None]
    codes = [_code(function, unit, found, choices) for function in functions]
    found.raise_errors()
    linked = _object(unit, [code for code in codes if code is not None])
    programs = {
        function.name: CompiledProgram(function.section, _slots(function))
        for function in linked.functions
        if function.section != TEXT
    }
    return Compiled(link.link(linked), programs, [entry.name for entry in linked.maps], tuple(found.warnings))


def _code(function: Function, unit: Unit, found: Diagnostics, choices: Choices) -> Code | None:
    """Machine code; what the target cannot hold is an error at its place in the source."""
    if choices.after:
        choices.after("lower", function)
    try:
        optimise(function, choices.opt, choices.without, after=choices.after)
        return compile_function(function, choices.mcpu, choices.opt, choices.without, choices.after)
    except BackError as problem:
        span = _span(unit, problem.position)
        found.add(error("target-limit", str(problem), span, where=function.name, because=problem.because))
        return None


def _span(unit: Unit, position: Position | None) -> Span | None:
    """The word at a position, as far as it is one of the source."""
    source = unit.sources.get(position.file) if position is not None else None
    if position is None or source is None:
        return None
    start = source.offset(position.line, position.column)
    word = re.compile(r"[^\s()]+|.?").match(source.text, start)
    return Span(source, start, word.end() if word else start + 1)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Python's limits for a compilation: deep recursion, and no search for cyclic garbage, of which it makes little and
    which took a tenth of the time."""
    before, collecting = sys.getrecursionlimit(), gc.isenabled()
    sys.setrecursionlimit(max(before, RECURSION))
    gc.disable()
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
        if collecting:
            gc.enable()


# What the linker is given


def _text(unit: Unit, position: Position) -> str:
    source = unit.sources.get(position.file)
    return source.line(position.line) if source else ""


def _object(unit: Unit, codes: Sequence[Code]) -> link.LinkObject:
    programs = {program.symbol: program for program in unit.programs.values()}
    subprograms = {decl.symbol: decl for decl in unit.subprograms.values()}
    functions = [_program(programs[code.name], code, unit) for code in codes if code.name in programs]
    functions += [_subprogram(subprograms[code.name], code, unit) for code in codes if code.name in subprograms]
    return link.LinkObject(
        functions=functions,
        maps=[_map(decl) for decl in unit.maps.values()],
        globals=[
            *(_global(decl) for decl in unit.globals.values()),
            *(_string(name, content) for content, name in unit.strings.items()),
        ],
        types=[to_btf(struct) for struct in unit.structs.values()],
        license=unit.license,
    )


def _slots(function: link.LinkFunction) -> int:
    return sum(insn.slots for insn in function.insns if insn is not None)


def _program(program: ProgramDecl, code: Code, unit: Unit) -> link.LinkFunction:
    context = _context(program.prog_type, unit)
    return _function(code, unit, program.section, btf.Signature(btf.INT, [("ctx", context)]), True)


def _subprogram(decl: SubprogramDecl, code: Code, unit: Unit) -> link.LinkFunction:
    params = [(c_name(local.name), _parameter(decl, local, unit)) for local in decl.locals]
    return _function(code, unit, TEXT, btf.Signature(btf.U64, params), decl.is_global)


def _parameter(decl: SubprogramDecl, local: Local, unit: Unit) -> btf.CType:
    kind = local.declared or local.type
    if not isinstance(kind, Pointer):
        return to_btf(kind) if isinstance(kind, Number) else btf.U64
    if kind.region is Region.CONTEXT:
        return _context(decl.context_of, unit)
    return btf.Pointer(to_btf(kind.struct)) if kind.struct else btf.Pointer(btf.Void())


def _context(prog_type: str, unit: Unit) -> btf.CType:
    return btf.Pointer(context_type(prog_type, unit.arch) or btf.Void())


def _function(code: Code, unit: Unit, section: str, signature: btf.Signature, is_global: bool) -> link.LinkFunction:
    return link.LinkFunction(
        name=code.name,
        section=section,
        insns=code.insns,
        signature=signature,
        is_global=is_global,
        relocations=[
            link.Relocation(each.at, link.RelocKind(each.kind), each.symbol, each.addend) for each in code.relocations
        ],
        lines=[
            link.Line(slot, position.file, position.line, position.column, _text(unit, position))
            for slot, position in code.lines
        ],
        core=[
            link.CoreAccess(each.at, each.access.kind, unit.core_types[each.access.type_name], each.access.access)
            for each in code.core
        ],
    )


def _map(decl: MapDecl) -> link.LinkMap:
    key = to_btf(decl.key_type) if decl.key_type else None
    if key is None and decl.type in maps.LOCAL_STORAGE:
        key = btf.INT  # The kernel creates these only where types are given, and a descriptor is an int.
    return link.LinkMap(
        name=decl.symbol,
        type=decl.type,
        key=key,
        value=to_btf(decl.value_type) if decl.value_type else None,
        key_size=decl.key_size,
        value_size=decl.value_size,
        max_entries=decl.max_entries,
        flags=decl.flags,
        pinning=int(decl.pinned),
        slots=decl.programs,
    )


def _global(decl: GlobalDecl) -> link.LinkGlobal:
    return link.LinkGlobal(
        decl.symbol, decl.section, to_btf(decl.type), decl.content, align=max(align_of(decl.type), 1)
    )


def _string(name: str, content: bytes) -> link.LinkGlobal:
    kind = btf.Array(btf.CHAR, len(content))
    return link.LinkGlobal(name, ".rodata", kind, content, align=1, is_global=False)


def read_source(path: str | Path) -> Source:
    """A file as a source. Raises OSError where it cannot be read, CompileError where it is no text."""
    data = Path(path).read_bytes()
    try:
        return Source(str(path), data.decode("utf-8"))
    except UnicodeDecodeError as problem:
        found = Diagnostics()
        because = f"byte {problem.start} is no UTF-8"
        found.add(error("not-text", "this is no text file", where=str(path), because=because))
        found.raise_errors()
        raise
