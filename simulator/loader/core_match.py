"""CO-RE: finding in a target BTF what a program's own BTF describes.

A local type stands for every target type of the same essential name (without ___flavour) and a compatible kind; a
field for the field of that name, through anonymous structs and unions; an enumerator for the one of that name.

Source: how libbpf's relo_core.c decides; what it decides is a fact that programs rely on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bpflisp.spec.btf import COMPOSITES, ENUMS, INT_SIGNED, Btf, BtfKind
from simulator.loader.externs import essential_name

LONGEST_ACCESS = 64
_DEEPEST = 32
_MOST_WORK = 100_000


class CoreError(ValueError):
    """A CO-RE record cannot be understood, or has no single answer."""


class Work:
    """How many more comparisons an object may take: types can be built to need exponentially many."""

    def __init__(self) -> None:
        self.left = _MOST_WORK

    def spend(self) -> None:
        """One comparison. Raises CoreError when there were too many."""
        self.left -= 1
        if self.left < 0:
            raise CoreError(f"types need more than {_MOST_WORK} comparisons")


@dataclass(frozen=True, slots=True)
class Accessor:
    """One step of an access: the member `index` of a struct, or, without a name, the element `index` of an array."""

    type: int
    index: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """An access, resolved in one BTF: the type it starts at, its steps, and where in bits it ends up."""

    btf: Btf
    root: int
    steps: Sequence[Accessor] = ()
    bit_offset: int = 0


# -- what the program says ---------------------------------------------------------------------------------------------


def parse_indexes(access: str) -> Sequence[int]:
    """The numbers of an access string: "0:1:2"."""
    parts = access.split(":")
    if len(parts) > LONGEST_ACCESS or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise CoreError(f"access string {access[:80]!r} is not numbers with colons between")
    return [int(part) for part in parts]


def local_field(btf: Btf, root: int, access: str) -> Spec:
    """The steps of a field's access: named members and array elements; anonymous members are passed through."""
    first, *rest = parse_indexes(access)
    type_id = btf.resolve(root)
    steps = [Accessor(type_id, first)]
    bit_offset = 8 * first * btf.size_of(type_id)
    for index in rest:
        type_id = btf.resolve(type_id)
        found = btf.type(type_id)
        if found.kind in COMPOSITES:
            members = btf.members(type_id)
            if index >= len(members):
                raise CoreError(f"access {access!r}: {found.name or 'a struct'} has no member {index}")
            member = members[index]
            bit_offset += member.bit_offset
            if member.name:
                steps.append(Accessor(type_id, index, member.name))
            type_id = member.type
        elif found.kind is BtfKind.ARRAY:
            if not _in_array(btf, type_id, index, steps[-1]):
                raise CoreError(f"access {access!r}: element {index} is outside of its array")
            type_id = btf.resolve(btf.array(type_id).element)
            steps.append(Accessor(type_id, index))
            bit_offset += 8 * index * btf.size_of(type_id)
        else:
            raise CoreError(f"access {access!r} goes into a {found.kind.name}")
    return Spec(btf, root, steps, bit_offset)


def _in_array(btf: Btf, array: int, index: int, holder: Accessor) -> bool:
    """Whether an element is in an array; one of length 0 at the end of a struct has no end."""
    count = btf.array(array).count
    if index < count:
        return True
    if count or not holder.name or btf.type(holder.type).kind not in COMPOSITES:
        return False
    return holder.index == btf.type(holder.type).vlen - 1


def local_enumerator(btf: Btf, root: int, access: str) -> Spec:
    """The enumerator that an access string counts out."""
    type_id = btf.resolve(root)
    indexes = parse_indexes(access)
    if btf.type(type_id).kind not in ENUMS or len(indexes) != 1 or indexes[0] >= btf.type(type_id).vlen:
        raise CoreError(f"access {access!r} is no enumerator of type {root}")
    (index,) = indexes
    return Spec(btf, root, (Accessor(type_id, index, btf.enumerators(type_id)[index][0]),))


# -- candidates --------------------------------------------------------------------------------------------------------


def candidates(local: Btf, root: int, target: Btf) -> Iterator[int]:
    """The target's types that a local type may stand for, in the order of ids."""
    wanted = local.type(root)
    essential = essential_name(wanted.name)
    for type_id in target.of_essential_name(essential):
        found = target.type(type_id)
        if essential_name(found.name) == essential and same_kind(found.kind, wanted.kind):
            yield type_id


def same_kind(one: BtfKind, other: BtfKind) -> bool:
    """Whether two kinds may stand for each other: they are equal, or both enums."""
    return one is other or (one in ENUMS and other in ENUMS)


# -- matching ----------------------------------------------------------------------------------------------------------


def match_field(local: Spec, target: Btf, root: int, work: Work) -> Spec | None:
    """The same access in a target type; None where it does not have it."""
    return _FieldMatch(local, target, root, work).run()


class _FieldMatch:
    """A walk through the target along the local steps."""

    def __init__(self, local: Spec, target: Btf, root: int, work: Work) -> None:
        self.local, self.target, self.root, self.work = local, target, root, work
        self.steps: list[Accessor] = []
        self.bit_offset = 0

    def run(self) -> Spec | None:
        type_id = self.root
        for at, step in enumerate(self.local.steps):
            following = self._member(step, type_id) if step.name else self._element(step, type_id, at)
            if following is None:
                return None
            type_id = following
        return Spec(self.target, self.root, tuple(self.steps), self.bit_offset)

    def _element(self, step: Accessor, type_id: int, at: int) -> int | None:
        target = self.target
        type_id = target.resolve(type_id)
        if at > 0:
            if target.type(type_id).kind is not BtfKind.ARRAY:
                return None
            if not _in_array(target, type_id, step.index, self.steps[-1]):
                return None
            type_id = target.resolve(target.array(type_id).element)
        self.steps.append(Accessor(type_id, step.index))
        self.bit_offset += 8 * step.index * target.size_of(type_id)
        return type_id

    def _member(self, step: Accessor, type_id: int) -> int | None:
        """The type of the member of that name, if it is compatible."""
        local_type = self.local.btf.members(step.type)[step.index].type
        found = self._find(str(step.name), local_type, type_id, 0)
        if found is None:
            return None
        accessor, bit_offset, member_type = found
        self.steps.append(accessor)
        self.bit_offset += bit_offset
        return member_type

    def _find(self, name: str, local_type: int, type_id: int, depth: int) -> tuple[Accessor, int, int] | None:
        """Searches a struct and the anonymous ones in it: (the member, its offset in bits, its type)."""
        target = self.target
        type_id = target.resolve(type_id)
        if target.type(type_id).kind not in COMPOSITES:
            return None
        if depth > _DEEPEST:
            raise CoreError(f"anonymous structs of the target are nested more than {_DEEPEST} deep")
        for index, member in enumerate(target.members(type_id)):
            self.work.spend()
            if member.name == name:
                compatible = fields_compatible(self.local.btf, local_type, target, member.type)
                return (Accessor(type_id, index, name), member.bit_offset, member.type) if compatible else None
            if not member.name:
                inner = self._find(name, local_type, member.type, depth + 1)
                if inner is not None:
                    return inner[0], member.bit_offset + inner[1], inner[2]
        return None


def match_enumerator(local: Spec, target: Btf, root: int) -> Spec | None:
    """The enumerator of the same name, flavours apart; None where the target has none."""
    type_id = target.resolve(root)
    if target.type(type_id).kind not in ENUMS:
        return None
    wanted = essential_name(local.steps[0].name or "")
    for index, (name, _) in enumerate(target.enumerators(type_id)):
        if essential_name(name) == wanted:
            return Spec(target, root, (Accessor(type_id, index, name),))
    return None


def fields_compatible(local: Btf, local_id: int, target: Btf, target_id: int) -> bool:
    """Whether a field of one type may be read as one of another: sizes and signs of integers do not matter."""
    for _ in range(_DEEPEST):
        local_id, target_id = local.resolve(local_id), target.resolve(target_id)
        one, other = local.type(local_id), target.type(target_id)
        if one.kind in COMPOSITES and other.kind in COMPOSITES:
            return True
        if not same_kind(one.kind, other.kind):
            return False
        if one.kind in (BtfKind.PTR, BtfKind.FLOAT):
            return True
        if one.kind is BtfKind.FWD or one.kind in ENUMS:
            names = essential_name(one.name), essential_name(other.name)
            return not all(names) or names[0] == names[1]
        if one.kind is BtfKind.INT:
            return local.integer(local_id).bit_offset == target.integer(target_id).bit_offset == 0
        if one.kind is not BtfKind.ARRAY:
            return False
        local_id, target_id = local.array(local_id).element, target.array(target_id).element
    raise CoreError(f"arrays are nested more than {_DEEPEST} deep")


# -- whole types -------------------------------------------------------------------------------------------------------


def types_compatible(local: Btf, local_id: int, target: Btf, target_id: int, work: Work) -> bool:
    """Whether a type exists as another: kinds agree, through pointers, arrays and what functions take and return."""
    if not same_kind(local.type(local_id).kind, target.type(target_id).kind):
        return False
    return _compatible(local, local_id, target, target_id, work, _DEEPEST)


def _compatible(local: Btf, local_id: int, target: Btf, target_id: int, work: Work, level: int) -> bool:
    work.spend()
    if level <= 0:
        raise CoreError(f"types are nested more than {_DEEPEST} deep")
    local_id, target_id = local.resolve(local_id), target.resolve(target_id)
    one, other = local.type(local_id), target.type(target_id)
    if not same_kind(one.kind, other.kind):
        return False
    if one.kind is BtfKind.INT:
        return local.integer(local_id).bit_offset == target.integer(target_id).bit_offset == 0
    pairs: list[tuple[int, int]] = []
    if one.kind is BtfKind.PTR:
        pairs = [(one.target, other.target)]
    elif one.kind is BtfKind.ARRAY:
        pairs = [(local.array(local_id).element, target.array(target_id).element)]
    elif one.kind is BtfKind.FUNC_PROTO:
        if one.vlen != other.vlen:
            return False
        pairs = _signature_pairs(local, local_id, target, target_id)
    elif one.kind not in COMPOSITES | ENUMS | {BtfKind.VOID, BtfKind.FWD}:
        return False
    return all(_compatible(local, a, target, b, work, level - 1) for a, b in pairs)


def _signature_pairs(local: Btf, local_id: int, target: Btf, target_id: int) -> list[tuple[int, int]]:
    params = zip(local.params(local_id), target.params(target_id), strict=True)
    return [(a.type, b.type) for a, b in params] + [(local.result(local_id), target.result(target_id))]


class Match:
    """Whether a type matches another: every local member is there and matches, integers in size and sign.

    Behind a pointer only names and kinds of structs count.
    """

    def __init__(self, local: Btf, target: Btf, work: Work) -> None:
        self.local, self.target, self.work = local, target, work

    def types(self, local_id: int, target_id: int, behind_pointer: bool = False, level: int = _DEEPEST) -> bool:
        """Whether the types with these ids match. Raises CoreError where they are nested too deep."""
        self.work.spend()
        if level <= 0:
            raise CoreError(f"types are nested more than {_DEEPEST} deep")
        local, target = self.local, self.target
        local_id, target_id = local.resolve(local_id), target.resolve(target_id)
        one, other = local.type(local_id), target.type(target_id)
        if not _names_match(one.name, other.name):
            return False
        if one.kind is BtfKind.FWD or one.kind in COMPOSITES:
            return self._aggregates(local_id, target_id, behind_pointer, level)
        if one.kind in ENUMS and other.kind in ENUMS:
            return self._enums(local_id, target_id)
        return one.kind is other.kind and self._equal_kinds(local_id, target_id, behind_pointer, level)

    def _equal_kinds(self, local_id: int, target_id: int, behind_pointer: bool, level: int) -> bool:
        local, target = self.local, self.target
        one, other = local.type(local_id), target.type(target_id)
        if one.kind is BtfKind.INT:
            signs = [local.integer(local_id).encoding & INT_SIGNED, target.integer(target_id).encoding & INT_SIGNED]
            return one.size == other.size and signs[0] == signs[1]
        if one.kind is BtfKind.PTR:
            return self.types(one.target, other.target, True, level - 1)
        if one.kind is BtfKind.ARRAY:
            a, b = local.array(local_id), target.array(target_id)
            return a.count == b.count and self.types(a.element, b.element, behind_pointer, level - 1)
        if one.kind is BtfKind.FUNC_PROTO:
            return one.vlen == other.vlen and all(
                self.types(a, b, behind_pointer, level - 1)
                for a, b in _signature_pairs(local, local_id, target, target_id)
            )
        return one.kind is BtfKind.VOID

    def _aggregates(self, local_id: int, target_id: int, behind_pointer: bool, level: int) -> bool:
        """Structs, unions, forwards. Behind a pointer a forward is as good as its type."""
        one, other = self.local.type(local_id), self.target.type(target_id)
        if behind_pointer:
            return _is_union(self.local, local_id) == _is_union(self.target, target_id) is not None
        if one.kind is not other.kind:
            return False
        if one.kind is BtfKind.FWD:
            return one.flag == other.flag
        if one.vlen > other.vlen:
            return False
        theirs: dict[str, list[int]] = {}
        for member in self.target.members(target_id):
            theirs.setdefault(essential_name(member.name), []).append(member.type)
        return all(
            any(
                self.types(mine.type, candidate, behind_pointer, level - 1)
                for candidate in theirs.get(essential_name(mine.name), ())
            )
            for mine in self.local.members(local_id)
        )

    def _enums(self, local_id: int, target_id: int) -> bool:
        if self.local.type(local_id).size != self.target.type(target_id).size:
            return False
        theirs = {essential_name(name) for name, _ in self.target.enumerators(target_id)}
        return all(essential_name(name) in theirs for name, _ in self.local.enumerators(local_id))


def _names_match(one: str, other: str) -> bool:
    return essential_name(one) == essential_name(other)


def _is_union(btf: Btf, type_id: int) -> bool | None:
    """Whether a struct, union or forward is a union; None for what is none of these."""
    found = btf.type(type_id)
    if found.kind is BtfKind.FWD:
        return found.flag
    return found.kind is BtfKind.UNION if found.kind in COMPOSITES else None
