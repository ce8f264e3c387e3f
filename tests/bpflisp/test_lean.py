"""The lean dataclasses mean what the standard ones do: the same classes, made by both, behave alike."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from bpflisp import lean


def classes(make: Any) -> tuple[Any, Any, Any, Any, Any]:
    @make(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 3

    @make(slots=True, eq=False, kw_only=True)
    class Node:
        name: str = ""
        items: list[int] = dataclasses.field(default_factory=list)

    @make(slots=True, eq=False, kw_only=True)
    class Leaf(Node):
        value: int

    @make
    class Plain:
        a: int
        b: int = dataclasses.field(default=2, compare=False, repr=False)
        c: int = dataclasses.field(init=False, default=7)
        total: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            self.total = self.a + self.b

    @make(frozen=True)
    class Own:
        a: int

        def __hash__(self) -> int:
            return 5

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "own"

    for each in (Point, Node, Leaf, Plain, Own):
        each.__qualname__ = each.__name__
    return Point, Node, Leaf, Plain, Own


BOTH = [pytest.param(classes(dataclasses.dataclass), id="standard"), pytest.param(classes(lean.dataclass), id="lean")]


@pytest.mark.parametrize("made", BOTH)
def test_a_frozen_one(made: tuple[Any, ...]) -> None:
    point = made[0]
    assert point(1) == point(1, 3) == point(y=3, x=1)
    assert point(1) != point(2)
    assert point(1) != (1, 3)
    assert len({point(1), point(1), point(2)}) == 2
    assert hash(point(4, 5)) == hash((4, 5))
    assert repr(point(1)) == "Point(x=1, y=3)"
    assert dataclasses.replace(point(1), y=9) == point(1, 9)
    assert [each.name for each in dataclasses.fields(point)] == ["x", "y"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        point(1).x = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point(1).x
    assert copy.copy(point(4)) == copy.deepcopy(point(4)) == point(4)
    match point(1, 2):
        case point(a, b):
            assert (a, b) == (1, 2)


@pytest.mark.parametrize("made", BOTH)
@pytest.mark.parametrize("wrong", [(), (1, 2, 3), {"z": 1}, {"x": 1, "z": 2}])
def test_wrong_arguments(made: tuple[Any, ...], wrong: Any) -> None:
    with pytest.raises(TypeError):
        made[0](**wrong) if isinstance(wrong, dict) else made[0](*wrong)


@pytest.mark.parametrize("made", BOTH)
def test_keywords_and_inheritance(made: tuple[Any, ...]) -> None:
    _, node, leaf, *_ = made
    first, second = leaf(value=1), leaf(value=1, name="n")
    assert first != second
    assert first.items is not second.items
    assert (second.name, second.items, second.value) == ("n", [], 1)
    assert node().items == []
    with pytest.raises(TypeError):
        leaf(1)
    with pytest.raises(AttributeError):
        first.other = 1
    assert repr(second) == "Leaf(name='n', items=[], value=1)"


@pytest.mark.parametrize("made", BOTH)
def test_fields_of_their_own_kind(made: tuple[Any, ...]) -> None:
    plain = made[3]
    assert plain(1, 2) == plain(1) != plain(1, 5)
    assert (plain(1).c, plain(1, 5).total) == (7, 6)
    assert repr(plain(1)) == "Plain(a=1, c=7, total=3)"
    assert plain.__hash__ is None
    same = plain(1)
    same.a = 4
    assert same.a == 4


@pytest.mark.parametrize("made", BOTH)
def test_methods_that_are_written_out_are_kept(made: tuple[Any, ...]) -> None:
    own = made[4]
    assert (hash(own(1)), own(1) == own(2), repr(own(1))) == (5, True, "own")


@lean.dataclass(frozen=True, slots=True)
class Kept:
    """One that pickle finds by its name."""

    a: int
    b: tuple[int, ...] = ()


def test_pickling() -> None:
    assert pickle.loads(pickle.dumps(Kept(1, (2, 3)))) == Kept(1, (2, 3))
