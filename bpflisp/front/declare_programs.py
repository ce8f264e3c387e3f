"""`defprog`: a program, its type and its section."""

from __future__ import annotations

from bpflisp.diagnostics import warning
from bpflisp.front import hints
from bpflisp.front.declare import (
    defined_name,
    options_of,
    refuse_duplicate,
    text_option,
)
from bpflisp.front.unit import ProgramDecl, Unit
from bpflisp.spec import programs
from bpflisp.syntax.evaluator import Scope
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    Symbol,
    element_span,
    fail,
    text,
)

TYPE_ALIASES = {
    "tc": "sched_cls", "classifier": "sched_cls", "action": "sched_act", "sockops": "sock_ops", "fentry": "tracing",
    "fexit": "tracing", "raw_tp": "raw_tracepoint", "uprobe": "kprobe", "kretprobe": "kprobe", "uretprobe": "kprobe",
    "struct_ops": "struct_ops",
}  # fmt: skip
"""Names of program types that are not the kernel's: those of sections, as the book uses them."""


def define_program(unit: Unit, form: Cons, scope: Scope) -> object:
    """`(defprog name (:type T :section S :license L) body...)`."""
    name, span, rest = defined_name(form, "program")
    if not isinstance(rest, Cons) or not (isinstance(rest.car, Cons) or rest.car is NIL):
        help = "(defprog name (:type :xdp) body...)"
        raise fail("bad-definition", f"the program `{text(name)}` has no list of options", span, help=help)
    options = options_of(form, rest.car, (":TYPE", ":SECTION", ":LICENSE"))
    refuse_duplicate(unit, name, span, "program")
    keyword, prog_type = _program_type(form, options)
    section = text_option(unit, form, options, ":SECTION", scope)
    license = text_option(unit, form, options, ":LICENSE", scope)
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
    names = [f":{kind.name.replace('_', '-')}" for kind in programs.all_program_types()]
    near = hints.nearest(f":{text(keyword).removeprefix(':').lower()}", [*names, ":tc"])
    problem = f"`{text(keyword)}` is no program type"
    place = element_span(cell) or form.span
    raise fail("unknown-program-type", problem, place, help=near or "known are " + " ".join(names))


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
