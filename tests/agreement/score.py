"""The score of our verdicts against the kernel's: rows, sums of rows, and the table that is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.verdict import UNSUPPORTED
from tests.agreement.workers import Lost

CRASH = "crash"
"""The class of a program on which the verifier broke, or took too long."""


@dataclass(frozen=True, slots=True)
class Row:
    """One program: what the kernel said, what we said, and the CPU seconds that we took."""

    id: str
    origin: str
    features: Sequence[str]
    kernel_accepts: bool
    kernel_message: str
    kernel_processed: int | None
    accepted: bool
    message: str
    code: str
    processed: int
    seconds: float
    detail: str = ""

    @staticmethod
    def of(record: Mapping[str, Any], answer: Mapping[str, Any] | Lost) -> Row:
        """The row of a record and of what came of verifying it."""
        lost = isinstance(answer, Lost)
        ours = {} if isinstance(answer, Lost) else answer
        return Row(
            id=str(record.get("id", "")),
            origin=str(record.get("origin", "")),
            features=tuple(record.get("features") or ()),
            kernel_accepts=record["verdict"] == "accept",
            kernel_message=record.get("message") or "",
            kernel_processed=record.get("insns_processed"),
            accepted=ours.get("accepted", False),
            message=answer.why if isinstance(answer, Lost) else ours["message"],
            code=CRASH if lost else ours["code"],
            processed=ours.get("insns_processed", 0),
            seconds=ours.get("seconds", 0.0),
            detail=answer.detail if isinstance(answer, Lost) else "",
        )

    @property
    def claims(self) -> bool:
        """Whether anything was claimed: neither unsupported nor a crash."""
        return self.code not in (UNSUPPORTED, CRASH)

    @property
    def kind(self) -> str:
        """agree, false accept, false refusal, unsupported or crash."""
        if not self.claims:
            return self.code
        if self.accepted == self.kernel_accepts:
            return "agree"
        return "false accept" if self.accepted else "false refusal"

    @property
    def agrees(self) -> bool:
        return self.kind == "agree"

    @property
    def same_message(self) -> bool:
        return self.message == self.kernel_message

    @property
    def same_effort(self) -> bool:
        return self.processed == self.kernel_processed

    def told(self) -> str:
        """The row in words, both answers under each other."""
        what = self.kind
        if self.agrees:
            what = "other message" if not self.same_message else "other count"
        kernel = self.kernel_message or "accepted"
        ours = self.message or ("accepted" if self.accepted else "refused")
        lines = [
            f"{what}: {self.id}",
            f"  kernel {self.kernel_processed}: {kernel}",
            f"  ours   {self.processed}: {ours}" + (f"  [{self.code}]" if self.code else ""),
        ]
        return "\n".join(lines + [f"  {line}" for line in self.detail.splitlines()[-8:]])


_ORDER = ("crash", "false accept", "false refusal", "unsupported", "agree")


class Score:
    """The rows of a run, and what can be asked of them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def where(self, test: Callable[[Row], bool]) -> Score:
        """The score of the rows that pass."""
        return Score(filter(test, self.rows))

    def count(self, kind: str) -> int:
        """How many rows are of this kind."""
        return sum(row.kind == kind for row in self.rows)

    def disagreements(self) -> list[Row]:
        """The rows that differ in any way, the worst kind first: wrong verdicts, then messages, then counts."""
        differ = [row for row in self.rows if not row.agrees or not self._same(row)]
        return sorted(differ, key=lambda row: (_ORDER.index(row.kind), row.same_message))

    @staticmethod
    def _same(row: Row) -> bool:
        return row.same_effort if row.accepted else row.same_message

    def groups(self, key: Callable[[Row], Iterable[str]]) -> list[tuple[str, Score]]:
        """(name, score) of each group, the largest first; a row may be in several."""
        names = sorted({name for row in self.rows for name in key(row)})
        scores = [(name, self.where(lambda row, name=name: name in key(row))) for name in names]  # type: ignore[misc]
        return sorted(scores, key=lambda pair: -len(pair[1].rows))

    @property
    def refused_by_both(self) -> list[Row]:
        return [row for row in self.rows if row.agrees and not row.accepted]

    @property
    def accepted_by_both(self) -> list[Row]:
        return [row for row in self.rows if row.agrees and row.accepted]

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    @property
    def processed(self) -> int:
        return sum(row.processed for row in self.rows)


_HEAD = (
    "programs", "agree", "", "false accept", "false refusal", "unsupported", "crash", "message =", "", "insns =", "",
    "seconds", "insns/s",
)  # fmt: skip


def report(score: Score) -> str:
    """The whole table: all programs, by origin, by feature, and a line for each goal."""
    parts = [
        ("by origin", score.groups(lambda row: (row.origin,))),
        ("by feature", score.groups(lambda row: row.features)),
    ]
    lines = [_line("", _HEAD), _line("all", _cells(score))]
    for title, groups in parts:
        lines.append(f"-- {title}")
        lines += [_line(name, _cells(group)) for name, group in groups]
    return "\n".join([*lines, "", *_goals(score)])


def percent(part: int, whole: int) -> str:
    """A share with one decimal; "-" of nothing. Only all of it is 100."""
    if not whole:
        return "-"
    return "100%" if part == whole else f"{min(part / whole * 100, 99.9):.1f}%"


def _cells(score: Score) -> tuple[str, ...]:
    rows, agree = len(score.rows), score.count("agree")
    refused, accepted = score.refused_by_both, score.accepted_by_both
    messages, efforts = sum(row.same_message for row in refused), sum(row.same_effort for row in accepted)
    speed = f"{score.processed / score.seconds:,.0f}" if score.seconds else "-"
    return (
        str(rows), str(agree), percent(agree, rows), str(score.count("false accept")),
        str(score.count("false refusal")), str(score.count("unsupported")), str(score.count("crash")),
        f"{messages}/{len(refused)}", percent(messages, len(refused)),
        f"{efforts}/{len(accepted)}", percent(efforts, len(accepted)), f"{score.seconds:.1f}", speed,
    )  # fmt: skip


_WIDTHS = (8, 6, 6, 12, 13, 11, 6, 10, 6, 10, 6, 8, 9)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:24}" + " ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _goals(score: Score) -> list[str]:
    """What the project aims at, beside what is."""
    claimed = score.where(lambda row: row.claims)
    samples = score.where(lambda row: row.origin == "samples")
    refused, accepted = score.refused_by_both, score.accepted_by_both
    same_text, same_count = sum(row.same_message for row in refused), sum(row.same_effort for row in accepted)
    return [
        f"false accepts                    {score.count('false accept'):8}   (goal 0)",
        f"verdict equal, of all            {percent(score.count('agree'), len(score.rows)):>8}   (goal 85%)",
        f"verdict equal, of those claimed  {percent(claimed.count('agree'), len(claimed.rows)):>8}   (goal 97%)",
        f"verdict equal, samples           {percent(samples.count('agree'), len(samples.rows)):>8}   (goal 100%)",
        f"message equal, refused by both   {percent(same_text, len(refused)):>8}   (goal 95%)",
        f"count equal, accepted by both    {percent(same_count, len(accepted)):>8}   (goal 98%)",
    ]
