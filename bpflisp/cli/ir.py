"""`bpflisp ir`: what a source's functions look like inside the compiler, after any pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bpflisp.cli.compiling import compile_options, compiled, known_pass, wishes
from bpflisp.cli.errors import fail

if TYPE_CHECKING:
    from bpflisp.back.machine import MFunction
    from bpflisp.ir.ssa import Function

_ROUND = "optimised"
"""The name of what all rounds of passes leave: what the back end is given."""


@click.command("ir")
@click.argument("source", metavar="A.lisp", type=click.Path())
@click.option(
    "--after", "after", metavar="PASS", default=_ROUND, show_default=True,
    help="Show what this pass leaves in the first round; `lower` is what goes in, `optimised` what all rounds leave.",
)  # fmt: skip
@click.option("--prog", "name", metavar="P", help="One function alone, by its name.")
@click.option("--positions", is_flag=True, help="With the source position of each instruction.")
@compile_options
def command(
    source: str, after: str, name: str | None, positions: bool, mcpu: str, opt: str, without: tuple[str, ...]
) -> int:
    """Print functions in the intermediate form, or (after a stage of the back end) as machine code with blocks.

    The intermediate form parses back. Passes that -O or --without leave out show nothing of their own: ask for another.
    """
    how = wishes(mcpu, opt, without)
    known_pass(after, stage_names(), "--after")
    found: dict[str, str] = {}
    given: dict[str, Function | MFunction] = {}

    def watch(stage: str, function: Function | MFunction) -> None:
        # Passes change one function in place; the back end begins with a copy, and leaves that one as it is.
        if stage == "lower":
            given[function.name] = function
        if stage == after:
            found.setdefault(function.name, _text(function, positions))
        elif stage == "legalise" and after == _ROUND:
            found[function.name] = _text(given[function.name], positions)

    compiled(source, how, watch)
    if name is not None and name not in found:
        fail("no-such-function", f"no function {name!r}", where=source, help=f"there are {', '.join(found) or 'none'}")
    if not found:
        fail("nothing-to-show", f"{after} does not run at -O{opt}" + _left_out(after, without), where="--after")
    click.echo("\n".join(text for function, text in found.items() if name in (None, function)), nl=False)
    return 0


def stage_names() -> tuple[str, ...]:
    """All that `--after` takes, in the order in which they come."""
    from bpflisp.back.compile import STAGES
    from bpflisp.opt import PASSES

    return ("lower", *(step.name for step in PASSES), _ROUND, *STAGES)


def _left_out(name: str, without: tuple[str, ...]) -> str:
    return f" --without {name}" if name in without else ""


def _text(function: Function | MFunction, positions: bool) -> str:
    from bpflisp.back.machine import MFunction
    from bpflisp.back.text import print_machine
    from bpflisp.ir.text import print_function

    return print_machine(function) if isinstance(function, MFunction) else print_function(function, positions)
