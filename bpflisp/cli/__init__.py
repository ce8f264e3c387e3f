"""The command line: one module for each subcommand, imported when it is asked for.

Invariant: exit code 0 for yes, 1 for a program that is refused or a source that does not compile, 2 for usage and for
input that cannot be read. What is asked for goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Final

import click

COMMANDS: Final = {
    "check": "the verdict of kernels on every program of objects or sources",
    "compile": "compile a Lisp source to an object, and verify what came out",
    "disasm": "the instructions of an object, as the kernel prints them",
    "doctor": "what this host offers",
    "explain": "what a kernel's verifier log says, and what to do",
    "ir": "a source's functions inside the compiler, after any pass",
    "needs": "the least kernel that can load a program, and what asks for it",
    "probe": "what this kernel offers, as a profile for --kernel",
    "run": "run packets through a program",
}
"""The subcommands: each is the function `command` of its module here."""


_ALLOCATIONS = 100_000
"""So many new objects start a search for cyclic garbage, of which a command makes little: at Python's 700 the searches
took a tenth of the time of a compilation with its verification."""


class _Commands(click.Group):
    """Finds subcommands by the names of their modules, so that each start imports one of them alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one of this name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"bpflisp.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists them without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bpflisp", prog_name="bpflisp")
def group() -> None:
    """Test eBPF programs without a kernel: compile, verify, run."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line (the process's own, if no other is given) and exits: 0, 1 or 2."""
    from bpflisp.cli.errors import exit_code

    if args is not None:
        sys.exit(exit_code(group, args))
    gc.set_threshold(_ALLOCATIONS)
    code = exit_code(group, None)
    gc.freeze()  # The interpreter's last search for cyclic garbage passes over all that there is.
    sys.exit(code)
