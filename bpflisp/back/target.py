"""What the --mcpu versions can do, asked of the instruction table."""

from __future__ import annotations

from bpflisp.lean import dataclass
from bpflisp.spec.isa import JUMP_CODES, ROWS, Op


@dataclass(frozen=True, slots=True)
class Target:
    """An instruction-set version, 1 to 4."""

    version: int

    @property
    def alu32(self) -> bool:
        """Whether 32-bit arithmetic and comparisons may be used."""
        return self.version >= 3

    @property
    def sign_extension(self) -> bool:
        """Whether there are MOVSX and sign-extending loads, SDIV, SMOD, BSWAP and the far jump."""
        return self.version >= 4

    def compares(self, op: Op, width: int) -> bool:
        """Whether a branch on this comparison exists."""
        return (op, width) in _BRANCHES[self.version]

    @classmethod
    def of(cls, mcpu: str) -> Target:
        """The target of a name, `v1` to `v4`; ValueError for any other."""
        if mcpu not in ("v1", "v2", "v3", "v4"):
            raise ValueError(f"--mcpu {mcpu!r}: there are v1, v2, v3 and v4")
        return cls(int(mcpu[1:]))


_BRANCHES = {
    version: {(row.op, row.width) for row in ROWS if row.op in JUMP_CODES and row.isa <= version}
    for version in range(1, 5)
}
