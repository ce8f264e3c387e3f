"""The context: fields by name, parts by type and offset, the packet's bounds, a kprobe's registers."""

from __future__ import annotations

from bpflisp.front import tree
from bpflisp.front.check import Checker, core, library
from bpflisp.front.check_places import Place, place
from bpflisp.front.tree import Tree
from bpflisp.front.types import SCALARS, U64, Number, Pointer, Region, Type, c_name
from bpflisp.front.unit import ProgramDecl
from bpflisp.lean import dataclass, replace
from bpflisp.spec import contexts, programs
from bpflisp.spec.contexts import Access, Field, Struct
from bpflisp.syntax.forms import Cons, Symbol, element_span, fail, intern, text


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the context: offset and size in bytes, whether it is a signed number."""

    off: int
    size: int
    signed: bool
    shown: str


_REGIONS = {
    "pkt": Region.PACKET, "pkt_meta": Region.PACKET, "pkt_end": Region.PACKET_END, "flow_keys": Region.KERNEL,
    "sock": Region.KERNEL, "sock_or_null": Region.KERNEL, "sock_common_or_null": Region.KERNEL,
    "tp_buffer": Region.KERNEL, "trusted_ptr": Region.KERNEL,
}  # fmt: skip


def _struct(checker: Checker) -> contexts.Struct | None:
    program = checker.program
    if program.prog_type == "kprobe":
        return _registers(checker.unit.arch)
    return contexts.context_struct(program.prog_type) or _words(program)


def _registers(arch: str) -> contexts.Struct:
    """`pt_regs` of the target; arm64's first 31 registers are one array."""
    found = contexts.pt_regs(arch)
    numbered = [field for field in found.fields if field.name.startswith("regs[")]
    if not numbered:
        return found
    array = Field("regs", numbered[0].offset, 8 * len(numbered), f"__u64[{len(numbered)}]")
    return replace(found, fields=(array, *found.fields[len(numbered) :]))


_ARGUMENTS = Struct("the arguments of the call", 96, [Field("args", 0, 96, "__u64[12]")])
_SAMPLE = Struct("the sample", 4, [Field("sample", 0, 4, "__u32")])
_ENTER = Struct("trace_event_raw_sys_enter", 64, [Field("id", 8, 8, "long"), Field("args", 16, 48, "__u64[6]")])
_LEAVE = Struct("trace_event_raw_sys_exit", 24, [Field("id", 8, 8, "long"), Field("ret", 16, 8, "long")])


def _words(program: ProgramDecl) -> contexts.Struct | None:
    """Contexts that the user API has no structure for: a function's arguments, each a word; what the tracepoints of
    system calls have, which is the same of all of them (include/trace/events/syscalls.h)."""
    kind = program.prog_type
    if kind in ("tracing", "lsm", "struct_ops") and program.attach_type != "trace_iter":
        return _ARGUMENTS
    if kind == "tracepoint":
        event = program.section.rpartition("/")[2]
        syscalls = "/syscalls/" in program.section
        return (
            _ENTER
            if syscalls and event.startswith("sys_enter")
            else (_LEAVE if syscalls and event.startswith("sys_exit") else None)
        )
    return _SAMPLE if kind == "lirc_mode2" else None


def _field(checker: Checker, cell: Cons) -> Field:
    """The field that a cell names."""
    struct = _struct(checker)
    kind = checker.program.prog_type
    if struct is None:
        problem = f"the context of a program of type `{kind}` has no named fields"
        raise fail("unknown-field", problem, element_span(cell), help="(ctx TYPE OFFSET) reads it")
    name = c_name(cell.car.name) if isinstance(cell.car, Symbol) else text(cell.car)
    found = struct.field(name)
    if found is None:
        known = " ".join(field.name.replace("_", "-") for field in struct.fields if field.name)
        problem = f"`{struct.name}`, the context of `{kind}`, has no field `{text(cell.car)}`"
        raise fail("unknown-field", problem, element_span(cell), help=f"it has {known}")
    return found


def _named(checker: Checker, args: list[Cons]) -> _Part:
    """A field, or with an index, one element of an array."""
    field = _field(checker, args[0])
    shown = field.name.replace("_", "-")
    signed = field.ctype.startswith(("int", "__s", "long", "s32", "s64"))
    is_array = field.element_size != field.size
    if is_array is not (len(args) == 2):
        problem = f"`{shown}` is no array, and takes no index"
        if is_array:
            problem = f"`{shown}` is an array of {field.size // field.element_size}, and needs an index"
        raise fail("array-index", problem)
    if field.bits:
        raise fail("not-built", f"the bit-field `{shown}` is not built yet")
    if not is_array:
        if field.size not in (1, 2, 4, 8):
            raise fail("unknown-field", f"`{shown}` is no number: it has {field.size} bytes")
        return _Part(field.offset, field.size, signed, shown)
    index, count = checker.constant(args[1], "the index of a context field"), field.size // field.element_size
    if not 0 <= index < count:
        raise fail("array-index", f"`{shown}` has {count} elements, and none with index {index}", element_span(args[1]))
    return _Part(field.offset + index * field.element_size, field.element_size, signed, f"{shown}[{index}]")


def _part(checker: Checker, form: Cons) -> _Part:
    """What `(ctx FIELD [INDEX])` or `(ctx TYPE OFFSET)` is about."""
    args = checker.args(form, 1, 2)
    name = args[0].car.name if isinstance(args[0].car, Symbol) else ""
    if name in SCALARS and len(args) == 2:
        kind = SCALARS[name]
        off = checker.constant(args[1], "an offset of the context")
        return _Part(off, kind.size, kind.signed, f"{kind.name} at {off}")
    return _named(checker, args)


def _accesses(checker: Checker, part: _Part, write: bool) -> tuple[Access | None, bool]:
    """What the access is, under the section's attach type or, where it says none, any; and whether a table says so."""
    program = checker.program
    if program.prog_type == "kprobe" and checker.unit.arch != "x86_64":
        return None, False  # The table is that of x86-64.
    attach_types = [program.attach_type]
    kind = programs.by_name(program.prog_type)
    if not program.attach_type and kind is not None:
        attach_types += kind.attach_types
    known = False
    for attach_type in attach_types:
        table = contexts.access_table(program.prog_type, attach_type)
        if table is None:
            continue
        known = True
        found = table.access(part.off, part.size, write)
        if found is not None:
            return found, True
    return None, known


def _refused(checker: Checker, part: _Part, write: bool) -> None:
    """The kernel allows no such access: say which it would."""
    kind = checker.program.prog_type
    if write:
        readable = _accesses(checker, part, False)[0]
        reason = "the kernel lets it be read only" if readable else "the kernel allows no such access"
        raise fail("read-only-field", f"`{part.shown}` of the context of `{kind}` cannot be written", because=reason)
    struct = _struct(checker)
    at = [f for f in struct.fields if f.offset <= part.off < f.offset + f.size] if struct else []
    help = ""
    if at and part.shown.split("[")[0] != at[0].name.replace("_", "-"):
        field = at[0]
        spelt = field.name.replace("_", "-")
        help = f"(ctx {spelt}{' INDEX' if field.element_size != field.size else ''}) reads what is there: {field.ctype}"
    problem = f"`{part.shown}` of the context of `{kind}` cannot be read"
    raise fail("context-access", problem, because="the kernel allows no such access", help=help)


def _require_context(checker: Checker) -> None:
    """In a subprogram, the context is a parameter or is not there."""
    decl = checker.subprogram
    if decl is not None and not any(isinstance(k, Pointer) and k.region is Region.CONTEXT for _, k, _ in decl.params):
        help = f"(defsubprog {decl.name.lower()} ((c ctx) ...) ...), called with (ctx-ptr)"
        raise fail("no-context", f"the subprogram `{decl.name.lower()}` has no context", help=help)


def _loaded(checker: Checker, part: _Part) -> Tree:
    _require_context(checker)
    access, known = _accesses(checker, part, False)
    if access is None and known:
        _refused(checker, part, False)
    kind: Type = Number(part.size * 8, part.signed)
    scalar = access is not None and access.kind == "scalar"
    if access is not None and access.kind in _REGIONS:
        kind = Pointer(_REGIONS[access.kind], maybe_null=access.kind.endswith("_or_null"))
    elif access is None:
        kind = Number(part.size * 8, part.signed) if part.size < 8 else U64
    return tree.ContextLoad(
        off=part.off, size=part.size, signed=part.signed and scalar, scalar=scalar, type=kind, span=checker.span
    )


@core("ctx", "ctx-load")
def _ctx(checker: Checker, form: Cons) -> Tree:
    _deprecated(checker, form, "ctx-load", "ctx")
    return _loaded(checker, _part(checker, form))


def _deprecated(checker: Checker, form: Cons, old: str, new: str) -> None:
    if text(form.car) == old:
        checker.warn("deprecated", f"`{old}` is the old name of `{new}`")


@place("ctx", "ctx-load")
def _ctx_place(checker: Checker, form: Cons, twice: bool) -> Place:
    part = _part(checker, form)
    access, known = _accesses(checker, part, True)
    if access is None and known:
        _refused(checker, part, True)
    return Place(lambda: _loaded(checker, part), lambda value: _stored(checker, part, value))


def _stored(checker: Checker, part: _Part, value: Tree) -> Tree:
    _require_context(checker)
    return tree.ContextStore(off=part.off, size=part.size, value=value, type=value.type, span=checker.span)


@core("ctx-store")
def _ctx_store(checker: Checker, form: Cons) -> Tree:
    """`(ctx-store T off value)`, the old form of `(setf (ctx T off) value)`."""
    _deprecated(checker, form, "ctx-store", "(setf (ctx ...))")
    args = checker.args(form, 3, 3)
    inner = Cons(form.car, Cons(args[0].car, Cons(args[1].car, args[2].cdr)), form.span)
    return _ctx_place(checker, inner, False).write(checker.value(args[2]))


@core("ctx-ptr")
def _ctx_ptr(checker: Checker, form: Cons) -> Tree:
    checker.args(form, 0, 0)
    _require_context(checker)
    return tree.Context(type=Pointer(Region.CONTEXT), span=checker.span)


_BOUNDS = {"XDP-DATA": "data", "XDP-DATA-END": "data-end", "TC-DATA": "data", "TC-DATA-END": "data-end"}


@library(*_BOUNDS)
def _bound(checker: Checker, form: Cons) -> Tree:
    """`(xdp-data)`, `(tc-data-end)`: the packet's bounds, where the program's context has them."""
    checker.args(form, 0, 0)
    assert isinstance(form.car, Symbol)
    name = form.car.name
    wanted = "xdp_md" if name.startswith("XDP") else "__sk_buff"
    struct = _struct(checker)
    if struct is None or struct.name != wanted:
        kind = checker.program.prog_type
        help = "(tc-data) and `with-tc-...` read `__sk_buff`"
        if wanted != "xdp_md":
            help = "(xdp-data) and `with-...` read `xdp_md`"
        problem = f"`{text(form.car)}` reads `{wanted}`, and the context of `{kind}` is another"
        raise fail("context-access", problem, help=help)
    return _loaded(checker, _named(checker, [Cons(intern(_BOUNDS[name].upper()), form.cdr)]))


_REGISTERS = {f"PT-REGS-PARM{number}": str(number) for number in range(1, 9)} | {
    "PT-REGS-RET": "rc", "PT-REGS-SP": "sp", "PT-REGS-IP": "ip", "PT-REGS-FP": "fp",
}  # fmt: skip


@library(*_REGISTERS)
def _pt_regs(checker: Checker, form: Cons) -> Tree:
    """`(pt-regs-parm1)` and so on (six on x86-64, eight on arm64), `(pt-regs-ret)`: registers of the target's calls."""
    checker.args(form, 0, 0)
    assert isinstance(form.car, Symbol)
    kind = checker.program.prog_type
    if kind not in ("kprobe", "perf_event"):
        raise fail("context-access", f"`{text(form.car)}` reads `pt_regs`, and the context of `{kind}` is another")
    arch = checker.unit.arch
    name = contexts.pt_regs_parm(arch).get(_REGISTERS[form.car.name], "")
    field = contexts.pt_regs(arch).field(name)
    if field is None:
        raise fail("unknown-field", f"`{text(form.car)}` names no register of {arch}")
    _require_context(checker)
    return tree.ContextLoad(off=field.offset, size=8, type=U64, span=checker.span)
