"""`bpflisp check`: the verdict of kernels on every program of objects or sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from bpflisp.cli.errors import REFUSED, UNREADABLE, CommandError
from bpflisp.cli.inputs import known_kernels, load_object
from bpflisp.cli.progress import progress
from bpflisp.cli.verdicts import FORMATS, Checked, write

if TYPE_CHECKING:
    from simulator import Object


@click.command("check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--kernel", "kernels", multiple=True, metavar="V", help="A kernel such as 6.1; may be repeated.")
@click.option("--kernel-btf", metavar="FILE", help="The kernel's BTF, for kfuncs, tracing and CO-RE.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
def command(files: tuple[str, ...], kernels: tuple[str, ...], kernel_btf: str | None, form: str) -> int:
    """Verify every program, and say whether each kernel would load it.

    Exit code 0: all are accepted. 1: some are refused. 2: usage, or a file that cannot be read.
    """
    asked = known_kernels(kernels)
    checked: list[Checked] = []
    problems: list[str] = []
    with progress(len(files)) as now:
        for file in files:
            now(file)
            try:
                checked += _verdicts(file, load_object(file, kernel_btf), asked, kernel_btf)
            except CommandError as problem:
                problems.append(problem.message)
    for message in problems:
        click.echo(message, err=True)
    click.echo(write(form, checked), nl=False)
    if problems:
        return UNREADABLE
    return 0 if all(each.verdict.accepted for each in checked) else REFUSED


def _verdicts(file: str, obj: Object, kernels: Sequence[str], kernel_btf: str | None) -> Iterator[Checked]:
    for program in obj.programs.values():
        for kernel in kernels:
            yield Checked(file, program, kernel, program.verify(kernel, kernel_btf))
