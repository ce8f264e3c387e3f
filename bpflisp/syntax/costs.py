"""What library functions take of the budget: a call that looks at many elements counts as more than one evaluation.

Without it, a macro that reverses a long list in a loop would run for hours within its evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bpflisp.syntax.data import Function
from bpflisp.syntax.forms import MAX_LIST, Cons

ELEMENTS_A_STEP = 8
"""Elements that are looked at for the price of one evaluation."""

_LINEAR = frozenset(
    {
        "LENGTH", "LIST-LENGTH", "REVERSE", "NREVERSE", "APPEND", "NCONC", "SUBSEQ", "COPY-LIST", "COPY-TREE",
        "COPY-SEQ", "CONCATENATE", "COERCE", "PAIRLIS", "LAST", "BUTLAST", "NTH", "NTHCDR", "EQUAL", "EQUALP",
        "TREE-EQUAL", "MERGE", "REDUCE", "REMOVE", "REMOVE-IF", "REMOVE-IF-NOT", "DELETE", "DELETE-IF",
        "FIND", "FIND-IF", "POSITION", "POSITION-IF", "COUNT", "COUNT-IF", "MEMBER", "MEMBER-IF", "ASSOC",
        "ASSOC-IF", "RASSOC", "SUBST", "SUBLIS", "SUBSTITUTE", "FILL", "MISMATCH", "ADJOIN",
        "MAPCAR", "MAPC", "MAPCAN", "MAPLIST", "MAPL", "MAP", "SOME", "EVERY", "NOTANY", "NOTEVERY", "APPLY",
        "VALUES-LIST", "GETF", "MAKE-LIST", "MAKE-ARRAY", "STRING-UPCASE", "STRING-DOWNCASE", "STRING=",
        "STRING-EQUAL", "INTERN", "READ-FROM-STRING", "PARSE-INTEGER", "PRIN1-TO-STRING", "PRINC-TO-STRING",
        "WRITE-TO-STRING", "FIND-IF-NOT", "POSITION-IF-NOT", "COUNT-IF-NOT", "DELETE-IF-NOT", "RASSOC-IF", "REPLACE",
        "SUBSTITUTE-IF", "NSUBSTITUTE", "NSUBST", "MAPCON", "MAP-INTO", "STRING-CAPITALIZE", "STRING<", "STRING>",
        "STRING<=", "STRING>=", "STRING/=", "REVAPPEND", "NRECONC", "LDIFF", "TAILP", "MAKE-STRING",
    }
)  # fmt: skip
_SORTING = frozenset({"SORT", "STABLE-SORT"})
_PAIRWISE = frozenset(
    {
        "UNION", "INTERSECTION", "SET-DIFFERENCE", "SET-EXCLUSIVE-OR", "SUBSETP", "NUNION", "NINTERSECTION",
        "NSET-DIFFERENCE", "REMOVE-DUPLICATES", "DELETE-DUPLICATES", "SEARCH",
    }
)  # fmt: skip


def _size(value: object) -> int:
    """Elements of a sequence, as far as they are in a row; a list that ends nowhere counts as one that is too long."""
    if isinstance(value, str | list):
        return len(value)
    size = 0
    while isinstance(value, Cons) and size <= MAX_LIST:
        size, value = size + 1, value.cdr
    return size


def _linear(sizes: Sequence[int]) -> int:
    return sum(sizes)


def _sorting(sizes: Sequence[int]) -> int:
    return sum(size * size.bit_length() for size in sizes)


def _pairwise(sizes: Sequence[int]) -> int:
    return max(sizes, default=0) * (sizes[1] if len(sizes) > 1 and sizes[1] else max(sizes, default=0))


def charged(name: str, function: Function, spend: Callable[[int], None]) -> Function:
    """The function, which spends what it takes before it runs; itself where that is little."""
    cost = (
        _linear if name in _LINEAR else _sorting if name in _SORTING else _pairwise if name in _PAIRWISE else None
    )  # fmt: skip
    if cost is None:
        return function

    def run(*args: object) -> object:
        spend(cost([_size(arg) for arg in args]) // ELEMENTS_A_STEP)
        return function(*args)

    return run
