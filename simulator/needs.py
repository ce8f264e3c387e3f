"""The least kernel that a program needs, feature by feature, with the instruction that asks for each.

What is said is a lower bound by features alone: an older kernel lacks something named here. Whether its verifier also
follows the program is another question, which `verify` answers for a kernel's profile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass
from bpflisp.spec import helpers, isa, kernels, kfuncs, maps, programs
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind, Op
from simulator.program import MapDef, Program

_TAIL_CALL: Final = 12
_OLD_LENGTH: Final = 4096
_ADDRESS_SPACE_CAST: Final = 1
_GOTOL: Final = "isa v4: gotol"

# Kinds of instruction -> the feature that brought them, by its name in `spec.kernels.features`.
_BY_KIND: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.LOAD_SIGNED: "isa-v4-ldsx-movsx-bswap-sdiv-smod-gotol",
        Kind.LOAD_ACQUIRE: "load-acquire-store-release",
        Kind.STORE_RELEASE: "load-acquire-store-release",
        Kind.MAY_GOTO: "may-goto",
    }
)
_OF_ISA_V4: Final = frozenset({Op.SDIV, Op.SMOD, Op.MOVSX8, Op.MOVSX16, Op.MOVSX32, Op.SWAP})
_OF_ISA_V2: Final = frozenset({Op.LT, Op.LE, Op.SLT, Op.SLE})
_BY_PSEUDO: Final[Mapping[int, str]] = MappingProxyType(
    {
        isa.PSEUDO_MAP_VALUE: "global-data-data-rodata-bss",
        isa.PSEUDO_MAP_IDX_VALUE: "global-data-data-rodata-bss",
        isa.PSEUDO_BTF_ID: "ksym-extern-typed",
        isa.PSEUDO_FUNC: "callback-func-pointer-pseudo-func",
    }
)
_PROGRAM_FLAGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        programs.F_STRICT_ALIGNMENT: "BPF_F_STRICT_ALIGNMENT",
        programs.F_ANY_ALIGNMENT: "BPF_F_ANY_ALIGNMENT",
        programs.F_TEST_RND_HI32: "BPF_F_TEST_RND_HI32",
        programs.F_TEST_STATE_FREQ: "BPF_F_TEST_STATE_FREQ",
        programs.F_SLEEPABLE: "BPF_F_SLEEPABLE",
        programs.F_XDP_HAS_FRAGS: "BPF_F_XDP_HAS_FRAGS",
    }
)
_MAP_FLAGS: Final = tuple(
    f"BPF_F_{name}"
    for name in (
        *("NO_PREALLOC", "NO_COMMON_LRU", "NUMA_NODE", "RDONLY", "WRONLY", "STACK_BUILD_ID", "ZERO_SEED"),
        *("RDONLY_PROG", "WRONLY_PROG", "CLONE", "MMAPABLE", "PRESERVE_ELEMS", "INNER_MAP", "LINK", "PATH_FD"),
        *("VTYPE_BTF_OBJ_FD", "TOKEN_FD", "SEGV_ON_FAULT", "NO_USER_CONV"),
    )
)
"""The flags of a map from bit 0 on."""


_LOOPS = "bounded-loops"
_EVER_SINCE = frozenset({Kind.LOAD, Kind.STORE, Kind.STORE_IMM, Kind.EXIT, Kind.NEG})
"""Kinds of instructions that every kernel with eBPF has."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a program needs: the first release that has it ("5.18"), what it is, and which slot asks.

    `insn` is None where no instruction does: the program's type, a flag, a map. `to_attach` says that an older kernel
    loads the program all the same, because it does not look at the attach type before attaching.
    """

    kernel: str
    feature: str
    insn: int | None = None
    to_attach: bool = False


def needs(program: Program) -> list[Need]:
    """What the program needs, the newest first; each feature once, with the first instruction that asks for it."""
    return _newest_first(chain(_of_program(program), _of_maps(program), _of_code(program), _of_loops(program)))


def _newest_first(asked: Iterable[Need]) -> list[Need]:
    found: dict[str, Need] = {}
    for need in asked:
        if need.kernel:
            found.setdefault(need.feature, need)
    return sorted(found.values(), key=lambda need: kernels.parse(need.kernel), reverse=True)


def least_kernel(program: Program) -> str:
    """The first release that can load the program: "5.18"; "3.18", where eBPF began, if it needs nothing newer."""
    asked = [need.kernel for need in needs(program) if not need.to_attach]
    return asked[0] if asked else "3.18"


def missing(program: Program, kernel: str) -> list[Need]:
    """What that kernel lacks of what the program needs to be loaded, the newest first.

    Where there is something, the kernel refuses the program: none of eleven kernels was seen to load one of three
    thousand. Fixes that a stable line got are taken into account here. UnknownKernelError where `kernel` names none.
    """
    profile = kernels.profile(kernel)
    # looking for loops takes as long as all the rest, and most kernels have them
    loops = () if profile.since(_feature(_LOOPS).kernel) else _of_loops(program)
    asked = chain(_of_program(program), _of_maps(program), _of_code(program), loops)
    return [need for need in _newest_first(asked) if not need.to_attach and not _has(profile, need)]


def _has(profile: kernels.Profile, need: Need) -> bool:
    return profile.since(need.kernel) or (need.feature == _GOTOL and profile.has("gotol"))


def _feature(name: str, insn: int | None = None) -> Need:
    feature = kernels.features()[name]
    return Need(feature.min_kernel, feature.title, insn)


def _of_program(program: Program) -> Iterator[Need]:
    kind = programs.by_name(program.type)
    if kind is not None:
        yield Need(kind.min_kernel, f"program type {kind.name}")
    yield from _of_attach_type(program)
    for bit, flag in _PROGRAM_FLAGS.items():
        if program.flags & bit:
            yield Need(kernels.flag_min_kernel()[flag], f"program flag {flag}")
    if len(program.insns) // 8 > _OLD_LENGTH:
        yield Need("5.2", f"more than {_OLD_LENGTH} instructions", _OLD_LENGTH)


def _of_attach_type(program: Program) -> Iterator[Need]:
    """Where BPF_PROG_LOAD looks at the attach type it has done so ever since it counts; of sk_reuseport, since 5.14."""
    name = program.attach_type
    if name not in programs.attach_numbers():
        return
    kind = programs.by_name(program.type)
    looked_at = kind is not None and programs.load_rules(kind.name).attach_types is not None
    later = not looked_at or program.type == "sk_reuseport"
    yield Need(programs.attach_min_kernel(name), f"attach type {name}", to_attach=later)


def _of_maps(program: Program) -> Iterator[Need]:
    used = {insn.imm for insn in program.code if insn is not None and _names_map(insn)}
    for index in sorted(used):
        if 0 <= index < len(program.maps):
            yield from _of_map(program.maps[index])


def _names_map(insn: Insn) -> bool:
    return insn.row.kind is Kind.LOAD_IMM64 and insn.src in (isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE)


def _of_map(definition: MapDef) -> Iterator[Need]:
    kind = maps.by_name(definition.type)
    if kind is not None:
        yield Need(kind.min_kernel, f"map type {kind.name}")
    for bit, flag in enumerate(_MAP_FLAGS):
        if definition.flags >> bit & 1:
            yield Need(kernels.flag_min_kernel()[flag], f"map flag {flag}")
    if definition.inner is not None:
        yield from _of_map(definition.inner)


def _of_code(program: Program) -> Iterator[Need]:
    tail_call = subprogram = None
    old = _old_opcodes()
    for slot, insn in enumerate(program.code):
        if insn is None or (insn.opcode in old and (not insn.off or insn.opcode & 7 not in (isa.ALU32, isa.ALU64))):
            continue
        yield from _of_insn(insn, slot)
        if insn.row.kind is Kind.CALL:
            yield from _of_call(program, insn, slot)
            if insn.src == isa.CALL_HELPER and insn.imm == _TAIL_CALL:
                tail_call = slot
            if insn.src == isa.CALL_SUBPROGRAM:
                subprogram = slot
    if tail_call is not None and subprogram is not None:
        yield _feature("tail-calls-mixed-with-bpf2bpf-x86-64", tail_call)


@cache
def _old_opcodes() -> frozenset[int]:
    """The opcodes that every kernel with eBPF has, of arithmetic as far as the offset is 0."""
    rows = ((opcode, isa.row_of(opcode, 0, 0)) for opcode in range(256))
    return frozenset(
        opcode
        for opcode, row in rows
        if row.kind in _EVER_SINCE
        or (row.kind in (Kind.ALU, Kind.END) and row.op not in _OF_ISA_V4)
        or (row.kind is Kind.BRANCH and row.width == 64 and row.op not in _OF_ISA_V2)
        or (row.kind is Kind.JUMP and row.width == 64)
    )


def _of_loops(program: Program) -> Iterator[Need]:
    looping = _first_loop(program)
    if looping is not None:
        yield _feature(_LOOPS, looping)


def _of_insn(insn: Insn, slot: int) -> Iterator[Need]:
    row = insn.row
    if row.kind in _BY_KIND:
        yield _feature(_BY_KIND[row.kind], slot)
    elif row.kind in (Kind.ALU, Kind.END) and row.op in _OF_ISA_V4:
        yield _feature("isa-v4-ldsx-movsx-bswap-sdiv-smod-gotol", slot)
    elif row.kind is Kind.JUMP and row.width == 32:
        yield Need(kernels.features()["isa-v4-ldsx-movsx-bswap-sdiv-smod-gotol"].min_kernel, _GOTOL, slot)
    elif row.kind is Kind.ALU and row.op is Op.MOV and row.width == 64 and insn.off == _ADDRESS_SPACE_CAST:
        yield _feature("arena-addr-space-cast", slot)
    elif row.kind is Kind.BRANCH and row.width == 32:
        yield _feature("jmp32-isa-v3", slot)
    elif row.kind is Kind.BRANCH and row.op in _OF_ISA_V2:
        yield _feature("jlt-jle-jslt-jsle-isa-v2", slot)
    elif row.kind is Kind.ATOMIC and (row.fetch or row.op is not Op.ADD):
        yield _feature("atomic-fetch-and-or-xor-xchg-cmpxchg", slot)
    elif row.kind is Kind.LOAD_IMM64 and insn.src in _BY_PSEUDO:
        yield _feature(_BY_PSEUDO[insn.src], slot)


def _of_call(program: Program, insn: Insn, slot: int) -> Iterator[Need]:
    if insn.src == isa.CALL_SUBPROGRAM:
        yield _feature("bpf2bpf-calls", slot)
    elif insn.src == isa.CALL_KFUNC and (insn.imm or program.kfuncs.get(slot)):
        # A call of number 0 is what libbpf leaves of a weak kfunc that is not there: refused only where control comes.
        yield _feature("kfunc-call", slot)
        kfunc = kfuncs.by_name(program.kfuncs.get(slot, ""))
        if kfunc is not None:
            yield Need(kfunc.min_kernel, f"kfunc {kfunc.name}", slot)
    elif insn.src == isa.CALL_HELPER:
        yield from _of_helper(program, insn.imm, slot)


def _of_helper(program: Program, number: int, slot: int) -> Iterator[Need]:
    helper = helpers.by_id(number)
    if helper is None:
        return
    yield Need(helper.min_kernel, f"helper {helper.name}", slot)
    sleepable = bool(program.flags & programs.F_SLEEPABLE)
    allowed = helpers.min_kernel(number, program.type, program.attach_type, sleepable)
    if allowed and kernels.parse(allowed) > kernels.parse(helper.min_kernel):
        yield Need(allowed, f"helper {helper.name} for program type {program.type}", slot)


def _successors(program: Program, slot: int) -> tuple[int, ...]:
    """Where control goes inside a function; a call comes back to the slot behind it."""
    insn = program.code[slot]
    if insn is None or insn.row.kind is Kind.EXIT:
        return ()
    if insn.row.kind is Kind.JUMP:
        return (slot + 1 + (insn.imm if insn.row.width == 32 else insn.off),)
    if insn.row.kind is Kind.BRANCH:
        return slot + 1, slot + 1 + insn.off
    return (slot + insn.slots,)


def _first_loop(program: Program) -> int | None:
    """The slot of a jump back into the path that led to it, found depth first; None where control only goes on.

    A may_goto is not followed: it bounds its loop itself.
    """
    count = len(program.code)
    calls = (
        slot + 1 + insn.imm
        for slot, insn in enumerate(program.code)
        if insn is not None and insn.row.kind is Kind.CALL and insn.src == isa.CALL_SUBPROGRAM
    )
    done: set[int] = set()
    for entry in (0, *calls):
        trail: list[int] = []
        on_trail: set[int] = set()
        pending: list[tuple[int, int]] = [(entry, 0)]
        while pending:
            slot, depth = pending.pop()
            while len(trail) > depth:
                left = trail.pop()
                on_trail.discard(left)
                done.add(left)
            if slot in on_trail:
                return trail[-1]
            if slot in done or not 0 <= slot < count:
                continue
            trail.append(slot)
            on_trail.add(slot)
            pending += [(target, len(trail)) for target in _successors(program, slot)]
        done |= on_trail
    return None
