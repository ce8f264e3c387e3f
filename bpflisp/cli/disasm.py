"""`bpflisp disasm`: instructions as the kernel prints them, between source lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bpflisp.cli.compiling import compile_options, wishes
from bpflisp.cli.errors import fail
from bpflisp.cli.inputs import load_object, program_of

if TYPE_CHECKING:
    from simulator import Program


@click.command("disasm")
@click.argument("file", type=click.Path())
@click.option("--prog", "name", metavar="P", help="One program alone, by name or section.")
@click.option("--source/--no-source", default=True, show_default=True, help="Source lines between the instructions.")
@click.option("--cfg", type=click.Path(), metavar="OUT.svg", help="Draw the program's control-flow graph instead.")
@compile_options
def command(
    file: str, name: str | None, source: bool, cfg: str | None, mcpu: str, opt: str, without: tuple[str, ...]
) -> int:
    """Print the instructions of every program."""
    obj = load_object(file, how=wishes(mcpu, opt, without))
    chosen = [program_of(obj, name)] if name is not None else list(obj.programs.values())
    if cfg is not None:
        return _draw(chosen, cfg)
    for number, program in enumerate(chosen):
        click.echo(("\n" if number else "") + f"{program.name}  {program.section}  {len(program.code)} instructions")
        for line in _lines(program, source):
            click.echo(line)
    return 0


def _draw(chosen: Sequence[Program], path: str) -> int:
    from simulator import flow_svg

    if len(chosen) != 1:
        names = ", ".join(program.name for program in chosen)
        raise click.UsageError(f"--cfg draws one program: --prog names it, of {names or 'none'}")
    program = chosen[0]
    functions = {info.insn: program.btf.type(info.type_id).name for info in program.func_info if program.btf}
    try:
        Path(path).write_text(flow_svg(program, functions=functions), encoding="utf-8")
    except OSError as error:
        fail("unwritable", f"cannot write the drawing: {error.strerror}", where=path)
    return 0


def _lines(program: Program, source: bool) -> Iterator[str]:
    from simulator.results import insn_line

    at = {line.insn: line for line in program.line_info} if source else {}
    functions = {info.insn: program.btf.type(info.type_id).name for info in program.func_info if program.btf}
    shown: tuple[str, int] | None = None
    for slot, insn in enumerate(program.code):
        if slot in functions and slot:
            yield f"{functions[slot]}:"
        if slot in at and (at[slot].file, at[slot].line) != shown:
            shown = at[slot].file, at[slot].line
            yield f"; {at[slot].text.strip()} @ {shown[0]}:{shown[1]}"
        if insn is not None:
            yield f"{slot:4}: {insn_line(program, slot)}{_map(program, slot)}"


def _map(program: Program, slot: int) -> str:
    """The name of the map that a 64-bit load names by its index."""
    from bpflisp.spec import isa
    from bpflisp.spec.isa import Kind

    insn = program.code[slot]
    if insn is None or insn.row.kind is not Kind.LOAD_IMM64:
        return ""
    if insn.src in (isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE) and 0 <= insn.imm < len(program.maps):
        return f"  ; map {program.maps[insn.imm].name}"
    return f"  ; {program.btf_ids[slot]}" if slot in program.btf_ids else ""
