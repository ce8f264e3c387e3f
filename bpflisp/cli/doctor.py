"""`bpflisp doctor`: what this host offers, and what is missing without it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click

VMLINUX = Path("/sys/kernel/btf/vmlinux")
TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


@dataclass(frozen=True)
class Finding:
    """One thing that a host may have: whether it does, and what that means."""

    name: str
    there: bool
    told: str


@click.command("doctor")
def command() -> int:
    """Print what this host offers: the kernel engine, BTF, tracefs, Unicorn, clang. None of it is needed to verify."""
    for finding in findings():
        mark = click.style("yes", fg="green") if finding.there else click.style("no ", fg="yellow")
        click.echo(f"{finding.name:<14} {mark}  {finding.told}")
    return 0


def findings() -> Iterator[Finding]:
    """Looks, one thing after the other."""
    yield Finding("python", True, f"{platform.python_implementation()} {platform.python_version()}")
    yield _kernel_engine()
    yield Finding("kernel BTF", VMLINUX.exists(), _btf())
    yield _tracefs()
    yield _unicorn()
    yield _tool("clang", "compiles C to objects")
    yield _tool("bpftool", "loads and inspects objects in the kernel")


def _kernel_engine() -> Finding:
    from simulator.engines.bpf_syscall import available

    works, why = available()
    return Finding("kernel engine", works, f"kernel {platform.release()}" if works else why)


def _btf() -> str:
    if not VMLINUX.exists():
        return f"{VMLINUX} is missing: give another kernel's by --kernel-btf"
    return f"{VMLINUX}, {VMLINUX.stat().st_size // 1024} KiB, for --kernel-btf"


def _tracefs() -> Finding:
    readable = [path for path in TRACEFS if os.access(path / "trace", os.R_OK)]
    told = str(readable[0]) if readable else "what programs print on the kernel engine cannot be read"
    return Finding("tracefs", bool(readable), told)


def _unicorn() -> Finding:
    if find_spec("unicorn") is None:
        return Finding("unicorn", False, "the native engine needs it: pip install 'bpflisp[native]'")
    from importlib.metadata import version

    return Finding("unicorn", True, f"{version('unicorn')}, for the native engine")


def _tool(name: str, purpose: str) -> Finding:
    found = shutil.which(name) or next(filter(None, map(shutil.which, _versions(name))), None)
    return Finding(name, found is not None, found or f"not in PATH; it {purpose}")


def _versions(name: str) -> Iterator[str]:
    return (f"{name}-{number}" for number in range(22, 10, -1))
