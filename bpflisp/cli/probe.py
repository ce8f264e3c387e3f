"""`bpflisp probe`: what this kernel offers, for `--kernel FILE.json` on machines that have no such kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bpflisp.cli.errors import fail


@click.command("probe")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="A file for the profile; else it is printed.")
def command(output: str | None) -> int:
    """Ask this kernel which helpers it offers to which program types; needs root, or CAP_BPF.

    What it answers is a profile: `bpflisp check FILE --kernel PROFILE.json` judges for this kernel anywhere.
    """
    from simulator.engines.bpf_syscall import BpfError
    from simulator.engines.probe import probe

    try:
        profile = probe(_progress)
    except BpfError as problem:
        fail("no-kernel", "this kernel cannot be asked", because=str(problem), help="run it as root, or with CAP_BPF")
    text = json.dumps(profile) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as problem:
        fail("unwritable", f"cannot be written: {problem.strerror}", where=output)
    click.echo(f"wrote {output}: kernel {profile['release']}")
    return 0


def _progress(program_type: str) -> None:
    """Shows on a terminal which program type is asked about."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[Kasking about {program_type}", nl=False, err=True)
