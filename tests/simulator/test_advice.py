"""Advice is given for classes that there are."""

from simulator.advice import BY_CODE
from simulator.verdict import UNSUPPORTED
from simulator.verifier.refusal import CODES, UNCLASSED


def test_every_class_exists() -> None:
    known = {code for _, code in CODES} | {UNSUPPORTED, UNCLASSED}
    assert set(BY_CODE) <= known


def test_each_says_why_and_what_helps() -> None:
    for because, advice in BY_CODE.values():
        assert because
        assert advice
        assert not because.endswith(".")
        assert not advice.endswith(".")
