"""`bpflisp needs`: the least kernel for each program, feature by feature."""

from __future__ import annotations

import click

from bpflisp.cli.compiling import compile_options, wishes
from bpflisp.cli.inputs import load_object


@click.command("needs")
@click.argument("file", type=click.Path())
@compile_options
def command(file: str, mcpu: str, opt: str, without: tuple[str, ...]) -> int:
    """Print the least kernel that can load each program, and which instruction asks for what."""
    from simulator.needs import least_kernel, needs
    from simulator.results import insn_line

    for program in load_object(file, how=wishes(mcpu, opt, without)).programs.values():
        click.echo(f"{program.name}: {least_kernel(program)}")
        for need in needs(program):
            insn = "" if need.insn is None else f"  insn {need.insn}: {insn_line(program, need.insn)}"
            attach = " (to attach)" if need.to_attach else ""
            click.echo(f"  {need.kernel:<6} {need.feature}{attach}{insn}")
    return 0
