"""Kernel versions: what a text names, how they compare, and which rules and features each has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpflisp.spec import helpers, kernels
from bpflisp.spec.rules import RULES, Rule

NAMED = {
    "6.18": "6.18.44",
    "6.18.15": "6.18.15",
    "6.1": "6.1.192",
    "5.10": "5.10.262",
    "6.12": "6.12.117",
    "7.3": "7.3.4",
    "5.15": "5.15.0",
    "v6.1": "6.1.192",
    "6.1.0-56-cloud-amd64": "6.1.0",
    "6.18-rc3": "6.18.44",
}


@pytest.mark.parametrize("text", NAMED)
def test_resolve(text: str) -> None:
    assert kernels.resolve(text) == NAMED[text]
    assert kernels.profile(text).name == NAMED[text]


@pytest.mark.parametrize("text", ["", "six", "6", "6.x", "6.1.2.3", "latest"])
def test_what_is_no_version_is_refused_by_name(text: str) -> None:
    with pytest.raises(kernels.UnknownKernelError, match="no kernel version"):
        kernels.profile(text)


@pytest.mark.parametrize("text", ["7.4", "9.9.1", "v7.10-rc1"])
def test_what_is_later_than_all_that_was_measured_is_refused(text: str) -> None:
    with pytest.raises(kernels.UnknownKernelError, match="is not known"):
        kernels.profile(text)


versions = st.tuples(st.integers(3, 9), st.integers(0, 30), st.integers(0, 300))


@given(versions, versions)
def test_at_least_is_an_order(first: kernels.Version, second: kernels.Version) -> None:
    text = ".".join(map(str, second))
    assert kernels.at_least(first, text) == (first >= second)
    assert not kernels.at_least(first, "")


def test_measured() -> None:
    assert kernels.profile("6.18").measured
    assert not kernels.profile("5.15").measured
    assert list(kernels.MEASURED) == sorted(kernels.MEASURED, key=kernels.parse)


def test_a_fix_carried_back_holds_in_its_own_line_alone() -> None:
    rule = Rule("r", ("6.3", "6.1.192"), "", until=("7.1",))
    holds = {text: rule.holds(kernels.parse(text)) for text in ("6.1.191", "6.1.192", "6.2.300", "6.3", "7.0.9", "7.1")}
    assert holds == {
        "6.1.191": False, "6.1.192": True, "6.2.300": False, "6.3": True, "7.0.9": True, "7.1": False,
    }  # fmt: skip


def test_rules_have_one_name_each_and_no_feature_has_it() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    assert not set(names) & set(kernels.features())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rules_are_asked_by_name(rule: Rule) -> None:
    assert kernels.profile(rule.since[0]).has(rule.name) == rule.holds(kernels.profile(rule.since[0]).version)
    assert not kernels.profile("4.0").has(rule.name)
    assert rule.about


def test_features_by_version() -> None:
    assert kernels.profile("5.3").has("bounded-loops")
    assert not kernels.profile("5.2").has("bounded-loops")
    with pytest.raises(KeyError):
        kernels.profile("6.18").has("no-such-rule")


def test_neighbours() -> None:
    names = ["5.10.262", "6.1.192", "6.12.117"]
    assert kernels.neighbours((5, 15, 0), names) == ("5.10.262", "6.1.192")
    assert kernels.neighbours((6, 1, 192), names) == ("6.1.192", "6.1.192")
    assert kernels.neighbours((4, 0, 0), names) == (None, "5.10.262")
    assert kernels.neighbours((9, 0, 0), names) == ("6.12.117", None)


HOST = {"release": "6.8.0-45-generic", "version": "6.8.0", "first_unknown": 212,
        "rows": [["xdp", "", False, "1-3,51", "51"]]}  # fmt: skip


def test_a_host_that_was_probed(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text(json.dumps(HOST))
    profile = kernels.profile(str(file))
    assert profile.version == (6, 8, 0)
    assert profile.name == f"6.8.0@{file}"
    assert profile.measured
    assert kernels.profile(profile.name) == profile
    assert profile.has("spilled-constants")
    assert not profile.has("may-goto")
    for name in (str(file), profile.name):
        assert helpers.allowed(name, "xdp") == {1, 2, 3, 51}
        assert helpers.gpl_only(name, "xdp") == {51}
        assert helpers.allowed(name, "sched_cls") == frozenset()
        assert helpers.first_unknown(name) == 212
        assert helpers.refusal(4, name) == "unknown func bpf_probe_read#4"
        assert helpers.proto(1, "xdp", kernel=name).args


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"version": "six", "first_unknown": 1, "rows": []}'])
def test_a_file_that_is_no_profile(tmp_path: Path, text: str) -> None:
    file = tmp_path / "host.json"
    with pytest.raises(kernels.UnknownKernelError, match="no profile"):
        kernels.profile(str(file))
    file.write_text(text)
    with pytest.raises(kernels.UnknownKernelError):
        kernels.profile(str(file))


def test_limits() -> None:
    assert kernels.profile("6.18").limits.processed == 1_000_000
    assert kernels.profile("5.0").limits.insns == 4096
