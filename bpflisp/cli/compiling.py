"""How commands that take Lisp sources compile them: the options, and what is wrong with a source told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bpflisp.cli.errors import REFUSED, CommandError, fail
from bpflisp.cli.inputs import unreadable
from bpflisp.diagnostics import CompileError
from bpflisp.lean import dataclass

if TYPE_CHECKING:
    from bpflisp.driver import Compiled, Observer

_Command = TypeVar("_Command", bound=Callable[..., Any])

MCPU = ("v1", "v2", "v3", "v4")
LEVELS = ("0", "1", "2")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options ask of the compiler."""

    mcpu: str = "v3"
    opt: int = 2
    arch: str = "x86_64"
    without: tuple[str, ...] = ()


def compile_options(command: _Command) -> _Command:
    """Gives a command --mcpu, -O and --without; it gets them as `mcpu`, `opt` (text) and `without`."""
    options = [
        click.option("--mcpu", type=click.Choice(MCPU), default="v3", show_default=True, help="Of a source's code."),
        click.option(
            "-O", "opt", type=click.Choice(LEVELS), default="2", show_default=True,
            help="How much a source is optimised: -O0, -O1, -O2.",
        ),
        click.option("--without", multiple=True, metavar="PASS", help="Leave a pass out; may be repeated."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def wishes(mcpu: str, opt: str, without: tuple[str, ...], arch: str = "x86_64") -> Wishes:
    """The options as the compiler takes them; a pass that there is not ends the command."""
    for name in without:
        known_pass(name, pass_names(), "--without")
    return Wishes(mcpu, int(opt), arch, without)


def pass_names() -> tuple[str, ...]:
    """The passes that can be left out: of the intermediate form, then of the back end."""
    from bpflisp.back.compile import IMPROVEMENTS
    from bpflisp.opt import PASSES

    return (*(step.name for step in PASSES), *IMPROVEMENTS)


def known_pass(name: str, names: tuple[str, ...], where: str) -> None:
    """Ends the command where there is no pass of this name."""
    if name not in names:
        fail("no-such-pass", f"no pass {name!r}", where=where, help=f"there are {', '.join(names)}")


def compiled(source: str, how: Wishes, after: Observer | None = None, exit_code: int = REFUSED) -> Compiled:
    """The compiled source; one that does not compile (`exit_code`), or cannot be read, ends the command."""
    from bpflisp.driver import compile_source, read_source

    try:
        return compile_source(
            read_source(source), mcpu=how.mcpu, opt=how.opt, arch=how.arch, without=how.without, after=after
        )
    except CompileError as problem:
        raise CommandError(str(problem), exit_code) from None
    except OSError as problem:
        raise unreadable(problem, source) from None
