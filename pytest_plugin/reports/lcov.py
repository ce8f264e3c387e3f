"""Coverage as an lcov tracefile, which genhtml, IDEs and coverage services read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pytest_plugin.reports.sources import locator
from simulator.coverage import Coverage, SourceCoverage


def text(coverage: Coverage, root: Path) -> str:
    """The tracefile. Paths are from `root` where the sources are under it."""
    return "".join(f"{line}\n" for source in coverage.sources(locator(root)) for line in _record(source))


def _record(source: SourceCoverage) -> Iterator[str]:
    yield "TN:"
    yield f"SF:{source.file}"
    functions = sorted(source.functions.items(), key=lambda found: (found[1], found[0]))
    yield from (f"FN:{line},{name}" for name, (line, _) in functions)
    yield from (f"FNDA:{entered},{name}" for name, (_, entered) in functions)
    yield f"FNF:{len(functions)}"
    yield f"FNH:{sum(entered > 0 for _, (_, entered) in functions)}"
    sides = hit = 0
    for line, branches in sorted(source.branches.items()):
        for number, (taken, fallen) in enumerate(branches):
            for side, count in enumerate((taken, fallen)):
                # "-" says that the branch itself was never reached.
                yield f"BRDA:{line},0,{2 * number + side},{count if taken or fallen else '-'}"
                sides, hit = sides + 1, hit + (count > 0)
    yield f"BRF:{sides}"
    yield f"BRH:{hit}"
    yield from (f"DA:{line},{count}" for line, count in sorted(source.lines.items()))
    yield f"LF:{len(source.lines)}"
    yield f"LH:{sum(count > 0 for count in source.lines.values())}"
    yield "end_of_record"
