"""The scorer itself: a run survives its programs, and counts each of them once, as what it is."""

import os
import time
from typing import Any

from tests.agreement.score import Row, Score, percent, report
from tests.agreement.workers import Lost, work


def _nothing() -> None:
    pass


def _behave(how: str) -> str:
    if how == "die":
        os._exit(3)
    if how == "hang":
        time.sleep(60)
    if how == "raise":
        raise RecursionError("too deep")
    return how.upper()


def test_death_silence_and_exceptions_cost_one_task_each() -> None:
    tasks = ["a", "die", "b", "hang", "c", "raise", "d"]
    answers = dict(work(_behave, tasks, jobs=2, seconds=3, prepare=_nothing))
    assert sorted(answers) == list(range(7))
    assert [answers[n] for n in (0, 2, 4, 6)] == ["A", "B", "C", "D"]
    assert answers[1] == Lost("the process ended with code 3")
    assert answers[3] == Lost("no answer within 3 s")
    assert answers[5].why == "RecursionError: too deep"
    assert "_behave" in answers[5].detail


def _record(name: str, verdict: str, message: str = "", processed: int = 3) -> dict[str, Any]:
    return {
        "id": name, "origin": "o", "features": ["ctx"], "verdict": verdict, "message": message,
        "insns_processed": processed,
    }  # fmt: skip


def _ours(accepted: bool, message: str = "", code: str = "", processed: int = 3) -> dict[str, Any]:
    return {
        "accepted": accepted, "message": message, "code": code, "insns_processed": processed, "seconds": 0.5,
    }  # fmt: skip


ROWS = [
    Row.of(_record("same", "accept"), _ours(True)),
    Row.of(_record("effort", "accept", processed=4), _ours(True)),
    Row.of(_record("words", "reject", "R0 !read_ok"), _ours(False, "R1 !read_ok", "uninit")),
    Row.of(_record("soft", "reject", "R0 !read_ok"), _ours(True)),
    Row.of(_record("hard", "accept"), _ours(False, "no", "uninit")),
    Row.of(_record("new", "reject", "no"), _ours(False, "arena", "unsupported")),
    Row.of(_record("broken", "reject", "no"), Lost("ValueError: x", "trace")),
]


def test_each_row_is_of_one_kind() -> None:
    kinds = ["agree", "agree", "agree", "false accept", "false refusal", "unsupported", "crash"]
    assert [row.kind for row in ROWS] == kinds


def test_disagreements_come_worst_first_and_tell_both_sides() -> None:
    rows = Score(ROWS).disagreements()
    assert [row.id for row in rows] == ["broken", "soft", "hard", "new", "words", "effort"]
    assert "kernel 3: R0 !read_ok" in rows[1].told()
    assert "trace" in rows[0].told()


def test_the_report_counts_by_origin_and_feature() -> None:
    text = report(Score(ROWS))
    assert "-- by origin" in text
    assert text.count("ctx ") == 1
    assert "verdict equal, of all               42.8%   (goal 85%)" in text or "42.9%" in text


def test_a_share_is_all_only_when_it_is() -> None:
    assert [percent(0, 0), percent(99999, 100000), percent(7, 7), percent(1, 3)] == ["-", "99.9%", "100%", "33.3%"]
