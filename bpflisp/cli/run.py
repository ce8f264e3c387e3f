"""`bpflisp run`: packets through a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from bpflisp.cli.compiling import compile_options, wishes
from bpflisp.cli.errors import REFUSED, CommandError, fail
from bpflisp.cli.inputs import known_engine, load_object, packets, program_of
from bpflisp.cli.settings import setting_options, settings
from bpflisp.diagnostics import error

if TYPE_CHECKING:
    from simulator import Object, Outcome, Program, World


@click.command("run")
@click.argument("file", type=click.Path())
@click.option("--prog", "name", metavar="P", help="The program, by name or section; not needed where there is one.")
@click.option("--packet", "given", multiple=True, metavar="HEX|FILE.pcap|EXPR", help="Packets; may be repeated.")
@click.option("--engine", default="python", show_default=True, metavar="E", help="reference, python, native or kernel.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each packet.")
@setting_options
@compile_options
def command(
    file: str,
    name: str | None,
    given: tuple[str, ...],
    engine: str,
    as_json: bool,
    variables: tuple[str, ...],
    max_entries: tuple[str, ...],
    mcpu: str,
    opt: str,
    without: tuple[str, ...],
) -> int:
    """Run packets, one after the other, through a program in one world."""
    known_engine(engine)
    obj = load_object(file, None, wishes(mcpu, opt, without), **settings(variables, max_entries))
    program = program_of(obj, name)
    inputs: list[bytes | None] = [packet for text in given for packet in packets(text)]
    if not given:
        _require_no_packet(program)
        inputs = [None]
    failed = False
    for number, outcome in enumerate(_outcomes(program, inputs, _world(obj), engine), 1):
        click.echo(json.dumps(_as_dict(program, outcome)) if as_json else _as_text(program, outcome, number))
        failed = failed or outcome.fault is not None
    return REFUSED if failed else 0


def _world(obj: Object) -> World:
    """The object's maps, where the kernel would make them."""
    from simulator import MapError, World

    try:
        return World(obj)
    except MapError as problem:
        fail("map", str(problem), where=obj.path, help="--max-entries MAP=N sizes a map that has none")


def _require_no_packet(program: Program) -> None:
    from simulator.packet import PACKET_TYPES

    if program.type in PACKET_TYPES:
        fail("usage", f"a {program.type} program runs on packets", where="bpflisp run", help="give one by --packet")


def _outcomes(program: Program, inputs: list[bytes | None], world: World, engine: str) -> Iterator[Outcome]:
    from simulator import EngineUnavailable, InputRefused, KernelRefusedError

    for number, packet in enumerate(inputs, 1):
        try:
            yield program.run(packet, world, engine=engine)
        except InputRefused as problem:
            fail("input", f"packet {number}: {problem}", where=program.name)
        except EngineUnavailable as problem:
            fail("engine", str(problem), where=f"--engine {engine}")
        except KernelRefusedError as problem:
            raise CommandError(error("refused", str(problem), where=program.name).render(), REFUSED) from None


def _as_dict(program: Program, outcome: Outcome) -> dict[str, Any]:
    from bpflisp.spec.programs import action_name

    fault = outcome.fault
    return {
        "retval": outcome.retval,
        "action": action_name(program.type, outcome.retval),
        "packet_hex": None if outcome.packet is None else outcome.packet.hex(),
        "fault": fault
        and {
            "kind": fault.kind,
            "message": fault.message,
            "insn": fault.insn,
            "address": fault.address,
            "size": fault.size,
            "source": fault.source,
        },
    }


def _as_text(program: Program, outcome: Outcome, number: int) -> str:
    from bpflisp.spec.programs import action_name

    if outcome.fault is not None:
        from simulator.results import insn_line

        fault = outcome.fault
        lines = [f"packet {number}: fault[{fault.kind}]: {fault.message}"]
        lines += [f"  | {fault.source}"] if fault.source else []
        lines += [f"  | insn {fault.insn}: {insn_line(program, fault.insn)}"]
        return "\n".join(lines)
    target = f" to {outcome.redirect}" if outcome.redirect is not None else ""
    size = f", {len(outcome.packet)} bytes" if outcome.packet is not None else ""
    printed = [f"  printed: {line}" for line in outcome.trace]
    return "\n".join([f"packet {number}: {action_name(program.type, outcome.retval)}{target}{size}", *printed])
