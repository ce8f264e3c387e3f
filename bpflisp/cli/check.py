"""`bpflisp check`: the verdict of kernels on every program of objects or sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bpflisp.cli.compiling import compile_options, wishes
from bpflisp.cli.errors import REFUSED, UNREADABLE, CommandError, fail
from bpflisp.cli.inputs import known_kernels, load_object
from bpflisp.cli.progress import progress
from bpflisp.cli.settings import setting_options, settings
from bpflisp.cli.verdicts import FORMATS, write

if TYPE_CHECKING:
    from simulator import Budget, Object
    from simulator.reporting import Checked


@click.command("check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--kernel", "kernels", multiple=True, metavar="V", help="A kernel such as 6.1; may be repeated.")
@click.option("--kernel-btf", metavar="FILE", help="The kernel's BTF, for kfuncs, tracing and CO-RE.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--budget", "budget_file", metavar="FILE", help="Fail where a program needs more than this file allows.")
@click.option("--update-budget", is_flag=True, help="Write to the budget what the programs need now.")
@setting_options
@compile_options
def command(
    files: tuple[str, ...],
    kernels: tuple[str, ...],
    kernel_btf: str | None,
    form: str,
    budget_file: str | None,
    update_budget: bool,
    variables: tuple[str, ...],
    max_entries: tuple[str, ...],
    mcpu: str,
    opt: str,
    without: tuple[str, ...],
) -> int:
    """Verify every program, and say whether each kernel would load it.

    Exit code 0: all are accepted. 1: some are refused, or exceed their budget. 2: usage, or a file that cannot be read.
    """
    asked, how = known_kernels(kernels), wishes(mcpu, opt, without)
    budget, chosen = _budget(budget_file, update_budget), settings(variables, max_entries)
    checked: list[Checked] = []
    unread: dict[str, str] = {}
    with progress(len(files)) as now:
        for file in files:
            now(file)
            try:
                obj = load_object(file, kernel_btf, how, **chosen)
            except CommandError as problem:
                unread[file] = problem.message
                continue
            for note in obj.notes:
                click.echo(f"{file}: note: {note}", err=True)
            if budget is not None and update_budget:
                budget.keep_only(file, obj.programs)
            for each in _verdicts(file, obj, asked, kernel_btf):
                checked.append(_held(each, budget, update_budget, kernel_btf))
    for message in unread.values():
        click.echo(message, err=True)
    if budget is not None:
        _finish(budget, checked, update_budget)
    click.echo(write(form, checked, unread), nl=False)
    if unread:
        return UNREADABLE
    return 0 if all(each.fine for each in checked) else REFUSED


def _verdicts(file: str, obj: Object, kernels: Sequence[str], kernel_btf: str | None) -> Iterator[Checked]:
    from simulator.reporting import Checked

    for program in obj.programs.values():
        for kernel in kernels:
            yield Checked(file, program, kernel, program.verify(kernel, kernel_btf))


def _budget(path: str | None, update: bool) -> Budget | None:
    """The budget that is asked for; one that is to be written need not be there."""
    from pathlib import Path

    from simulator import Budget, BudgetError

    if path is None:
        if update:
            fail("usage", "--update-budget wants --budget FILE", where="bpflisp check")
        return None
    if update and not Path(path).exists():
        return Budget(Path(path))
    try:
        return Budget.read(path)
    except BudgetError as problem:
        fail("budget", str(problem), where="--budget")
    except OSError as problem:
        fail("budget", problem.strerror or str(problem), where=path, help="--update-budget writes it")


def _held(each: Checked, budget: Budget | None, update: bool, kernel_btf: str | None) -> Checked:
    """A verdict held against the budget, or noted in it; only what is accepted has a cost to speak of."""
    from simulator import effort

    if budget is None or not each.verdict.accepted:
        return each
    allowed = budget.allowed(each.file, each.program.name, each.kernel)
    if not update and (allowed is None or each.verdict.insns_processed <= allowed.processed):
        return each
    needs = effort(each.program, each.kernel, kernel_btf)
    if update:
        budget.note(each.file, each.program.name, each.kernel, needs)
        return each
    return replace(each, overrun=budget.overrun(each.file, each.program.name, each.kernel, needs))


def _finish(budget: Budget, checked: Sequence[Checked], update: bool) -> None:
    """Writes the budget, or says which programs it does not have."""
    if update:
        try:
            budget.write()
        except OSError as problem:
            fail("budget", problem.strerror or str(problem), where=str(budget.path))
        return
    for each in checked:
        if each.verdict.accepted and budget.allowed(each.file, each.program.name, each.kernel) is None:
            click.echo(f"{each.file}: note: {each.title} is not in {budget.path}; --update-budget adds it", err=True)
