"""The verifier: for a program and a kernel version, the kernel's verdict. It never asks a kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bpflisp.spec.kernels import MEASURED, neighbours
from simulator.observers import tell_judged
from simulator.verdict import Verdict

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program

__all__ = ["verify"]


def verify(
    program: Program,
    kernel: str = "6.18",
    kernel_btf: str | Path | bytes | Btf | None = None,
    log_level: int = 1,
    cpus: int = 2,
) -> Verdict:
    """The verdict of that kernel's verifier on a program.

    `kernel` is a version, as "6.18" or "6.1.192"; `kernel_btf` the BTF of its vmlinux (path, bytes or read), which
    programs need that use kernel types or functions; `log_level` 0 makes no log, 1 and 2 the kernel's; `cpus` the
    number of possible CPUs, which some bounds depend on. Raises `bpflisp.spec.kernels.UnknownKernelError` and
    `bpflisp.spec.btf.BtfError`.
    """
    from bpflisp.spec.btf import read_btf
    from bpflisp.spec.kernels import profile
    from simulator.verifier.report import garbage_left, judge

    typed = read_btf(kernel_btf) if kernel_btf is not None else None
    with garbage_left():
        verdict = judge(program, profile(kernel), typed, log_level, cpus)
    return tell_judged(program, _with_doubt(_without_what_is_missing(program, verdict), profile(kernel)))


def _with_doubt(verdict: Verdict, asked: Profile) -> Verdict:
    """The verdict; of a release that was never booted and asked, with a note that says so."""
    if asked.measured:
        return verdict
    before, after = neighbours(asked.version, MEASURED)
    between = f"between {before} and {after}" if before and after else f"near {before or after}"
    note = (
        f"kernel {asked.name} was not measured: what it has is known by its features, how it reasons by rules whose "
        f"release is known, {between}"
    )
    return replace(verdict, warnings=(*verdict.warnings, note))


def _without_what_is_missing(program: Program, verdict: Verdict) -> Verdict:
    """An older kernel refuses what it does not have, whatever our walk through the program said of the rest.

    The words of its refusal are not known for each feature, so the message says what is missing, in ours.
    """
    from simulator.needs import missing

    lacks = missing(program, verdict.kernel) if verdict.accepted else []
    if not lacks:
        return verdict
    message = f"{lacks[0].feature} needs kernel {lacks[0].kernel}"
    return replace(verdict, accepted=False, message=message, code="needs-newer-kernel", insn=lacks[0].insn)
