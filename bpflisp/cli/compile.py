"""`bpflisp compile`: a Lisp source to an object, verified."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpflisp.cli.compiling import compile_options, compiled, wishes
from bpflisp.cli.errors import REFUSED, UNREADABLE, CommandError
from bpflisp.cli.inputs import known_kernels, loaded, unreadable

if TYPE_CHECKING:
    from bpflisp.driver import Compiled


@click.command("compile")
@click.argument("source", metavar="A.lisp", type=click.Path())
@click.option("-o", "output", metavar="FILE", help="Where the object goes; A.bpf.o beside the source by default.")
@compile_options
@click.option(
    "--arch", type=click.Choice(["x86_64", "arm64"]), default="x86_64", show_default=True,
    help="Whose registers a kprobe's forms name.",
)  # fmt: skip
@click.option("--kernel", "kernels", multiple=True, metavar="V", help="Verify for this kernel; may be repeated.")
@click.option("--kernel-btf", metavar="FILE", help="The kernel's BTF, for kfuncs, tracing and CO-RE.")
@click.option("--no-verify", is_flag=True, help="Keep the object whatever the verifier says.")
@click.option("--gen", "languages", multiple=True, metavar="LANG", hidden=True, help="Bindings: not built yet.")
@click.option("--json", "as_json", is_flag=True, help="Print programs and maps as JSON.")
def command(
    source: str,
    output: str | None,
    mcpu: str,
    opt: str,
    without: tuple[str, ...],
    arch: str,
    kernels: tuple[str, ...],
    kernel_btf: str | None,
    no_verify: bool,
    languages: tuple[str, ...],
    as_json: bool,
) -> int:
    """Compile a Lisp source, verify what came out, and print the instructions of each program."""
    if languages:
        raise CommandError("`--gen` (bindings for other languages) is not built yet", UNREADABLE)
    asked = known_kernels(kernels)
    made = compiled(source, wishes(mcpu, opt, without, arch))
    for warning in made.warnings:
        click.echo(warning.render(), err=True)
    if not no_verify and not _accepted(made.elf, source, asked, kernel_btf):
        return REFUSED
    path = Path(output) if output else Path(source).with_suffix(".bpf.o")
    try:
        path.write_bytes(made.elf)
    except OSError as problem:
        raise unreadable(problem, str(path)) from None
    _print(made, path, as_json)
    return 0


def _accepted(elf: bytes, source: str, kernels: Sequence[str], kernel_btf: str | None) -> bool:
    """Whether every kernel accepts every program; tells those that are refused."""
    from simulator.results import refusal

    obj = loaded(elf, source, kernel_btf)
    accepted = True
    for kernel in kernels:
        for program in obj.programs.values():
            verdict = program.verify(kernel, kernel_btf)
            if not verdict.accepted:
                accepted = False
                click.echo(refusal(program, verdict, source).render(), err=True)
    if not accepted:
        click.echo("  = help: --no-verify writes the object all the same", err=True)
    return accepted


def _print(compiled: Compiled, path: Path, as_json: bool) -> None:
    if as_json:
        programs = {name: {"section": made.section, "insns": made.slots} for name, made in compiled.programs.items()}
        click.echo(json.dumps({"programs": programs, "maps": list(compiled.maps)}, indent=2))
        return
    for name, made in compiled.programs.items():
        click.echo(f"{name}  {made.section}  {made.slots} instructions")
    click.echo(f"wrote {path}", err=True)
