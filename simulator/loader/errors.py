"""The one error of loading: what is wrong, where, why, and what to do."""

from __future__ import annotations

from bpflisp.lean import dataclass


@dataclass(eq=False)
class LoadError(ValueError):
    """An object, or a record of a program, cannot be loaded.

    `file` names the input, `section` the part of it, `offset` a byte there. `because` and `help` may be empty.
    """

    file: str
    problem: str
    section: str = ""
    offset: int | None = None
    because: str = ""
    help: str = ""

    def __str__(self) -> str:
        where = self.file
        if self.section:
            where += f": {self.section}"
        if self.offset is not None:
            where += f"+0x{self.offset:x}"
        lines = [f"{where}: error[load]: {self.problem}"]
        if self.because:
            lines.append(f"  = because: {self.because}")
        if self.help:
            lines.append(f"  = help: {self.help}")
        return "\n".join(lines)
