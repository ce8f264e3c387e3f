"""`bpflisp explain`: what a kernel's log says, in plain words, and the page about it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bpflisp.cli.errors import REFUSED, fail


@click.command("explain")
@click.argument("log", type=click.Path(allow_dash=True))
def command(log: str) -> int:
    """Explain the refusals in a kernel's verifier log; LOG is a file, or - for standard input.

    Exit code 0: something is explained. 1: nothing in the log is a refusal that is known. 2: the log cannot be read.
    """
    from simulator.verifier.explain import explain

    found = explain(_text(log))
    for each in found:
        click.echo(f"{click.style(f'refused[{each.code}]', fg='red')}: {each.said}")
        click.echo(f"  = because: {each.problem}")
        click.echo(f"  = help: {each.help}")
        if each.page:
            click.echo(f"  = see: {each.page}")
    if not found:
        click.echo(f"{log}: no refusal that is known in this log", err=True)
    return 0 if found else REFUSED


def _text(log: str) -> str:
    """The log's text; bytes that are no UTF-8 do not matter."""
    if log == "-":
        return sys.stdin.read()
    try:
        return Path(log).read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        fail("unreadable", f"cannot be read: {problem.strerror}", where=log)
