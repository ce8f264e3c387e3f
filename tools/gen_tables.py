"""Makes the tables that ship in `bpflisp/spec/tables/` of the facts in `../shared/data` and the answers of the probes.

    python -m tools.gen_tables            # writes
    python -m tools.gen_tables --check    # exit status 1 where a file differs from what would be written

Deterministic: the same facts give the same bytes. One table a file, so that each is read only when it is asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools import tables_contexts, tables_helpers, tables_maps, tables_programs

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "bpflisp" / "spec" / "tables"
SHARED = ROOT.parent / "shared" / "data"

MAKERS: dict[str, Callable[[Path], Any]] = {
    "helpers": tables_helpers.helpers,
    "helper_sets": tables_helpers.helper_sets,
    "kfuncs": tables_helpers.kfuncs,
    "contexts": tables_contexts.contexts,
    "structs": tables_contexts.structs,
    "pt_regs": tables_contexts.pt_regs,
    "maps": tables_maps.maps,
    "programs": tables_programs.programs,
    "sections": tables_programs.sections,
    "features": tables_programs.features,
}

# Tables that a probe writes as they ship: nothing of `../shared` is in them.
PROBED = frozenset({"kfunc_allowed"})


def render(table: Any) -> str:
    """JSON with one line for each entry of the top two levels: compact, and readable in a diff."""
    if not isinstance(table, dict):
        return "[\n" + ",\n".join(_flat(entry) for entry in table) + "\n]\n"
    lines = [f"{json.dumps(key)}:{_second(table[key])}" for key in table]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _second(entry: Any) -> str:
    if isinstance(entry, list) and entry and not isinstance(entry[0], (int, str)):
        return "[\n" + ",\n".join(_flat(item) for item in entry) + "\n]"
    if isinstance(entry, dict):
        return "{\n" + ",\n".join(f"{json.dumps(key)}:{_flat(entry[key])}" for key in entry) + "\n}"
    return _flat(entry)


def _flat(entry: Any) -> str:
    return json.dumps(entry, separators=(",", ":"))


def main(arguments: list[str]) -> int:
    """Writes the tables, or says which of them are not what would be written."""
    if not SHARED.is_dir():
        print(f"gen_tables: the facts are not here: no folder {SHARED}", file=sys.stderr)
        return 2
    stale = []
    for name, make in MAKERS.items():
        path, text = TABLES / f"{name}.json", render(make(SHARED))
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if "--check" not in arguments:
            path.write_text(text)
    if stale:
        print(("differs: " if "--check" in arguments else "written: ") + ", ".join(stale))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
