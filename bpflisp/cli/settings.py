"""What commands set in an object before they load it, as its loader would: variables, and the size of maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from bpflisp.cli.errors import fail

_Command = TypeVar("_Command", bound=Callable[..., Any])


def setting_options(command: _Command) -> _Command:
    """Gives a command --set and --max-entries; it gets their texts as `variables` and `max_entries`."""
    options = [
        click.option(
            "--set", "variables", multiple=True, metavar="NAME=VALUE",
            help="Set a global variable before loading: a number, a text, or JSON; may be repeated.",
        ),
        click.option(
            "--max-entries", multiple=True, metavar="MAP=N", help="Set how many entries a map has; may be repeated.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def settings(variables: Iterable[str], max_entries: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    """The options as `simulator.load` takes them."""
    return {
        "variables": _pairs(variables, "--set", _value),
        "max_entries": _pairs(max_entries, "--max-entries", _count),
    }


def _pairs(given: Iterable[str], option: str, read: Callable[[str], Any]) -> Mapping[str, Any]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            fail("usage", f"{text!r} is no NAME=VALUE", where=option)
        pairs[name] = read(value)
    return pairs


def _count(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        fail("usage", f"{text!r} is no number of entries", where="--max-entries")


def _value(text: str) -> Any:
    """A number in any base; else JSON, for structs and arrays; else the text itself."""
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
