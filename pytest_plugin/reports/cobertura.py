"""Coverage as Cobertura's XML, which GitLab, Jenkins and others show beside a change."""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree import ElementTree as Xml

from pytest_plugin.reports.sources import locator
from simulator.coverage import Coverage, Share, SourceCoverage


def text(coverage: Coverage, root: Path) -> str:
    """The document. File names are from `root` where the sources are under it."""
    sources = coverage.sources(locator(root))
    lines = sum((_lines(source) for source in sources), Share(0, 0))
    sides = sum((_sides(source) for source in sources), Share(0, 0))
    top = Xml.Element(
        "coverage",
        {
            **_rates(lines, sides),
            "lines-covered": str(lines.hit),
            "lines-valid": str(lines.of),
            "branches-covered": str(sides.hit),
            "branches-valid": str(sides.of),
            "version": "bpflisp",
            "timestamp": str(int(time.time() * 1000)),
        },
    )
    Xml.SubElement(Xml.SubElement(top, "sources"), "source").text = str(root)
    package = Xml.SubElement(Xml.SubElement(top, "packages"), "package", {"name": "bpf", **_rates(lines, sides)})
    classes = Xml.SubElement(package, "classes")
    for source in sources:
        _add_class(classes, source)
    Xml.indent(top)
    return '<?xml version="1.0" ?>\n' + Xml.tostring(top, encoding="unicode") + "\n"


def _add_class(classes: Xml.Element, source: SourceCoverage) -> None:
    about = {"name": Path(source.file).name, "filename": source.file, **_rates(_lines(source), _sides(source))}
    made = Xml.SubElement(classes, "class", about)
    methods = Xml.SubElement(made, "methods")
    for name, (first, entered) in source.functions.items():
        rates = _rates(Share(entered > 0, 1), Share(0, 0))
        method = Xml.SubElement(methods, "method", {"name": name, "signature": "", **rates})
        inside = Xml.SubElement(method, "lines")
        Xml.SubElement(inside, "line", {"number": str(first), "hits": str(entered), "branch": "false"})
    lines = Xml.SubElement(made, "lines")
    for number, count in sorted(source.lines.items()):
        line = Xml.SubElement(lines, "line", {"number": str(number), "hits": str(count), "branch": "false"})
        branches = source.branches.get(number)
        if branches:
            hit, of = sum((a > 0) + (b > 0) for a, b in branches), 2 * len(branches)
            line.attrib |= {"branch": "true", "condition-coverage": f"{100 * hit // of}% ({hit}/{of})"}


def _lines(source: SourceCoverage) -> Share:
    return Share(sum(count > 0 for count in source.lines.values()), len(source.lines))


def _sides(source: SourceCoverage) -> Share:
    pairs = [pair for branches in source.branches.values() for pair in branches]
    return Share(sum((a > 0) + (b > 0) for a, b in pairs), 2 * len(pairs))


def _rates(lines: Share, sides: Share) -> dict[str, str]:
    return {
        "line-rate": f"{lines.percent / 100:.4f}",
        "branch-rate": f"{sides.percent / 100:.4f}",
        "complexity": "0",
    }
