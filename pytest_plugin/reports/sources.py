"""Where the source of an object is: its BTF has the name that the compiler was given, perhaps on another machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from simulator.coverage import ProgramCoverage


def locator(root: Path) -> Callable[[ProgramCoverage, str], str]:
    """Says for a program and a file of its line information where that file is.

    It is the path from `root` where the file is found: as named, from `root`, or beside the object. Else the name as it
    is, without a leading "./".
    """

    def locate(program: ProgramCoverage, file: str) -> str:
        beside = Path(program.path).parent if program.path else root
        for base in (root, beside, beside.resolve() / "..", Path()):
            for candidate in (base / file, base / Path(file).name):
                if candidate.is_file():
                    return shown(candidate, root)
        return file.removeprefix("./")

    return locate


def shown(path: Path | str, root: Path) -> str:
    """A path from `root` where it is under it, else as it is."""
    whole = Path(path).resolve()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(path)


def text_of(file: str, root: Path) -> list[str] | None:
    """The lines of a source file, None where it is not to be had."""
    try:
        return (root / file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None


def ranges(numbers: list[int]) -> str:
    """Numbers in order as text: 3-5, 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
