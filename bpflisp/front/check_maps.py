"""Maps: lookup, update, delete, `getmap` as a value, a place and a counter; ring-buffer records; tail calls.

A key or value that the checker knows as a pointer is given by that pointer; a number is put on the stack, zero-extended
to the map's size, and given by its address there.
"""

from __future__ import annotations

from bpflisp.front import hints, tree
from bpflisp.front.check import TOLD, Checker, core, library, require_memory
from bpflisp.front.check_arithmetic import head_of
from bpflisp.front.check_helpers import call_helper, helper_number, require_helper
from bpflisp.front.check_places import COUNTERS, Place, once, place, sequence
from bpflisp.front.tree import Tree
from bpflisp.front.types import NEVER, U64, UNKNOWN, Never, Number, Pointer, Region, Struct, join
from bpflisp.front.unit import MapDecl
from bpflisp.spec import maps
from bpflisp.spec.headers import BUILTIN_CONSTANTS
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, element_span, fail, text

ANY, NOEXIST = BUILTIN_CONSTANTS["BPF_ANY"], BUILTIN_CONSTANTS["BPF_NOEXIST"]


def the_map(checker: Checker, cell: Cons, helper: str) -> MapDecl:
    """The map that a cell names, which the helper must take."""
    name = cell.car.name if isinstance(cell.car, Symbol) else ""
    decl = checker.unit.maps.get(name)
    if decl is None and checker.unit.is_broken(name):
        raise TOLD
    if decl is None:
        problem = f"no map is named `{text(cell.car, 60)}`"
        raise fail("unknown-map", problem, element_span(cell), help=hints.a_map(checker.unit, cell.car))
    if not maps.compatible(f"bpf_{helper}", decl.type):
        shown = f"`{text(cell.car)}` is a map of type `{decl.type}`, which `{helper.replace('_', '-')}` does not take"
        raise fail("wrong-map-type", shown, element_span(cell))
    return decl


def address_of(decl: MapDecl, checker: Checker) -> Tree:
    """The map as helpers take it."""
    return tree.MapAddress(symbol=decl.symbol, type=Pointer(Region.MAP), span=checker.span)


def _by_address(checker: Checker, node: Tree, cell: Cons, size: int, what: str, decl: MapDecl) -> Tree:
    """A key or value as the pointer that the helper wants."""
    kind, name, shown = node.type, decl.name.lower(), text(cell.car, 40)
    if isinstance(kind, Pointer):
        if kind.region in (Region.CONTEXT, Region.PACKET_END, Region.MAP):
            raise fail("argument-kind", f"the {what} of `{name}` is memory, not {kind.name}", element_span(cell))
        if kind.size is not None and kind.size < size:
            problem = f"the {what} of `{name}` has {size} bytes, and `{shown}` points to {kind.size}"
            raise fail("size-mismatch", problem, element_span(cell))
        if kind.struct is not None and kind.struct.size > size and not kind.struct.union:
            problem = f"the {what} of `{name}` has {size} bytes, and `{shown}` points to a struct of {kind.struct.size}"
            because = "the bytes after the first take no part"
            checker.warn("size-mismatch", problem, element_span(cell), because=because)
        return node
    if kind is UNKNOWN or isinstance(kind, Never):
        return node
    if isinstance(node, tree.Number):
        value = node.value - (1 << 64) if node.value >> 63 else node.value
        if size < 8 and not -(1 << (size * 8 - 1)) <= value < 1 << (size * 8):
            problem = f"`{value}` does not fit into the {size} byte{'s' * (size > 1)} of the {what} of `{name}`"
            checker.warn("truncated", problem, element_span(cell))
        elif what == "key" and decl.is_array:
            _check_index(checker, decl, node.value, cell)
    return tree.Spill(value=node, size=size, type=Pointer(Region.STACK, size=size), span=node.span)


def _check_index(checker: Checker, decl: MapDecl, index: int, cell: Cons) -> None:
    """Warn of an index that no entry of an array has."""
    if 0 < decl.max_entries <= index:
        name, count = decl.name.lower(), decl.max_entries
        problem = f"`{name}` has {count} entr{'y' if count == 1 else 'ies'}, and none with index {index}"
        checker.warn("array-index", problem, element_span(cell))


def _key(checker: Checker, decl: MapDecl, cell: Cons) -> Tree:
    return _by_address(checker, checker.value(cell), cell, decl.key_size, "key", decl)


def value_pointer(decl: MapDecl) -> Pointer:
    """What a lookup gives."""
    struct = decl.value_type if isinstance(decl.value_type, Struct) else None
    return Pointer(Region.MAP_VALUE, struct, maybe_null=True, size=decl.value_size or None)


def _helper(checker: Checker, name: str, args: list[Tree], kind: Pointer | Number = U64) -> Tree:
    require_helper(checker, name)
    return tree.CallHelper(number=helper_number(name), args=args, type=kind, span=checker.span)


def _lookup(checker: Checker, decl: MapDecl, key: Tree) -> Tree:
    return _helper(checker, "map_lookup_elem", [address_of(decl, checker), key], value_pointer(decl))


@core("map-lookup", "map-lookup-ptr")
def _map_lookup(checker: Checker, form: Cons) -> Tree:
    """`(map-lookup M key)`: the value's address, or 0."""
    map_cell, key_cell = checker.args(form, 2, 2)
    decl = the_map(checker, map_cell, "map_lookup_elem")
    return _lookup(checker, decl, _argument_key(checker, form, decl, key_cell))


def _argument_key(checker: Checker, form: Cons, decl: MapDecl, cell: Cons) -> Tree:
    """The key of a form; where its name ends in `-ptr`, it is a pointer whatever is known of it."""
    if head_of(form).endswith("-PTR"):
        return _pointer_argument(checker, cell)
    return _key(checker, decl, cell)


def _argument_value(checker: Checker, form: Cons, decl: MapDecl, cell: Cons) -> Tree:
    """The value of a form. Where its name ends in `-ptr` it is a pointer, unless it is known to be no address."""
    if not head_of(form).endswith("-PTR"):
        return _by_address(checker, checker.value(cell), cell, decl.value_size, "value", decl)
    value = checker.value(cell)
    number = isinstance(value.type, Number) and (isinstance(value, tree.Number) or value.type.bits < 64)
    if number:
        return _by_address(checker, value, cell, decl.value_size, "value", decl)
    require_memory(value, cell, "read")
    return value


def _pointer_argument(checker: Checker, cell: Cons) -> Tree:
    return checker.address(cell, "read")


@core("map-update", "map-update-ptr")
def _map_update(checker: Checker, form: Cons) -> Tree:
    """`(map-update M key value [flags])` gives the helper's result."""
    args = checker.args(form, 3, 4)
    decl = the_map(checker, args[0], "map_update_elem")
    key = _argument_key(checker, form, decl, args[1])
    value = _argument_value(checker, form, decl, args[2])
    flags = checker.value(args[3]) if len(args) > 3 else tree.Number(value=ANY, span=checker.span)
    return _update(checker, decl, key, value, flags)


def _update(checker: Checker, decl: MapDecl, key: Tree, value: Tree, flags: Tree) -> Tree:
    return _helper(checker, "map_update_elem", [address_of(decl, checker), key, value, flags])


@library("setmap")
def _setmap(checker: Checker, form: Cons) -> Tree:
    return _map_update(checker, form)


@core("map-delete", "map-delete-ptr")
def _map_delete(checker: Checker, form: Cons) -> Tree:
    """`(map-delete M key)` gives the helper's result."""
    map_cell, key_cell = checker.args(form, 2, 2)
    decl = the_map(checker, map_cell, "map_delete_elem")
    return _helper(
        checker, "map_delete_elem", [address_of(decl, checker), _argument_key(checker, form, decl, key_cell)]
    )


@library("delmap", "remmap")
def _delmap(checker: Checker, form: Cons) -> Tree:
    return _map_delete(checker, form)


# getmap


@library("getmap")
def _getmap(checker: Checker, form: Cons) -> Tree:
    """A number of the map, 0 where there is none; of a map of structs, the address of the value, or 0."""
    map_cell, key_cell = checker.args(form, 2, 2)
    decl = the_map(checker, map_cell, "map_lookup_elem")
    found = _lookup(checker, decl, _key(checker, decl, key_cell))
    if decl.scalar is None:
        return found
    setup: list[Tree] = []
    pointer = once(checker, found, setup, "value")
    load = tree.Load(
        address=pointer, off=0, size=decl.scalar.size, signed=decl.scalar.signed, type=decl.scalar, span=checker.span
    )
    zero = tree.Number(value=0, span=checker.span)
    chosen = tree.If(test=pointer, then=load, other=zero, type=decl.scalar, span=checker.span)
    return sequence(checker, [*setup, chosen])


@place("getmap")
def _getmap_place(checker: Checker, form: Cons, twice: bool) -> Place:
    """`(setf (getmap M k) v)` is an update; the value of the form is `v`."""
    map_cell, key_cell = checker.args(form, 2, 2)
    decl = the_map(checker, map_cell, "map_update_elem")
    setup: list[Tree] = []
    key = once(checker, checker.value(key_cell), setup, "key")

    def write(value: Tree) -> Tree:
        items: list[Tree] = []
        kept = once(checker, value, items, "value")
        by_address = _by_address(checker, kept, map_cell, decl.value_size, "value", decl)
        key_address = _by_address(checker, key, key_cell, decl.key_size, "key", decl)
        flags = tree.Number(value=ANY, span=checker.span)
        return sequence(checker, [*items, _update(checker, decl, key_address, by_address, flags), kept])

    def read() -> Tree:
        raise fail("bad-place", "this is counted by `incf`")

    return Place(read, write, setup)


def _count(checker: Checker, form: Cons, delta: Tree) -> Tree:
    """`(incf (getmap M k) d)`. Atomic on maps that CPUs share, plain on those of which each has its own.

    A key that is not there is put in as 0 with BPF_NOEXIST, and then counted as any other: of two CPUs that find it
    missing at once, one inserts and both add.
    """
    map_cell, key_cell = checker.args(form, 2, 2)
    decl = the_map(checker, map_cell, "map_lookup_elem")
    kind = decl.scalar
    if kind is None:
        problem = f"the values of `{decl.name.lower()}` are no numbers, and cannot be counted"
        raise fail("not-a-number", problem, element_span(map_cell), help="count a member: (incf (NAME-FIELD ptr))")
    if kind.bits < 32 and not decl.per_cpu:
        problem = f"the values of `{decl.name.lower()}` have {kind.size} byte{'s' * (kind.size > 1)}"
        because = "the atomic addition takes 4 or 8 bytes"
        help = "`:value-size` 4 or 8; or (setf (getmap map key) ...), where no other CPU writes"
        raise fail("atomic-size", problem, element_span(map_cell), because=because, help=help)
    setup: list[Tree] = []
    key = once(checker, checker.value(key_cell), setup, "key")
    step = once(checker, delta, setup, "delta")
    return sequence(checker, [*setup, *_counting(checker, decl, kind, key, key_cell, step)])


def _counting(checker: Checker, decl: MapDecl, kind: Number, key: Tree, key_cell: Cons, step: Tree) -> list[Tree]:
    span = checker.span
    zero = tree.Number(value=0, span=span)
    found = tree.Local("value", value_pointer(decl))
    items: list[Tree] = []

    def find() -> Tree:
        pointer = _by_address(checker, key, key_cell, decl.key_size, "key", decl)
        value = _lookup(checker, decl, pointer)
        return tree.Assign(local=found, value=value, type=value.type, span=span)

    def read() -> Tree:
        return tree.Read(local=found, type=Pointer(Region.MAP_VALUE), span=span)

    items.append(find())
    if not decl.is_array:
        initial = tree.Spill(value=zero, size=decl.value_size, type=Pointer(Region.STACK), span=span)
        pointer = _by_address(checker, key, key_cell, decl.key_size, "key", decl)
        insert = _update(checker, decl, pointer, initial, tree.Number(value=NOEXIST, span=span))
        missing = tree.Progn(items=[insert, find(), zero], span=span)
        items.append(tree.If(test=read(), then=zero, other=missing, span=span))
    if decl.per_cpu:
        old = tree.Load(address=read(), off=0, size=kind.size, type=kind, span=span)
        new = tree.Binary(op=Op.ADD, left=old, right=step, span=span)
        add: Tree = tree.Store(address=read(), off=0, size=kind.size, value=new, span=span)
    else:
        add = tree.Atomic(op=Op.ADD, address=read(), off=0, size=kind.size, values=[step], span=span)
    counted = tree.Progn(items=[add, zero], span=span)
    items.append(tree.If(test=read(), then=counted, other=zero, span=span))
    return items


COUNTERS["GETMAP"] = _count


@library("incf-map")
def _incf_map(checker: Checker, form: Cons) -> Tree:
    """`(incf-map M k [d])`."""
    args = checker.args(form, 2, 3)
    place_form = Cons(
        form.car, Cons(args[0].car, Cons(args[1].car, NIL, None, args[1].car_span), None, args[0].car_span)
    )
    delta = checker.value(args[2]) if len(args) > 2 else tree.Number(value=1, span=checker.span)
    return _count(checker, place_form, delta)


# Ring buffers


@library("with-ringbuf")
def _with_ringbuf(checker: Checker, form: Cons) -> Tree:
    """`(with-ringbuf (v M SIZE [:flags N]) body...)`: reserve, and where that succeeds, the body, then submit.

    Its value is the body's, 0 where nothing could be reserved. What leaves the body early (`return`, `break`) discards
    the record first: a record that is not released makes the kernel refuse the program. Where the body discards or
    submits it by name, the variable is null from there on, and what would release it looks.
    """
    args = checker.args(form, 1)
    head = list(cells(args[0].car)) if isinstance(args[0].car, Cons) else []
    name = head[0].car if head else NIL
    if len(head) < 3 or not isinstance(name, Symbol) or name is NIL:
        problem = f"`{text(args[0].car, 60)}` is not (variable map size)"
        raise fail(
            "bad-binding", problem, element_span(args[0]), help="(with-ringbuf (e events (sizeof event)) body...)"
        )
    decl = the_map(checker, head[1], "ringbuf_reserve")
    size = checker.constant(head[2], "the size of a record")
    options = checker.keywords(head[3:], form, ":flags")
    flags = checker.value(options[":flags"]) if ":flags" in options else tree.Number(value=0, span=checker.span)
    return _record(checker, form, decl, name, head, size, flags)


def _record(
    checker: Checker, form: Cons, decl: MapDecl, name: Symbol, head: list[Cons], size: int, flags: Tree
) -> Tree:
    span = checker.span
    number, zero = tree.Number(value=size, span=span), tree.Number(value=0, span=span)
    local = tree.Local(name.name, Pointer(Region.RECORD, size=size), None, element_span(head[0]))
    args = [address_of(decl, checker), number, zero]
    reserved = _helper(checker, "ringbuf_reserve", args, Pointer(Region.RECORD, maybe_null=True, size=size))
    bind = tree.Assign(local=local, value=reserved, type=reserved.type, span=span)

    def read() -> Tree:
        return tree.Read(local=local, type=local.type, span=span)

    releases = [_helper(checker, each, [read(), given]) for each, given in (
        ("ringbuf_discard", zero), ("ringbuf_submit", flags))]  # fmt: skip
    discard, submit = (tree.Progn(items=[each], span=span) for each in releases)
    checker.cleanups.append(discard)
    checker.records[local] = False
    with checker.scope() as scope:
        scope[name] = local
        body = checker.progn(form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)
    checker.cleanups.pop()
    if checker.records.pop(local):
        for node in (discard, submit):
            node.items = [tree.If(test=read(), then=node.items[0], other=zero, span=span)]
    items: list[Tree] = []
    result = once(checker, body, items, "result")
    then = sequence(checker, [*items, submit, result])
    kind = join(then.type, U64, False, True) if then.type is not NEVER else U64
    test = tree.Read(local=local, type=reserved.type, span=span)
    return sequence(checker, [bind, tree.If(test=test, then=then, other=zero, type=kind, span=span)])


# Tail calls


@core("tail-call")
def _tail_call(checker: Checker, form: Cons) -> Tree:
    """`(tail-call M index)`: into another program; where that fails, on with the value 0."""
    map_cell, index_cell = checker.args(form, 2, 2)
    decl = the_map(checker, map_cell, "tail_call")
    if checker.cleanups:
        because = "after a tail call nobody could release it"
        raise fail("unreleased", "a tail call while a ring-buffer record is held", because=because)
    index = checker.value(index_cell)
    if isinstance(index, tree.Number) and index.type is not UNKNOWN:
        _check_index(checker, decl, index.value, index_cell)
    context = tree.Context(type=Pointer(Region.CONTEXT), span=checker.span)
    call = _helper(checker, "tail_call", [context, address_of(decl, checker), index])
    return sequence(checker, [call, tree.Number(value=0, span=checker.span)])


@library("bpf-ringbuf-submit", "bpf-ringbuf-discard")
@core("map-lookup-elem", "map-update-elem", "map-delete-elem", "ringbuf-submit", "ringbuf-discard")
def _plain_helper(checker: Checker, form: Cons) -> Tree:
    """Helpers under their full names take pointers, as in C. What a release helper returns is 0."""
    call = call_helper(checker, form)
    if not head_of(form).removeprefix("BPF-").startswith("RINGBUF"):
        return call
    zero = tree.Number(value=0, span=checker.span)
    given = form.cdr.car if isinstance(form.cdr, Cons) else NIL
    local = checker.find(given) if isinstance(given, Symbol) else None
    if local is None or local not in checker.records:
        return sequence(checker, [call, zero])
    checker.records[local] = True
    return sequence(checker, [call, tree.Assign(local=local, value=zero, type=local.type, span=checker.span), zero])
