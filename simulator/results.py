"""What a call of a program gives back, and what it is compared with: values that print as their names.

    fw(packet) == Drop        w.xdp_fw(packet) == Redirect(7).with_packet(expected)        fw(packet) == 1

Invariant: an expectation says what it wants in the words of no program type; `Result` knows its program's type and
decides. So `Pass` is XDP_PASS, TC_ACT_OK, 1 of a cgroup program and anything but 0 of a socket filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from bpflisp.diagnostics import Diagnostic, Severity
from bpflisp.lean import dataclass, replace
from bpflisp.spec.programs import action_name

if TYPE_CHECKING:
    from simulator.outcome import Outcome
    from simulator.program import Program
    from simulator.verdict import Verdict

PASS, DROP, TX, ABORTED, REDIRECT = "Pass", "Drop", "Tx", "Aborted", "Redirect"

_TC: Final = MappingProxyType({0: PASS, 2: DROP, 7: REDIRECT})
_CGROUP: Final = MappingProxyType({0: DROP, 1: PASS})
_LWT: Final = MappingProxyType({0: PASS, 2: DROP, 7: REDIRECT})

MEANINGS: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {
        "xdp": MappingProxyType({0: ABORTED, 1: DROP, 2: PASS, 3: TX, 4: REDIRECT}),
        "sched_cls": _TC,
        "sched_act": _TC,
        **dict.fromkeys(
            ("cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "cgroup_device", "cgroup_sysctl", "cgroup_sockopt"),
            _CGROUP,
        ),
        **dict.fromkeys(("sk_skb", "sk_msg", "sk_lookup", "sk_reuseport", "netfilter"), _CGROUP),
        **dict.fromkeys(("lwt_in", "lwt_out", "lwt_xmit"), _LWT),
        "flow_dissector": MappingProxyType({0: PASS, 2: DROP}),
    }
)
"""Program type -> return value -> what it does to the packet or the request, in the words of `Expectation`."""


def meaning(program_type: str, retval: int) -> str:
    """What a return value does: "Pass", "Drop" and so on; "" where it has no such word. `retval` is unsigned."""
    if program_type == "socket_filter":
        return PASS if retval else DROP
    return MEANINGS.get(program_type, {}).get(retval, "")


def signed(retval: int) -> int:
    """A 32-bit return value as C's int."""
    return retval - (1 << 32) if retval >> 31 else retval


@dataclass(frozen=True, eq=False)
class Expectation:
    """An action, and with it the target and the packet where they matter.

    `action` is a meaning ("Drop") or a kernel's name ("TC_ACT_PIPE"); `target` an interface index or a map's name and
    key, None for any; `packet` the bytes that have to leave, None for any.
    """

    action: str
    target: int | tuple[str, object] | None = None
    packet: bytes | None = None

    def with_packet(self, packet: Any) -> Expectation:
        """The same, and the packet has to be this one: bytes, or a scapy packet."""
        return replace(self, packet=bytes(packet))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Result):
            return other == self
        if isinstance(other, Expectation):
            return (self.action, self.target, self.packet) == (other.action, other.target, other.packet)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.action, self.target, self.packet))

    def __repr__(self) -> str:
        name = f"TcAct.{self.action[7:]}" if self.action.startswith("TC_ACT_") else self.action
        if self.action == REDIRECT and self.target is not None:
            shown = self.target if isinstance(self.target, tuple) else (self.target,)
            name = f"Redirect({', '.join(repr(part) for part in shown)})"
        return name if self.packet is None else f"{name}.with_packet(<{len(self.packet)} bytes>)"


Pass: Final = Expectation(PASS)
Drop: Final = Expectation(DROP)
Tx: Final = Expectation(TX)
Aborted: Final = Expectation(ABORTED)


def Redirect(target: int | str | None = None, key: object = None) -> Expectation:  # noqa: N802  it reads as a value
    """A redirection to an interface index, or through a map by its name and key; without arguments to anywhere."""
    if isinstance(target, str):
        return Expectation(REDIRECT, (target, key))
    return Expectation(REDIRECT, target)


class TcAct:
    """The return values of TC programs by their kernel names."""

    UNSPEC: Final = Expectation("TC_ACT_UNSPEC")
    OK: Final = Expectation("TC_ACT_OK")
    RECLASSIFY: Final = Expectation("TC_ACT_RECLASSIFY")
    SHOT: Final = Expectation("TC_ACT_SHOT")
    PIPE: Final = Expectation("TC_ACT_PIPE")
    STOLEN: Final = Expectation("TC_ACT_STOLEN")
    QUEUED: Final = Expectation("TC_ACT_QUEUED")
    REPEAT: Final = Expectation("TC_ACT_REPEAT")
    REDIRECT: Final = Expectation("TC_ACT_REDIRECT")
    TRAP: Final = Expectation("TC_ACT_TRAP")


class PacketBytes(bytes):
    """A packet's bytes. Equal to bytes, and to a scapy packet that builds the same ones."""

    def __eq__(self, other: object) -> bool:
        if hasattr(other, "build") and not isinstance(other, bytes):
            return bytes.__eq__(self, bytes(other))  # type: ignore[call-overload]
        return bytes.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return bytes.__hash__(self)

    def show(self) -> str:
        """The packet layer by layer, as scapy shows it."""
        from scapy.layers.l2 import Ether

        return str(Ether(bytes(self)).show(dump=True))


class Result:
    """What a program made of one input. Compares with expectations, ints (signed or not) and other results."""

    __slots__ = ("engine", "outcome", "program")
    __hash__ = None  # type: ignore[assignment]  # equal to things of several kinds, which have other hashes

    def __init__(self, program: Program, outcome: Outcome, engine: str) -> None:
        self.program = program
        self.outcome = outcome
        self.engine = engine

    @property
    def retval(self) -> int:
        """The 32-bit return value, unsigned."""
        return self.outcome.retval

    @property
    def packet(self) -> PacketBytes | None:
        """The packet after the run; None for a program type without one."""
        data = self.outcome.packet
        return None if data is None else PacketBytes(data)

    @property
    def trace(self) -> Sequence[str]:
        """What bpf_trace_printk wrote in this run. Raises EngineUnavailable where the kernel's does not show."""
        if self.engine == "kernel":
            from simulator.engines import kernel_trace
            from simulator.engines.engine import EngineUnavailable

            if why := kernel_trace.unseen(self.program):
                raise EngineUnavailable(why)
        return self.outcome.trace

    @property
    def meaning(self) -> str:
        """ "Pass", "Drop", "Redirect" and so on, "" where the return value has no such word."""
        return meaning(self.program.type, self.retval)

    @property
    def action(self) -> str:
        """The kernel's name of the return value, "XDP_DROP"; the number where it has none."""
        return action_name(self.program.type, self.retval)

    def does(self, expected: Expectation) -> bool:
        """Whether action and target are the expected ones, whatever the packet.

        Raises EngineUnavailable where a target is expected and the engine does not show it.
        """
        if expected.action.startswith("TC_ACT_"):
            return self.program.type in ("sched_cls", "sched_act") and self.action == expected.action
        if self.meaning != expected.action:
            return False
        return expected.target is None or self._target() == expected.target

    def _target(self) -> int | tuple[str, object] | None:
        if self.engine == "kernel" and self.outcome.redirect is None:
            from simulator.engines.engine import EngineUnavailable

            raise EngineUnavailable("the kernel's test run does not show where a packet is redirected to")
        return self.outcome.redirect

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Expectation):
            return self.does(other) and (other.packet is None or other.packet == self.outcome.packet)
        if isinstance(other, Result):
            return self._parts() == other._parts() and self._same_context(other)
        if isinstance(other, int):
            return int(other) in (self.retval, signed(self.retval))
        return NotImplemented

    def _parts(self) -> tuple[object, ...]:
        return self.retval, self.outcome.packet, self.outcome.redirect

    def _same_context(self, other: Result) -> bool:
        """Whether the context's fields are equal; beside the kernel's those alone that it hands back."""
        ours, theirs = self.outcome.context, other.outcome.context
        if "kernel" in (self.engine, other.engine):
            return all(ours[name] == theirs[name] for name in ours if name in theirs)
        return dict(ours) == dict(theirs)

    def __int__(self) -> int:
        return self.retval

    def __index__(self) -> int:
        return self.retval

    def __repr__(self) -> str:
        if self.meaning == REDIRECT:
            return repr(Expectation(REDIRECT, self.outcome.redirect))
        if self.meaning and self.program.type != "socket_filter":
            return self.meaning
        if self.program.type == "socket_filter":
            return DROP if not self.retval else f"Pass (keeps up to {self.retval} bytes)"
        return f"TcAct.{self.action[7:]}" if self.action.startswith("TC_ACT_") else str(signed(self.retval))


@dataclass(frozen=True, eq=False)
class Refused:
    """A refusal by the verifier, to compare a verdict with. `code` is its stable class, "" for any."""

    code: str = ""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Refused):
            return self.code == other.code
        accepted = getattr(other, "accepted", None)
        if accepted is None:
            return NotImplemented
        return not accepted and self.code in ("", getattr(other, "code", None))

    def __hash__(self) -> int:
        return hash(("refused", self.code))

    def __repr__(self) -> str:
        return f"Refused({self.code!r})" if self.code else "Refused()"


def refusal(program: Program, verdict: Verdict, where: str = "") -> Diagnostic:
    """A refusal as a diagnostic. `where` stands for the place where the program has no line information."""
    reason = verdict.reason
    lines = [verdict.source.split(": ", 1)[-1]] if verdict.source else []
    because = advice = ""
    problem = verdict.message or "an error number, and no message"
    if reason is not None:
        # the path ends with the refused instruction itself
        lines += [f"insn {step.insn}: {step.text}  {step.source}".rstrip() for step in reason.path]
        lines += [", ".join(reason.registers)] if reason.registers else []
        because, advice = reason.because, reason.help
    if verdict.insn is not None and not (reason and reason.path):
        lines.append(f"insn {verdict.insn}: {insn_line(program, verdict.insn)}")
    return Diagnostic(
        Severity.REFUSED,
        verdict.code,
        f"{program.name or program.type} on {verdict.kernel}: {problem}",
        where=_place(program, verdict, where),
        lines=lines,
        because=[text for text in (_problem(verdict), because) if text],
        help=[advice] if advice else [],
    )


def _problem(verdict: Verdict) -> str:
    """The problem in our words, where they are not the kernel's."""
    known = verdict.reason.problem if verdict.reason is not None else ""
    return known if known != verdict.message else ""


def _place(program: Program, verdict: Verdict, where: str) -> str:
    if verdict.source:
        return verdict.source.split(": ", 1)[0]
    return where or program.section


def insn_line(program: Program, insn: int) -> str:
    """The text of an instruction as the kernel prints it; "" past the end."""
    from bpflisp.spec.helpers import by_id
    from bpflisp.spec.text import insn_text

    found = program.code[insn] if 0 <= insn < len(program.code) else None
    if found is None:
        return ""
    helper = by_id(found.imm)
    return insn_text(found, {found.imm: helper.name} if helper else {}, program.kfuncs.get(insn, ""))


class RefusedError(Exception):
    """The verifier refuses a program that was called. `verdict` has the details, `program` is the one."""

    def __init__(self, program: Program, verdict: Verdict, where: str = "") -> None:
        self.program, self.verdict, self.where = program, verdict, where
        super().__init__(refusal(program, verdict, where).render())


class FaultError(Exception):
    """A called program did what the kernel's verifier is there to prevent, or asked for what is not modelled."""

    def __init__(self, program: Program, outcome: Outcome, engine: str) -> None:
        self.program, self.outcome, self.engine = program, outcome, engine
        fault = outcome.fault
        assert fault is not None
        found = Diagnostic(
            Severity.ERROR,
            f"fault-{fault.kind}",
            f"{program.name or program.type}: {fault.message}",
            where=fault.source.split(": ", 1)[0] if fault.source else "",
            lines=[
                *([fault.source.split(": ", 1)[-1]] if fault.source else []),
                f"insn {fault.insn}: {insn_line(program, fault.insn)}",
            ],
        )
        super().__init__(found.render())
