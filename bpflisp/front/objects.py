"""Globals and subprograms as declarations: `defglobal`, `defsubprog`."""

from __future__ import annotations

from bpflisp.diagnostics import Span
from bpflisp.front.tree import Local, Tree
from bpflisp.front.types import U64, ArrayOf, Number, Pointer, Region, Struct, Type, c_name
from bpflisp.lean import dataclass, field
from bpflisp.syntax.forms import Cons

MAX_PARAMETERS = 5
"""Registers r1 to r5 carry the arguments of a call."""


@dataclass(slots=True, eq=False)
class GlobalDecl:
    """A global variable; `content` are its first bytes in the object, `constant` puts it into read-only data."""

    name: str
    type: Number | ArrayOf | Struct
    content: bytes
    constant: bool
    span: Span | None

    @property
    def symbol(self) -> str:
        """Its C name."""
        return c_name(self.name)

    @property
    def section(self) -> str:
        """Where it lies in the object."""
        if self.constant:
            return ".rodata"
        return ".data" if any(self.content) else ".bss"

    @property
    def pointer(self) -> Pointer:
        """Its address."""
        struct = self.type if isinstance(self.type, Struct) else None
        return Pointer(Region.DATA if self.constant else Region.GLOBAL, struct, size=self.type.size)


@dataclass(slots=True, eq=False)
class SubprogramDecl:
    """A function that programs call, or that helpers call back.

    `written` are the parameters' cells; `params` (variable name as read, type, place), once all is read. A static one
    is verified with each call, knowing what the caller knows; an `is_global` one on its own. `tree` and `locals` are
    there once it has been checked, which its first call does.
    """

    name: str
    written: list[Cons]
    body: object
    is_global: bool
    span: Span | None
    params: list[tuple[object, Type, Span | None]] = field(default_factory=list)
    locals: list[Local] = field(default_factory=list)
    tree: Tree | None = None
    result: Type = U64
    context_of: str = ""
    checked_for: set[tuple[str, str]] = field(default_factory=set)
    checking: bool = False

    @property
    def symbol(self) -> str:
        """Its C name."""
        return c_name(self.name)
