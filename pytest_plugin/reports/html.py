"""Coverage as pages: an index, each source file with counts, each program's control-flow graph coloured by counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from pytest_plugin.reports.sources import locator, shown, text_of
from simulator import flow_svg
from simulator.coverage import Coverage, ProgramCoverage, Share, SourceCoverage

_STYLE = """
body{font:14px system-ui,sans-serif;margin:2em;color:#1a1a1a;background:#fff}
a{color:#1553a5}table{border-collapse:collapse}td,th{padding:3px 12px;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}
pre{font:12px/1.5 ui-monospace,Menlo,Consolas,monospace;margin:0}
.code td{border:0;padding:0 10px}.code td.text{text-align:left}.n{color:#999}
tr.run td.count{background:#dff3df}tr.never td{background:#fbdcdc}tr.part td.count{background:#fdf1c7}
.bar{display:inline-block;width:80px;height:9px;background:#fbdcdc;vertical-align:middle;margin-right:6px}
.bar i{display:block;height:100%;background:#5bb363}
.graph{overflow-x:auto;border:1px solid #ddd;margin-top:1em}
"""


def write(coverage: Coverage, root: Path, folder: Path) -> Path:
    """Writes the pages into a folder, which is made; the path of the index. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = coverage.sources(locator(root))
    programs = list(coverage.programs)
    for number, source in enumerate(sources):
        (folder / f"source-{number}.html").write_text(_source_page(source, root), encoding="utf-8")
    for number, program in enumerate(programs):
        (folder / f"program-{number}.html").write_text(_program_page(program, root), encoding="utf-8")
    index = folder / "index.html"
    index.write_text(_index(coverage, programs, sources, root), encoding="utf-8")
    return index


def _page(title: str, body: Sequence[str], up: bool = True) -> str:
    back = '<p><a href="index.html">all programs</a></p>' if up else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{back}<h1>{escape(title)}</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _index(
    coverage: Coverage, programs: Sequence[ProgramCoverage], sources: Sequence[SourceCoverage], root: Path
) -> str:
    rows = ["<table><tr><th>program</th><th>instructions</th><th>branch outcomes</th></tr>"]
    for number, program in enumerate(programs):
        name = program.program.name or program.program.type
        path = f"{shown(program.path, root)}::" if program.path else ""
        cells = _share(program.instructions()) + _share(program.outcomes())
        rows.append(f'<tr><td><a href="program-{number}.html">{escape(path + name)}</a></td>{cells}</tr>')
    total = _share(coverage.instructions()) + _share(coverage.outcomes())
    rows.append(f"<tr><th>total</th>{total}</tr></table>")
    rows.append("<h2>Source files</h2><table><tr><th>file</th><th>lines</th></tr>")
    for number, source in enumerate(sources):
        share = Share(sum(count > 0 for count in source.lines.values()), len(source.lines))
        rows.append(f'<tr><td><a href="source-{number}.html">{escape(source.file)}</a></td>{_share(share)}</tr>')
    rows.append("</table>")
    return _page("BPF coverage", rows, up=False)


def _share(share: Share) -> str:
    bar = f'<span class="bar"><i style="width:{share.percent:.0f}%"></i></span>'
    return f"<td>{bar}{int(share.percent)}% ({share.hit}/{share.of})</td>"


def _source_page(source: SourceCoverage, root: Path) -> str:
    body = ['<table class="code"><tr><th>line</th><th>ran</th><th>branches</th><th></th></tr>']
    body += _source_rows(source, text_of(source.file, root))
    body.append("</table>")
    return _page(source.file, body)


def _source_rows(source: SourceCoverage, lines: Sequence[str] | None) -> Iterator[str]:
    """Every line of the file; of one that is not to be had, the lines that the object keeps."""
    numbers = range(1, len(lines) + 1) if lines is not None else sorted({*source.lines, *source.texts})
    for number in numbers:
        text = lines[number - 1] if lines is not None else source.texts.get(number, "")
        count, branches = source.lines.get(number), source.branches.get(number, [])
        seen = sum((taken > 0) + (fallen > 0) for taken, fallen in branches)
        kind = "" if count is None else "never" if not count else "part" if seen < 2 * len(branches) else "run"
        sides = f"{seen}/{2 * len(branches)}" if branches else ""
        ways = "; ".join(f"taken {taken}, not taken {fallen}" for taken, fallen in branches)
        yield (
            f'<tr class="{kind}" id="L{number}"><td class="n">{number}</td>'
            f'<td class="count">{"" if count is None else count}</td><td title="{ways}">{sides}</td>'
            f'<td class="text"><pre>{escape(text)}</pre></td></tr>'
        )


def _program_page(program: ProgramCoverage, root: Path) -> str:
    insns, outcomes = program.instructions(), program.outcomes()
    svg = flow_svg(
        program.program, executed=program.executed, outcomes=program.counts.outcomes, functions=program.functions
    )
    path = shown(program.path, root) if program.path else "no file"
    return _page(
        program.program.name or program.program.type,
        [
            f"<p>{escape(path)}, section {escape(program.program.section or 'none')}, {program.program.type}: "
            f"{insns.hit} of {insns.of} instructions, {outcomes.hit} of {outcomes.of} branch outcomes</p>",
            f'<div class="graph">{svg}</div>',
        ],
    )
