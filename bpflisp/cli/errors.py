"""What a command says when it cannot do what was asked: one grammar, on standard error, and the exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import click

from bpflisp.diagnostics import error

REFUSED, UNREADABLE = 1, 2
"""Exit codes: a program that is refused, a source that does not compile; usage, and input that cannot be read."""


class CommandError(Exception):
    """Ends a command: a rendered diagnostic, and the exit code."""

    def __init__(self, message: str, exit_code: int = UNREADABLE) -> None:
        super().__init__(message)
        self.message, self.exit_code = message, exit_code


def fail(code: str, problem: str, *, where: str = "", because: str = "", help: str = "") -> NoReturn:
    """Ends the command: input that cannot be used."""
    raise CommandError(error(code, problem, where=where, because=because, help=help).render())


def exit_code(command: click.Command, args: list[str] | None) -> int:
    """Runs a command and tells its errors; the code to exit with."""
    try:
        # None leaves it to click, which colours on a terminal alone.
        color = False if os.environ.get("NO_COLOR") else None
        result = command.main(args, prog_name="bpflisp", standalone_mode=False, color=color)
    except click.UsageError as problem:
        return _usage(problem)
    except CommandError as problem:
        return _told(problem.message, problem.exit_code)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _told("bpflisp: error[interrupted]: stopped", 130)
    except BrokenPipeError:
        # Whoever read our output has enough of it. What is left in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        return _internal(problem)
    return result if isinstance(result, int) else 0


def _told(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code


def _usage(problem: click.UsageError) -> int:
    name = problem.ctx.command_path if problem.ctx else "bpflisp"
    message = problem.format_message()
    told = error("usage", message[:1].lower() + message[1:].rstrip("."), where=name, help=f"{name} --help")
    return _told(told.render(), UNREADABLE)


def _internal(problem: Exception) -> int:
    """A mistake of ours: told in a line, with the traceback where it is asked for."""
    if os.environ.get("BPFLISP_DEBUG"):
        traceback.print_exc()
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    told = error(
        "internal",
        f"{type(problem).__name__}: {problem}",
        where="bpflisp",
        because=f"this is a mistake of bpflisp, in {frame.filename}:{frame.lineno}",
        help="please report it with the traceback, which BPFLISP_DEBUG=1 shows",
    )
    return _told(told.render(), UNREADABLE)
