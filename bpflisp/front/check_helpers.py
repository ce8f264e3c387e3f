"""Helpers by name: `(ktime-get-ns)`. Numbers, arguments and who may call come from the tables of `spec.helpers`."""

from __future__ import annotations

import re
from functools import cache

from bpflisp.front import tree
from bpflisp.front.check import LIBRARY, Checker
from bpflisp.front.check_arithmetic import head_of, is_zero
from bpflisp.front.tree import Tree
from bpflisp.front.types import I64, U32, U64, Number, Pointer, Region, Type
from bpflisp.spec import helpers
from bpflisp.spec.helpers import Arg, ArgType, Helper, RetType
from bpflisp.syntax.forms import NIL, Cons, element_span, fail, text

KERNEL = "7.2"
"""A helper is refused here only if no kernel up to this one lets the program type call it."""

GPL_LICENSES = ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
"""What the kernel takes for compatible with the GPL (include/linux/license.h)."""

_BUILT_OUT = {
    "override_return": "kprobe", "rc_repeat": "lirc_mode2", "rc_keydown": "lirc_mode2", "rc_pointer_rel": "lirc_mode2",
}  # fmt: skip
"""Helpers that depend on how a kernel is built, which those of the tables were built without -> who may call them."""

_U32_RESULTS = ("bpf_get_prandom_u32", "bpf_get_smp_processor_id", "bpf_get_cgroup_classid", "bpf_get_hash_recalc")


def _helper(name: str) -> Helper:
    found = helpers.by_name(name)
    assert found is not None, name
    return found


def helper_number(name: str) -> int:
    """The number of a helper, by its name without `bpf_`."""
    return _helper(name).id


def require_helper(checker: Checker, name: str) -> None:
    """Refuse a helper that the program's type may not call; warn where its licence will forbid it."""
    helper, program = _helper(name), checker.program
    attach_types = _attach_types(program.prog_type, program.attach_type)
    allowed = [helpers.allowed(KERNEL, program.prog_type, attach) for attach in attach_types]
    shown = helper.short_name.replace("_", "-")
    offered = any(helper.id in each for each in allowed) or _BUILT_OUT.get(helper.short_name) == program.prog_type
    if any(allowed) and not offered:
        raise fail(
            "helper-not-allowed",
            f"a program of type `{program.prog_type}` may not call `{shown}`",
            because=f"the kernel offers {helper.name} to other types of program",
        )
    gpl = any(helper.id in helpers.gpl_only(KERNEL, program.prog_type, attach) for attach in attach_types)
    if gpl and program.license not in GPL_LICENSES:
        checker.warn(
            "gpl-only",
            f"`{shown}` is for programs under the GPL, and the licence here is {program.license!r}",
            because="the kernel refuses to load such a program",
        )


@cache
def _attach_types(prog_type: str, attach_type: str) -> tuple[str, ...]:
    from bpflisp.spec import programs

    kind = programs.by_name(prog_type)
    return (attach_type,) if attach_type or kind is None else ("", *kind.attach_types)


def call_helper(checker: Checker, form: Cons) -> Tree:
    """A call of the helper that the form's head names."""
    helper = _helper(head_of(form).lower().replace("-", "_"))
    require_helper(checker, helper.short_name)
    cells = checker.args(form, 0)
    if helper.short_name in _FLAGS_LAST and len(cells) == len(helper.c_args) - 1:
        cells.append(Cons(0, NIL))
    if helper.name == "bpf_trace_printk" and cells and isinstance(cells[0].car, str):
        return _trace_printk(checker, helper, cells)
    _check_count(helper, form, cells)
    proto = helpers.proto(helper.id, checker.program.prog_type, checker.program.attach_type)
    kinds = [*proto.args, *[Arg(ArgType.ANYTHING)] * 5]
    args = [_argument(checker, helper, index, cell, kinds[index]) for index, cell in enumerate(cells)]
    for at in range(1, len(args)):
        if kinds[at].is_size:
            _check_size(checker, helper, args[at - 1], args[at], cells[at])
    return tree.CallHelper(number=helper.id, args=args, type=_result(helper, proto), span=checker.span)


def _check_size(checker: Checker, helper: Helper, memory: Tree, size: Tree, cell: Cons) -> None:
    """Warn of a number of bytes that is more than is known to be where the argument before it points to."""
    kind = memory.type
    if isinstance(kind, Pointer) and kind.size is not None and isinstance(size, tree.Number) and size.value > kind.size:
        shown = helper.short_name.replace("_", "-")
        problem = f"`{shown}` is given {size.value} bytes, and the argument before points to {kind.size}"
        checker.warn("memory-bounds", problem, element_span(cell))


def _check_count(helper: Helper, form: Cons, cells: list[Cons]) -> None:
    least = len(helper.c_args)
    if least <= len(cells) <= (5 if helper.variadic else least):
        return
    wanted = f"{least} to 5" if helper.variadic else str(least)
    shown = ", ".join(f"{arg.type} {arg.name}".strip() for arg in helper.c_args) or "none"
    raise fail(
        "argument-count",
        f"`{text(form.car)}` takes {wanted} argument{'s' * (wanted != '1')}, not {len(cells)}",
        help=f"they are: {shown}",
    )


_FLAGS_LAST = ("ringbuf_reserve", "ringbuf_submit", "ringbuf_discard", "ringbuf_output")
"""Helpers whose last argument, flags, may be left out, as the book does."""

_MEMORY = {
    ArgType.PTR_TO_MEM, ArgType.PTR_TO_MAP_KEY, ArgType.PTR_TO_MAP_VALUE, ArgType.PTR_TO_STACK,
    ArgType.PTR_TO_RINGBUF_MEM, ArgType.PTR_TO_CTX,
}  # fmt: skip


def _argument(checker: Checker, helper: Helper, index: int, cell: Cons, kind: Arg) -> Tree:
    if kind.type is ArgType.CONST_MAP_PTR:
        from bpflisp.front.check_maps import address_of, the_map

        return address_of(the_map(checker, cell, helper.short_name), checker)
    if kind.type is ArgType.PTR_TO_FUNC:
        from bpflisp.front.check_objects import callback

        return callback(checker, cell)
    if isinstance(cell.car, str):
        return _string(checker, cell, kind)
    node = checker.value(cell)
    if kind.type in _MEMORY:
        _check_pointer(node, cell, helper, index, kind)
    elif kind.is_size and isinstance(node.type, Pointer):
        shown = helper.short_name.replace("_", "-")
        problem = f"argument {index + 1} of `{shown}` is a number of bytes, not {node.type.name}"
        raise fail("argument-kind", problem, element_span(cell))
    return node


def _check_pointer(node: Tree, cell: Cons, helper: Helper, index: int, kind: Arg) -> None:
    """Refuse what cannot be the pointer that a helper wants: a number, a narrow value, a context for memory."""
    shown = f"argument {index + 1} of `{helper.short_name.replace('_', '-')}`"
    name = helper.c_args[index].name if index < len(helper.c_args) else ""
    wanted = f"{shown} is a pointer ({name})"
    if isinstance(node, tree.Number) and isinstance(node.type, Number):
        if not (kind.maybe_null and is_zero(node)):
            raise fail("argument-kind", f"{wanted}, not the number {text(cell.car, 40)}", element_span(cell))
    elif isinstance(node.type, Number) and node.type.bits < 64:
        raise fail("narrow-pointer", f"{wanted}, and `{text(cell.car, 40)}` a {node.type.name}", element_span(cell))
    elif isinstance(node.type, Pointer):
        if (kind.type is ArgType.PTR_TO_CTX) is not (node.type.region is Region.CONTEXT):
            if node.type.region is not Region.OTHER:
                what = "the context" if kind.type is ArgType.PTR_TO_CTX else "memory"
                raise fail("argument-kind", f"{shown} is {what}, not {node.type.name}", element_span(cell))


def _string(checker: Checker, cell: Cons, kind: Arg) -> Tree:
    """A constant string, with its zero byte, in the object's read-only data."""
    assert isinstance(cell.car, str)
    if kind.type not in (ArgType.PTR_TO_MEM, ArgType.PTR_TO_CONST_STR) or kind.flags & {"MEM_UNINIT", "MEM_WRITE"}:
        because = "the helper writes there" if kind.type is ArgType.PTR_TO_MEM else ""
        raise fail("string-value", "a string is no value here", element_span(cell), because=because)
    return string_address(checker, cell.car)


def string_address(checker: Checker, content: str) -> Tree:
    """The address of a constant string in the object's read-only data."""
    data = content.encode() + b"\0"
    return tree.DataAddress(
        symbol=checker.unit.string(data), type=Pointer(Region.DATA, size=len(data)), span=checker.span
    )


def _trace_printk(checker: Checker, helper: Helper, cells: list[Cons]) -> Tree:
    """`(trace-printk "format" value...)`: the length of the format is added. Up to three values are handed over in
    registers; more, up to twelve, in memory, by the helper `trace_vprintk`."""
    content = cells[0].car
    assert isinstance(content, str)
    if len(cells) > MAX_PRINTED + 1:
        raise fail("argument-count", f"`trace-printk` prints at most {MAX_PRINTED} values, not {len(cells) - 1}")
    _check_format(checker, cells)
    address = string_address(checker, content)
    size = tree.Number(value=len(content.encode()) + 1, span=checker.span)
    values = [_printed(checker, cell) for cell in cells[1:]]
    if len(values) > 3:
        return _trace_vprintk(checker, address, size, values)
    return tree.CallHelper(number=helper.id, args=[address, size, *values], type=I64, span=checker.span)


_CONVERSION = re.compile(r"%(%|[-+ 0]*\d*(?:(?:ll|l)?[diuxX]|[cs]|p(?:[KxsSB]|[iI][46]|[uk]s|(?![A-Za-z0-9]))))?")
"""What bpf_bprintf_prepare of the kernel takes after a percent sign; asked of Linux 6.18 form by form."""


def _check_format(checker: Checker, cells: list[Cons]) -> None:
    """Warn of a format that the kernel prints nothing of, or that leaves values out."""
    content = cells[0].car
    assert isinstance(content, str)
    found = [each for each in re.finditer(_CONVERSION, content) if each[1] != "%"]
    unknown = next((each for each in found if not each[1]), None)
    if unknown is not None:
        problem = f"`{content[unknown.start() : unknown.start() + 2]}` is no conversion that the kernel prints"
        help = "%d %i %u %x, with l or ll for 64 bits, %c %s %p; %% is a percent sign"
        checker.warn("bad-format", problem, element_span(cells[0]), help=help)
    elif len(found) != len(cells) - 1:
        problem = f"the format prints {len(found)} value{'s' * (len(found) != 1)}, and {len(cells) - 1} are given"
        checker.warn("bad-format", problem, element_span(cells[0]))
    for each, cell in zip(found, cells[1:], strict=False):
        if str(each[1]).endswith("s") and isinstance(cell.car, int) and not str(each[1]).startswith("p"):
            problem = f"`%s` prints text, and `{text(cell.car, 40)}` is a number"
            checker.warn("bad-format", problem, element_span(cell))


def _printed(checker: Checker, cell: Cons) -> Tree:
    """A value to be printed; a string, for `%s`, by its address."""
    return string_address(checker, cell.car) if isinstance(cell.car, str) else checker.value(cell)


MAX_PRINTED = 12
"""MAX_BPRINTF_VARARGS of the kernel."""


def _trace_vprintk(checker: Checker, format: Tree, size: Tree, values: list[Tree]) -> Tree:
    require_helper(checker, "trace_vprintk")
    room = len(values) * 8
    local = tree.Local("values", Pointer(Region.STACK, size=room))
    reserved = tree.Reserve(size=room, zeroed=False, type=local.type, span=checker.span)
    items: list[Tree] = [tree.Assign(local=local, value=reserved, type=local.type, span=checker.span)]
    address = tree.Read(local=local, type=local.type, span=checker.span)
    for index, value in enumerate(values):
        items.append(tree.Store(address=address, off=index * 8, size=8, value=value, span=checker.span))
    args = [format, size, address, tree.Number(value=room, span=checker.span)]
    call = tree.CallHelper(number=helper_number("trace_vprintk"), args=args, type=I64, span=checker.span)
    return tree.Progn(items=[*items, call], type=I64, span=checker.span)


_POINTERS = {
    RetType.PTR_TO_MAP_VALUE: Region.MAP_VALUE, RetType.PTR_TO_MEM: Region.OTHER,
    RetType.PTR_TO_MEM_OR_BTF_ID: Region.KERNEL, RetType.PTR_TO_SOCKET: Region.KERNEL,
    RetType.PTR_TO_TCP_SOCK: Region.KERNEL, RetType.PTR_TO_SOCK_COMMON: Region.KERNEL,
    RetType.PTR_TO_BTF_ID: Region.KERNEL,
}  # fmt: skip


def _result(helper: Helper, proto: helpers.Proto) -> Type:
    region = _POINTERS.get(proto.ret.type)
    if region is not None:
        region = Region.RECORD if "MEM_RINGBUF" in proto.ret.flags else region
        return Pointer(region, maybe_null=proto.ret.maybe_null)
    if helper.name in _U32_RESULTS:
        return U32
    return I64 if helper.c_ret in ("long", "int") else U64


def _register_all() -> None:
    """Every helper is a form, under its name with or without `bpf-`; its own forms take precedence."""
    for short_name, number in helpers.known().items():
        if number:
            name = short_name.upper().replace("_", "-")
            if name != "LOOP":  # Common Lisp's `loop`, which no program means by it
                LIBRARY.setdefault(name, call_helper)
            LIBRARY.setdefault(f"BPF-{name}", call_helper)


_register_all()
