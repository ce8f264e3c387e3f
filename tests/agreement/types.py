"""The types of generated programs that use objects which the kernel manages: one BTF for all of them.

Maps and programs have to have the very same BTF, for the kernel tells an object's type by it; so the functions of the
programs are in it as well, one for each number of arguments.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from bpflisp.spec.btf import Btf
from bpflisp.spec.btf_build import (
    INT,
    BtfBuilder,
    CType,
    Int,
    Member,
    Pointer,
    Signature,
    Struct,
    TypeTag,
    Void,
)
from simulator.program import MapDef

# Recorded programs name types by number: what numbers there are does not change with the names of C's integers.
U32, U64 = Int("u32", 4), Int("u64", 8)
MOST_ARGUMENTS: Final = 5
VALUES: Final = {
    "spin": 16, "resilient": 16, "timer": 24, "queue": 24, "kept": 24, "roots": 56, "counted": 56,
}  # fmt: skip
"""Map values by name, and their sizes."""


class Types(NamedTuple):
    """The BTF, and the ids in it: of structures by name, of functions by (global, number of arguments)."""

    btf: Btf
    ids: dict[str, int]
    functions: dict[tuple[bool, int], int]
    main: int


def _words(name: str, count: int, word: Int = U64) -> Struct:
    return Struct(name, count * word.size, [Member(f"o{at}", word, at * word.size * 8) for at in range(count)])


def _struct(name: str, size: int, *members: tuple[CType, int]) -> Struct:
    return Struct(name, size, [Member(f"m{at}", kind, off * 8) for at, (kind, off) in enumerate(members)])


LOCK, RES_LOCK, COUNT = (_words(name, 1, U32) for name in ("bpf_spin_lock", "bpf_res_spin_lock", "bpf_refcount"))
HEAD, ROOT, TIMER, QUEUE = (_words(name, 2) for name in ("bpf_list_head", "bpf_rb_root", "bpf_timer", "bpf_wq"))
LIST_NODE, TREE_NODE = _words("bpf_list_node", 3), _words("bpf_rb_node", 4)

PLAIN = _struct("plain_one", 16, (U64, 0), (U64, 8))
IN_LIST = _struct("list_one", 40, (U64, 0), (LIST_NODE, 8), (U64, 32))
IN_TREE = _struct("tree_one", 48, (U64, 0), (TREE_NODE, 8), (U64, 40))
COUNTED = _struct("counted_one", 80, (U64, 0), (TREE_NODE, 8), (LIST_NODE, 40), (COUNT, 64), (U64, 72))
OBJECTS: Final = {one.name: one for one in (PLAIN, IN_LIST, IN_TREE, COUNTED)}
NODES: Final = {"list_one": (8,), "tree_one": (8,), "counted_one": (40, 8), "plain_one": ()}
"""Where an object's nodes are: of a list first, then of a tree."""


@cache
def types() -> Types:
    """The types; made once."""
    builder, ids = BtfBuilder(), {}
    for name, kind in OBJECTS.items():
        ids[name] = builder.add(kind)
    ids["key"] = builder.add(INT)
    task = Struct("task_struct", 4, [Member("pid", INT, 0)])
    values = {
        "spin": ((LOCK, 0), (U64, 8)),
        "resilient": ((U64, 0), (RES_LOCK, 8)),
        "timer": ((U64, 0), (TIMER, 8)),
        "queue": ((QUEUE, 0), (U64, 16)),
        "kept": ((Pointer(TypeTag("kptr", PLAIN)), 0), (Pointer(TypeTag("kptr", task)), 8), (U64, 16)),
        "roots": ((LOCK, 0), (HEAD, 8), (ROOT, 24), (U64, 40)),
        "counted": ((LOCK, 0), (HEAD, 8), (ROOT, 24), (U64, 40)),
    }
    for name, members in values.items():
        ids[name] = builder.add(_struct(f"{name}_value", VALUES[name], *members))
    for name, listed, tree in (
        ("roots", "list_one:m1", "tree_one:m1"),
        ("counted", "counted_one:m2", "counted_one:m1"),
    ):
        builder.decl_tag(f"contains:{listed}", ids[name], 1)
        builder.decl_tag(f"contains:{tree}", ids[name], 2)
    functions = {}
    for is_global in (False, True):
        for count in range(MOST_ARGUMENTS + 1):
            signature = Signature(INT, [(f"a{at}", INT) for at in range(count)])
            name = f"{'global' if is_global else 'local'}_{count}"
            functions[is_global, count] = builder.func(name, signature, int(is_global))
    main = builder.func("main", Signature(INT, [("context", Pointer(Void()))]), 0)
    return Types(Btf(builder.to_bytes()), ids, functions, main)


def typed_map(kind: str, value: str, entries: int = 2) -> MapDef:
    """A map with such a value."""
    known = types()
    return MapDef(
        "", kind, 4, VALUES[value], entries, btf=known.btf, btf_key=known.ids["key"], btf_value=known.ids[value]
    )
