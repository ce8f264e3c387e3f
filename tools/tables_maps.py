"""Tables of map types: numbers, the helpers that take them, and what they may be created with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.facts import answer, fact, map_type_name


def maps(shared: Path) -> dict[str, Any]:
    """`types`: one row a map type; `only`: helper -> the map types that it takes, where the kernel restricts it."""
    tables = fact(shared, "verifier_tables")["kernels"]["6.12"]
    rows = [_type_row(row, tables) for row in sorted(fact(shared, "map_types")["map_types"], key=lambda row: row["id"])]
    only = {
        name.replace("BPF_FUNC_", "bpf_"): [map_type_name(kind) for kind in kinds]
        for name, kinds in tables["helper_only_map_types"].items()
    }
    return {"types": rows, "only": only}


def _type_row(row: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    name = map_type_name(row["name"])
    limits = {map_type_name(kind): helpers for kind, helpers in tables["map_type_only_helpers"].items()}
    made: dict[str, Any] = {"number": row["id"], "name": name, "min": row["min_kernel"] or ""}
    if name in limits:
        helpers = {helper.replace("BPF_FUNC_", "bpf_") for helper in limits[name]}
        made["helpers"] = sorted(helpers | _CHANGED_IN_SOME_TYPES.get(name, set()))
    probe = answer("maps").get(name, {})
    if "flags" in probe:
        made["flags"] = sorted(int(flag) for flag, errno in probe["flags"].items() if errno == 0)
        made["errnos"] = {
            field: {number: errno for number, errno in probe[field].items() if errno} for field in _FIELDS
        }
    return made


# What may_update_sockmap() adds for some program types: the list that was lifted from the sources leaves it out. Which
# types is `maps.may_change_sockets`.
_CHANGING = {"bpf_map_update_elem", "bpf_map_delete_elem"}
_CHANGED_IN_SOME_TYPES = {"sockmap": _CHANGING, "sockhash": _CHANGING}

_FIELDS = ("keys", "values", "entries")
