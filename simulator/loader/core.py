"""CO-RE: what each record makes of its instruction.

Where no target BTF is given, a program's own BTF is the target, each type standing for itself: that is right for the
stable structs that contexts and packets are made of, and the loader records that it was done.

Source: how libbpf's relo_core.c decides and patches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from bpflisp.spec.btf import COMPOSITES, ENUMS, INT_SIGNED, Btf, BtfKind
from bpflisp.spec.insn import SLOT_SIZE
from bpflisp.spec.isa import ALU32, ALU64, LD, LD_IMM64_OPCODE, LDX, SIZE_BITS, SRC_REG, ST, STX
from simulator.loader.core_match import (
    CoreError,
    Match,
    Spec,
    Work,
    candidates,
    local_enumerator,
    local_field,
    match_enumerator,
    match_field,
    types_compatible,
)

POISON_CALL = 195896080
"""The helper number, no kernel's, that stands where a record could not be satisfied: 0xbad2310, "bad relo"."""

_POISON = struct.pack("<BBhi", 0x85, 0, 0, POISON_CALL)
_SIZES = {bits: size for size, bits in SIZE_BITS.items()}
_LARGEST_OFFSET = 0x7FFF
_M64 = 0xFFFFFFFFFFFFFFFF


class CoreKind(IntEnum):
    """What a record asks for."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12


_FIELD_KINDS = frozenset(CoreKind(number) for number in range(6))
_ENUMERATOR_KINDS = frozenset({CoreKind.ENUMVAL_EXISTS, CoreKind.ENUMVAL_VALUE})


@dataclass(frozen=True, slots=True)
class Answer:
    """One number that a record may stand for. `size` and `type` are those of a field that is read whole, else 0.

    `checked` says that the instruction has to hold the local number before it is patched.
    """

    number: int
    size: int = 0
    type: int = 0
    checked: bool = True


@dataclass(frozen=True, slots=True)
class Resolution:
    """What becomes of an instruction: it holds `old` and gets `new`; no `new` poisons it.

    `misread` says that a load or store may not be changed to the new size.
    """

    old: Answer
    new: Answer | None
    misread: bool = False


class CoreResolver:
    """Answers records of one object against one target; `target` None means the object's own BTF."""

    def __init__(self, local: Btf, target: Btf | None) -> None:
        self.local = local
        self.target = target
        self.work = Work()
        self._known: dict[tuple[int, int, str], Resolution] = {}

    def resolve(self, kind_number: int, root: int, access: str) -> Resolution:
        """What a record stands for. Raises CoreError, and BtfError for types that cannot be."""
        key = (kind_number, root, access)
        if key not in self._known:
            self._known[key] = self._resolve(kind_number, root, access)
        return self._known[key]

    def _resolve(self, kind_number: int, root: int, access: str) -> Resolution:
        try:
            kind = CoreKind(kind_number)
        except ValueError:
            raise CoreError(f"CO-RE record of kind {kind_number}, which there is not") from None
        if kind is CoreKind.TYPE_ID_LOCAL:
            return Resolution(Answer(root, checked=False), Answer(root, checked=False))
        local = self._local(kind, root, access)
        old = _answer(kind, local)
        if old is None:
            raise CoreError(f"{kind.name} of {access!r} is not to be had of the program's own type")
        if not self.local.type(root).name:
            raise CoreError("a CO-RE record of an anonymous type has nothing to be found by")
        return self._agreed(kind, local, old)

    def _local(self, kind: CoreKind, root: int, access: str) -> Spec:
        if kind in _FIELD_KINDS:
            return local_field(self.local, root, access)
        if kind in _ENUMERATOR_KINDS:
            return local_enumerator(self.local, root, access)
        if access != "0":
            raise CoreError(f"access {access[:80]!r} of a whole type")
        return Spec(self.local, root)

    def _agreed(self, kind: CoreKind, local: Spec, old: Answer) -> Resolution:
        """The answer of every candidate that matches; they have to agree."""
        found: list[tuple[int, Answer | None]] = []
        for spec in self._matches(kind, local):
            found.append((spec.bit_offset, _answer(kind, spec)))
        if not found:
            return Resolution(old, _answer(kind, None))
        first_offset, first = found[0]
        for offset, answer in found[1:]:
            if offset != first_offset or (answer and answer.number) != (first and first.number):
                name = self.local.type(local.root).name
                raise CoreError(f"{name!r} has several candidates in the target that do not agree")
        return Resolution(old, first, first is not None and self._is_misread(old, first))

    def _matches(self, kind: CoreKind, local: Spec) -> Iterable[Spec]:
        if self.target is None:
            yield local
            return
        target = self.target
        for candidate in candidates(self.local, local.root, target):
            self.work.spend()
            found: Spec | None = None
            if kind in _FIELD_KINDS:
                found = match_field(local, target, candidate, self.work)
            elif kind in _ENUMERATOR_KINDS:
                found = match_enumerator(local, target, candidate)
            elif kind is CoreKind.TYPE_MATCHES:
                if Match(self.local, target, self.work).types(local.root, candidate):
                    found = Spec(target, candidate)
            elif types_compatible(self.local, local.root, target, candidate, self.work):
                found = Spec(target, candidate)
            if found is not None:
                yield found

    def _is_misread(self, old: Answer, new: Answer) -> bool:
        """Whether a load of the field would be wrong at its new size: only pointers and unsigned integers widen."""
        if old.size == new.size:
            return False
        target = self.target or self.local
        one, other = self.local.type(old.type), target.type(new.type)
        if one.kind is other.kind is BtfKind.PTR:
            return False
        return not (
            one.kind is other.kind is BtfKind.INT
            and self.local.integer(one.id).encoding != INT_SIGNED
            and target.integer(other.id).encoding != INT_SIGNED
        )


# -- numbers -----------------------------------------------------------------------------------------------------------


def _answer(kind: CoreKind, spec: Spec | None) -> Answer | None:
    """The number of a kind; None where there is none, which poisons the instruction."""
    if kind in (CoreKind.FIELD_EXISTS, CoreKind.ENUMVAL_EXISTS, CoreKind.TYPE_EXISTS, CoreKind.TYPE_MATCHES):
        return Answer(int(spec is not None))
    if kind in (CoreKind.TYPE_ID_TARGET, CoreKind.TYPE_SIZE):
        if spec is None:
            return Answer(0)
        if kind is CoreKind.TYPE_SIZE:
            return Answer(spec.btf.size_of(spec.root))
        return Answer(spec.root, checked=False)
    if spec is None:
        return None
    if kind is CoreKind.ENUMVAL_VALUE:
        (step,) = spec.steps
        return Answer(spec.btf.enumerators(step.type)[step.index][1] & _M64)
    return _field_answer(kind, spec)


def _field_answer(kind: CoreKind, spec: Spec) -> Answer:
    btf, step = spec.btf, spec.steps[-1]
    if step.name is None:
        return _element_answer(kind, spec)
    member = btf.members(step.type)[step.index]
    field = btf.resolve(member.type)
    byte_size, byte_offset, bits = _place(spec, field, member.bits)
    if kind is CoreKind.FIELD_BYTE_OFFSET:
        if member.bits:
            return Answer(byte_offset, checked=False)
        return Answer(byte_offset, byte_size, field)
    if kind is CoreKind.FIELD_BYTE_SIZE:
        return Answer(byte_size, checked=not member.bits)
    if kind is CoreKind.FIELD_SIGNED:
        found = btf.type(field)
        signed = (found.kind in ENUMS and found.flag) or (found.kind is BtfKind.INT and btf.integer(field).signed)
        return Answer(int(signed))
    if kind is CoreKind.FIELD_LSHIFT_U64:
        return Answer(64 - (spec.bit_offset + bits - 8 * byte_offset) & _M64, checked=not member.bits)
    return Answer(64 - bits & _M64)


def _element_answer(kind: CoreKind, spec: Spec) -> Answer:
    """The answer for an access that ends in an array's element."""
    step = spec.steps[-1]
    size = spec.btf.size_of(step.type)
    if kind is CoreKind.FIELD_BYTE_OFFSET:
        return Answer(spec.bit_offset // 8, size, step.type)
    if kind is CoreKind.FIELD_BYTE_SIZE:
        return Answer(size)
    raise CoreError(f"{kind.name} of an array's element")


def _place(spec: Spec, field: int, bits: int) -> tuple[int, int, int]:
    """Size and offset in bytes of what is to be loaded, and the bits that the field has.

    A bit-field is loaded by the least integer of its type or wider that holds it all.
    """
    btf = spec.btf
    size = btf.type(field).size if bits else btf.size_of(field)
    if not bits:
        return size, spec.bit_offset // 8, 8 * size
    if not size or btf.type(field).kind in COMPOSITES:
        raise CoreError("a bit-field of a type without a size")
    offset = spec.bit_offset // 8 // size * size
    while spec.bit_offset + bits - 8 * offset > 8 * size:
        if size >= 8:
            raise CoreError("a bit-field that no 64-bit load holds")
        size *= 2
        offset = spec.bit_offset // 8 // size * size
    return size, offset, bits


# -- instructions ------------------------------------------------------------------------------------------------------


def patch(code: bytearray, slot: int, resolution: Resolution) -> None:
    """Changes the instruction at a slot. Raises CoreError where it is none that a record can change."""
    at = slot * SLOT_SIZE
    opcode = code[at]
    cls = opcode & 7
    if opcode == LD_IMM64_OPCODE and at + 2 * SLOT_SIZE > len(code):
        raise CoreError("a 64-bit load without its second half")
    if cls == LD and (opcode != LD_IMM64_OPCODE or any(code[at + 8 : at + 12]) or any(code[at + 2 : at + 4])):
        raise CoreError("a 64-bit load that is none")
    if cls in (ALU32, ALU64) and opcode & SRC_REG:
        raise CoreError("arithmetic on a register has no number to change")
    if cls not in (ALU32, ALU64, LD, LDX, ST, STX):
        raise CoreError(f"an instruction with opcode 0x{opcode:02x} has no number to change")
    if resolution.new is None:
        _poison(code, at, opcode)
    elif cls in (ALU32, ALU64):
        _patch_immediate(code, at, resolution.old, resolution.new)
    elif cls == LD:
        _patch_wide(code, at, resolution.old, resolution.new)
    else:
        _patch_access(code, at, resolution, resolution.new)


def _poison(code: bytearray, at: int, opcode: int) -> None:
    count = 2 if opcode == LD_IMM64_OPCODE else 1
    code[at : at + count * SLOT_SIZE] = _POISON * count


def _expect(old: Answer, held: int) -> None:
    if old.checked and held & _M64 != old.number & _M64:
        raise CoreError(f"the instruction has {held} where the program's own type says {old.number}")


def _patch_immediate(code: bytearray, at: int, old: Answer, new: Answer) -> None:
    _expect(old, struct.unpack_from("<i", code, at + 4)[0])
    struct.pack_into("<I", code, at + 4, new.number & 0xFFFFFFFF)


def _patch_wide(code: bytearray, at: int, old: Answer, new: Answer) -> None:
    low, high = struct.unpack_from("<I", code, at + 4)[0], struct.unpack_from("<I", code, at + 12)[0]
    _expect(old, low | high << 32)
    struct.pack_into("<I", code, at + 4, new.number & 0xFFFFFFFF)
    struct.pack_into("<I", code, at + 12, new.number >> 32 & 0xFFFFFFFF)


def _patch_access(code: bytearray, at: int, resolution: Resolution, new: Answer) -> None:
    """A load or store: its offset, and its size where the field's has changed."""
    _expect(resolution.old, struct.unpack_from("<h", code, at + 2)[0])
    if new.number > _LARGEST_OFFSET:
        raise CoreError(f"offset {new.number} does not fit into a load or store")
    if resolution.misread:
        _poison(code, at, code[at])
        return
    struct.pack_into("<h", code, at + 2, new.number)
    if new.size == resolution.old.size:
        return
    if _SIZES[code[at] & 0x18] != resolution.old.size or new.size not in SIZE_BITS:
        raise CoreError(f"a load or store of {resolution.old.size} bytes cannot become one of {new.size}")
    code[at] = code[at] & ~0x18 | SIZE_BITS[new.size]
