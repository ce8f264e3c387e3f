"""Global functions of a program: verified by themselves, by what BTF says of their arguments.

Source: btf_prepare_func_args of kernel/bpf/btf.c and btf_check_func_arg_match of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpflisp.lean import dataclass
from bpflisp.spec.alu import signed
from bpflisp.spec.btf import Btf, BtfError, BtfKind, BtfType
from simulator.verifier import access, dynptrs, structs
from simulator.verifier import regs as r
from simulator.verifier.branches import not_null
from simulator.verifier.helper_args import check_argument_offset
from simulator.verifier.refusal import Refused, Unsupported
from simulator.verifier.regs import ZERO, Reg, is_null, type_name
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import Frame

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_EFAULT = 14
_SCALARS = frozenset({BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64})

CONTEXT_NAMES = {
    "socket_filter": "__sk_buff", "sched_cls": "__sk_buff", "sched_act": "__sk_buff", "cgroup_skb": "__sk_buff",
    "lwt_in": "__sk_buff", "lwt_out": "__sk_buff", "lwt_xmit": "__sk_buff", "lwt_seg6local": "__sk_buff",
    "sk_skb": "__sk_buff", "flow_dissector": "__sk_buff", "xdp": "xdp_md", "cgroup_sock": "bpf_sock",
    "cgroup_sock_addr": "bpf_sock_addr", "sock_ops": "bpf_sock_ops", "sk_msg": "sk_msg_md",
    "kprobe": "bpf_user_pt_regs_t", "tracepoint": "__u64", "perf_event": "bpf_perf_event_data",
    "raw_tracepoint": "bpf_raw_tracepoint_args", "raw_tracepoint_writable": "bpf_raw_tracepoint_args",
    "cgroup_device": "bpf_cgroup_dev_ctx", "cgroup_sysctl": "bpf_sysctl", "cgroup_sockopt": "bpf_sockopt",
    "sk_reuseport": "sk_reuseport_md", "sk_lookup": "bpf_sk_lookup", "netfilter": "bpf_nf_ctx", "lirc_mode2": "__u32",
    "syscall": "", "struct_ops": "", "ext": "", "lsm": "", "tracing": "",
}  # fmt: skip
"""Program type -> the structure that a global function's argument has to point to for the context."""


_OBJECTS = (r.PTR_BTF_ID, r.PTR_BTF_ID | r.TRUSTED, r.PTR_BTF_ID | r.MEM_RCU)

# Tag of an argument -> the release since which it is known.
_KNOWN_TAGS = {
    "ctx": "6.8",
    "nonnull": "6.8",
    "trusted": "6.9",
    "nullable": "6.9",
    "arena": "6.10",
    "untrusted": "6.17",
}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a global function.

    `kind` is "context", "number", "memory" of so many bytes, "untrusted memory", "dynptr", "arena", or "object": a
    pointer to the kernel structure `type_id`, untrusted where that is set.
    """

    kind: str
    size: int = 0
    may_be_null: bool = False
    type_id: int = 0
    untrusted: bool = False


class Globals:
    """The global functions that were called and verified."""

    def __init__(self) -> None:
        self.called: set[int] = set()
        self.verified: set[int] = set()
        self._unreliable: set[int] = set()
        self._arguments: dict[int, tuple[Argument, ...]] = {}

    def check_main(self, m: Machine) -> None:
        """What BTF says of the entry function matters to nobody but the log, where the kernel complains of it."""
        subprogram = m.layout.subprograms[0]
        if not m.log.on or not subprogram.is_global:
            return
        try:
            self.arguments(m, 0)
        except Refused as refusal:
            if isinstance(refusal, Unsupported):
                return

    def arguments(self, m: Machine, number: int) -> tuple[Argument, ...]:
        """What BTF says of the arguments. Raises Refused in the kernel's words."""
        known = self._arguments.get(number)
        if known is None:
            known = self._arguments[number] = self._read(m, number)
        return known

    def _read(self, m: Machine, number: int) -> tuple[Argument, ...]:
        subprogram = m.layout.subprograms[number]
        btf = m.program.btf
        if btf is None or not subprogram.type_id:
            raise Refused("Global functions need valid BTF", errno=_EFAULT)
        proto = btf.func_proto(subprogram.type_id)
        params = btf.params(proto)
        if len(params) > 5:
            m.fail(f"Global function {subprogram.name}() with {len(params)} > 5 args. Buggy compiler.")
        result = btf.type(btf.resolve(btf.result(proto))) if btf.result(proto) else None
        if result is None or result.kind not in _SCALARS:
            m.fail(f"Global function {subprogram.name}() doesn't return scalar. Only those are supported.")
        return tuple(
            self._argument(m, btf, subprogram.type_id, index, param.type, subprogram.name)
            for index, param in enumerate(params)
        )

    def _argument(self, m: Machine, btf: Btf, func: int, index: int, type_id: int, name: str) -> Argument:
        head = btf.type(btf.resolve(type_id))
        tags = _tags(m, btf, func, index)
        if head.kind is not BtfKind.PTR:
            if tags:
                m.fail(f"arg#{index} has pointer tag, but is not a pointer type")
            if head.kind in _SCALARS:
                return Argument("number")
            m.fail(f"Arg#{index} type {head.kind.name} in {name}() is not supported yet.")
        if "ctx" in tags or self._is_context(m, btf, head.target):
            _only(m, index, tags, "ctx")
            if "ctx" in tags:
                self._check_context(m, btf, index, head.target)
            return Argument("context")
        if not m.ways.global_memory_arguments:
            m.fail(f"Arg#{index} type {head.kind.name} in {name}() is not supported yet.")
        pointee = btf.type(btf.resolve(head.target)) if head.target else None
        if pointee is not None and pointee.kind is BtfKind.STRUCT and pointee.name in ("bpf_dynptr", "bpf_dynptr_kern"):
            _only(m, index, tags, "")
            return Argument("dynptr")
        if "trusted" in tags:
            _only(m, index, tags, "trusted nullable untrusted arena ctx")
            found = _kernel_structure(m, index, pointee)
            return Argument("object", may_be_null="nullable" in tags, type_id=found)
        if "untrusted" in tags:
            return _untrusted(m, index, tags, pointee)
        if "arena" in tags:
            if tags != {"arena"}:
                m.fail(f"arg#{index} arena cannot be combined with any other tags")
            return Argument("arena")
        if "nullable" in tags:
            m.fail(f"arg#{index} has invalid combination of tags")
        try:
            size = btf.size_of(head.target)
        except BtfError:
            kind = "UNKNOWN" if pointee is None or pointee.kind is BtfKind.VOID else pointee.kind.name
            shown = "" if pointee is None or pointee.kind is BtfKind.VOID else pointee.name
            m.fail(f"arg#{index} reference type('{kind} {shown}') size cannot be determined: -22")
        return Argument("memory", signed(size, 32), "nonnull" not in tags)

    def _is_context(self, m: Machine, btf: Btf, target: int) -> bool:
        wanted = CONTEXT_NAMES.get(m.program_type, "")
        at = target
        while at and btf.type(at).kind in (BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT, BtfKind.TYPE_TAG):
            at = btf.type(at).target
        while at and btf.type(at).kind is BtfKind.TYPEDEF:
            if btf.type(at).name == wanted == "bpf_user_pt_regs_t":
                return True
            at = btf.skip_modifiers(btf.type(at).target)
        if not at:
            return False
        head = btf.type(at)
        named = "pt_regs" if wanted == "bpf_user_pt_regs_t" else wanted  # a typedef stands for what it names
        return head.kind is BtfKind.STRUCT and bool(wanted) and head.name == named

    def _check_context(self, m: Machine, btf: Btf, index: int, target: int) -> None:
        """That what an argument with the tag `ctx` points to may be this program type's context."""
        wanted = CONTEXT_NAMES.get(m.program_type, "")
        at, regs = target, "bpf_user_pt_regs_t"
        if m.program_type in ("kprobe", "perf_event"):
            at = btf.skip_modifiers(at)
            if at and btf.type(at).kind is BtfKind.TYPEDEF and btf.type(at).name == regs:
                return
        at = btf.resolve(at) if at else 0
        if not at or btf.type(at).kind is BtfKind.VOID:
            return
        head = btf.type(at)
        if not head.name:
            m.fail(f"arg#{index} type doesn't have a name")
        structure = head.kind is BtfKind.STRUCT
        if m.program_type in ("tracepoint", "syscall", "ext"):
            return
        if m.program_type in ("kprobe", "perf_event") and structure and head.name == "pt_regs":
            return
        if _takes_words(m) and head.kind is BtfKind.INT and btf.size_of(at) == 8:
            return
        if m.program_type == "tracing" and structure:
            if m.attach_type == "trace_raw_tp" and head.name == "bpf_raw_tracepoint_args":
                return
            if m.attach_type == "trace_iter" and head.name.startswith("bpf_iter__"):
                return
        if not wanted or wanted.startswith("__u"):
            m.fail(f"arg#{index} should be void pointer")
        wanted = "pt_regs" if wanted == regs else wanted
        if not structure or head.name != wanted:
            m.fail(f"arg#{index} should be `struct {wanted} *`")

    def takes(self, m: Machine, number: int) -> bool:
        """Whether the registers are what a function's signature wants; what is wrong with them is in the log."""
        try:
            self._match(m, number)
        except Unsupported:
            raise
        except Refused as refusal:
            if refusal.errno == _EFAULT:
                raise
            return False
        return True

    def complain(self, m: Machine, number: int) -> None:
        """What the log says of the arguments of a static function, which nothing comes of: they are walked through."""
        if not m.log.on or not m.ways.global_argument_tags or number in self._unreliable:
            return
        self._unreliable.add(number)
        try:
            for index, kind in enumerate(self._of_static(m, number)):
                reg = m.frame.regs[index + 1]
                if kind == "number" and reg.type != r.SCALAR:
                    m.fail(f"R{index + 1} is not a scalar")
                if kind == "context":
                    check_argument_offset(m, index + 1, reg, False)
                    if reg.type != r.PTR_CTX:
                        m.fail(f"arg#{index} expects pointer to ctx")
        except Refused:
            return
        self._unreliable.discard(number)

    def _of_static(self, m: Machine, number: int) -> list[str]:
        """Whether each argument is a number or the context; nothing where one is neither, or the result no number."""
        subprogram, btf = m.layout.subprograms[number], m.program.btf
        if btf is None or not subprogram.type_id:
            return []
        proto = btf.func_proto(subprogram.type_id)
        params = btf.params(proto)
        result = btf.type(btf.resolve(btf.result(proto))) if btf.result(proto) else None
        if len(params) > 5 or result is None or result.kind not in _SCALARS:
            return []
        kinds = []
        for index, param in enumerate(params):
            if any(of == index and tag.startswith("arg:") for tag, of in btf.tags(subprogram.type_id)):
                m.fail(f"arg#{index} type tag is not supported in static functions")
            head = btf.type(btf.resolve(param.type))
            context = head.kind is BtfKind.PTR and self._is_context(m, btf, head.target)
            if not context and head.kind not in _SCALARS:
                return []
            kinds.append("context" if context else "number")
        return kinds

    def _match(self, m: Machine, number: int) -> None:
        for index, argument in enumerate(self.arguments(m, number)):
            register = index + 1
            reg = m.frame.regs[register]
            if argument.untrusted:
                continue
            if argument.kind == "arena":
                if reg.type not in (r.PTR_ARENA, r.SCALAR):
                    m.fail(f"R{register} is not a pointer to arena or scalar.")
                continue
            if argument.kind == "object":
                self._match_object(m, register, reg, argument)
                continue
            if argument.kind == "number":
                if reg.type != r.SCALAR:
                    m.fail(f"R{register} is not a scalar")
                continue
            check_argument_offset(m, register, reg, False)
            if argument.kind == "dynptr":
                dynptrs.check(m, register, reg, "", True)
            elif argument.kind == "context":
                if reg.type != r.PTR_CTX:
                    m.fail(f"arg#{index} expects pointer to ctx")
            else:
                self._match_memory(m, register, reg, argument, index)

    def _match_object(self, m: Machine, register: int, reg: Reg, argument: Argument) -> None:
        if argument.may_be_null and is_null(reg):
            return
        seen = reg.type & ~r.MAYBE_NULL if argument.may_be_null else reg.type
        if seen not in _OBJECTS:
            expected = ", ".join(type_name(one) for one in _OBJECTS)
            m.fail(f"R{register} type={type_name(reg.type)} expected={expected}")
        kernel = m.kernel_btf
        assert kernel is not None  # the argument's structure was found in it
        access.check_offset_free(m, register, reg, fixed_ok=True)
        btf, type_id = reg.data
        if not structs.matches(m, btf, type_id, reg.off, kernel, argument.type_id, False):
            wanted = kernel.type(argument.type_id).name
            m.fail(f"R{register} is of type {btf.type(type_id).name} but {wanted} is expected")
        check_argument_offset(m, register, reg, False)

    def _match_memory(self, m: Machine, register: int, reg: Reg, argument: Argument, index: int) -> None:
        if is_null(reg):
            pass
        else:
            if reg.type & r.MAYBE_NULL:
                m.frame.regs[register] = not_null(reg)
            try:
                access.check_helper_memory(m, register, argument.size, False, True)
                access.check_helper_memory(m, register, argument.size, True, True)
            finally:
                m.frame.regs[register] = reg
        if not argument.may_be_null and reg.type & r.MAYBE_NULL:
            m.fail(f"arg#{index} is expected to be non-NULL")

    def set_up(self, m: Machine, number: int, frame: Frame) -> None:
        """The arguments that a global function is verified with: anything that its signature allows."""
        if m.layout.subprograms[number].is_exception_callback:
            frame.in_exception_callback = True
            if [one.kind for one in self.arguments(m, number)] != ["number"]:
                m.fail("exception cb only supports single integer argument")
        for index, argument in enumerate(self.arguments(m, number)):
            register = index + 1
            if argument.kind == "context":
                frame.regs[register] = Reg(r.PTR_CTX, 0, ZERO)
            elif argument.kind == "number" or argument.kind == "arena":
                frame.regs[register] = UNKNOWN_REG
            elif argument.kind == "dynptr":
                frame.regs[register] = Reg(r.PTR_DYNPTR, 0, ZERO, m.new_id(), data=("local", True))
            elif argument.kind == "object":
                trust = r.UNTRUSTED if argument.untrusted else r.TRUSTED
                kind = r.PTR_BTF_ID | trust | (r.MAYBE_NULL if argument.may_be_null else 0)
                frame.regs[register] = Reg(kind, 0, ZERO, m.new_id(), data=(m.kernel_btf, argument.type_id))
            elif argument.untrusted:
                frame.regs[register] = Reg(r.PTR_MEM | r.MEM_RDONLY | r.UNTRUSTED, 0, ZERO, data=(0, 0))
            else:
                kind = r.PTR_MEM | (r.MAYBE_NULL if argument.may_be_null else 0)
                identity = m.new_id() if argument.may_be_null else 0
                frame.regs[register] = Reg(kind, 0, ZERO, identity, data=(argument.size, 0))

    def returns_void(self, m: Machine, number: int) -> bool:
        """Whether a function returns nothing."""
        btf = m.program.btf
        subprogram = m.layout.subprograms[number]
        return btf is not None and bool(subprogram.type_id) and btf.result(btf.func_proto(subprogram.type_id)) == 0

    def function_pointer(self, m: Machine, number: int) -> Reg:
        """The address of a function, to be given to a helper as its callback."""
        subprogram = m.layout.subprograms[number]
        if not m.program.func_info:
            m.fail("missing btf func_info")
        if subprogram.is_global:
            m.fail("callback function not static")
        if number == 0:
            m.fail("callback function cannot be the main program")
        return Reg(r.PTR_FUNC, 0, ZERO, data=number)


def _takes_words(m: Machine) -> bool:
    """Whether a program's context is, or may be called, an array of 64-bit words."""
    words = ("raw_tracepoint", "raw_tracepoint_writable", "lsm", "struct_ops")
    return m.program_type in words or (m.program_type == "tracing" and m.attach_type != "trace_iter")


def _tags(m: Machine, btf: Btf, func: int, index: int) -> frozenset[str]:
    """The tags of an argument, without their prefix."""
    if not m.ways.global_argument_tags:
        return frozenset()
    tags = {tag for tag, component in btf.tags(func) if component == index and tag.startswith("arg:")}
    found = frozenset(tag.removeprefix("arg:") for tag in tags)
    if not all(tag in _KNOWN_TAGS and m.layout.profile.since(_KNOWN_TAGS[tag]) for tag in found):
        m.fail(f"arg#{index} has unsupported set of tags")
    return found


def _only(m: Machine, index: int, tags: frozenset[str], allowed: str) -> None:
    if tags - set(allowed.split()):
        m.fail(f"arg#{index} has invalid combination of tags")


def _untrusted(m: Machine, index: int, tags: frozenset[str], pointee: BtfType | None) -> Argument:
    """A pointer that may be anything: what it points to is only read, and reads that fail give zero."""
    if tags != {"untrusted"}:
        m.fail(f"arg#{index} untrusted cannot be combined with any other tags")
    if pointee is None or pointee.kind in _SCALARS:
        return Argument("untrusted memory", untrusted=True)
    found = _kernel_structure(m, index, pointee)
    assert m.kernel_btf is not None  # `_kernel_structure` looked there
    head = m.kernel_btf.type(found)
    if head.kind not in (BtfKind.STRUCT, BtfKind.UNION):
        m.fail(f"arg#{index} has type {head.kind.name} '', but only struct or primitive types are allowed")
    return Argument("object", type_id=found, untrusted=True)


def _kernel_structure(m: Machine, index: int, pointee: BtfType | None) -> int:
    """The kernel's type of the name, without flavour, that the program gives an argument."""
    if m.kernel_btf is None:
        m.unsupported("a global function's argument that is a kernel object, without the kernel's BTF")
    kind, name = ("UNKNOWN", "(anon)") if pointee is None else (pointee.kind.name, pointee.name)
    essential = name.rpartition("___")[0] or name
    ids = m.kernel_btf.of_essential_name(essential) if pointee is not None else ()
    same = [one for one in ids if m.kernel_btf.type(one).kind is (None if pointee is None else pointee.kind)]
    if not same:
        m.unsupported(f"a global function's argument of type {name}, which a module of the kernel may have")
    if len(same) > 1:
        m.fail(f"arg#{index} reference type('{kind} {name}') is ambiguous")
    return same[0]
