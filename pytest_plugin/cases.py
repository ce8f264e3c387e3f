"""Test cases that nobody wrote: runs of a marked test for each engine and kernel, and the pre-flight check."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bpflisp import CompileError
from bpflisp.spec.kernels import UnknownKernelError, profile
from pytest_plugin.deadlines import aside
from pytest_plugin.failures import WATCH, Watch
from pytest_plugin.plugin import CHECKED, kernels_of
from pytest_plugin.reports import checks
from pytest_plugin.summary import COVERAGE, ENGINE, KERNEL, LEFT_OUT, UNCOUNTED
from simulator import (
    ENGINES,
    LoadError,
    Program,
    RefusedError,
    engines_named,
    load,
    observing,
    settings_now,
    using,
)

_CHOICES = (*ENGINES, "all")
_KEYS = ("kernels", "engine")


def in_force(item: pytest.Item, engine: str, kernels: tuple[str, ...]) -> AbstractContextManager[None]:
    """Calls of programs run on this engine and are verified for these kernels, while it lasts.

    Which engines "all" had to leave out is kept with the item's properties, which reach the summary from any worker.
    """

    def left_out(engine: str, why: str) -> None:
        told = (LEFT_OUT, f"engine {engine} left out: {why}")
        if told not in item.user_properties:
            item.user_properties.append(told)

    btf = item.config.getoption("--bpf-kernel-btf") or item.config.getini("bpf_kernel_btf") or None
    seed = item.config.getoption("--bpf-seed")
    watch = Watch(lambda runs_on: note_engine(item, engine, runs_on))
    item.stash[WATCH] = watch
    before = settings_now()
    return using(
        replace(
            before,
            engines=engines_named(engine),
            kernels=kernels,
            kernel_btf=btf,
            left_out=left_out,
            seed=before.seed if seed is None else seed,
            watch=watch.note,
            once=aside,
        )
    )


def forget(item: pytest.Item) -> None:
    """Lets the world of a test's last call go, now that the test is reported."""
    if WATCH in item.stash:
        del item.stash[WATCH]


def note_engine(item: pytest.Item, asked: str, runs_on: str = "") -> None:
    """Keeps with an item's properties, which reach the summary from any worker, which engine the test asked for, and
    of the one that a call runs on whether it goes uncounted. A check runs none."""
    told = [(ENGINE, asked)]
    counting = item.config.pluginmanager.get_plugin(COVERAGE)
    if runs_on and counting is not None and not counting.counts(runs_on):
        told.append((UNCOUNTED, runs_on))
    if not isinstance(item, CheckItem):
        item.user_properties += [each for each in told if each not in item.user_properties]


def require_known(engine: str, kernels: Sequence[str]) -> None:
    """Raises UsageError for an engine or a kernel that there is not."""
    if engine not in _CHOICES:
        raise pytest.UsageError(f"bpf: no engine {engine!r}: there are {', '.join(_CHOICES)}")
    for kernel in kernels:
        try:
            profile(kernel)
        except UnknownKernelError as error:
            raise pytest.UsageError(f"bpf: {error}") from None


# The marker


def parametrise(metafunc: pytest.Metafunc, engine: str, kernels: tuple[str, ...]) -> None:
    """One run for each engine and kernel that the marker names; what it does not name is as the options say."""
    marker = metafunc.definition.get_closest_marker("bpf")
    assert marker is not None
    unknown = [key for key in marker.kwargs if key not in _KEYS]
    if unknown or marker.args:
        what = f"key {unknown[0]!r}" if unknown else "argument without a name"
        raise _wrong(metafunc, f"the marker bpf has no {what}; it has {', '.join(_KEYS)}")
    engines = _listed(marker.kwargs.get("engine", engine))
    asked = _listed(marker.kwargs["kernels"]) if "kernels" in marker.kwargs else None
    for name in engines:
        try:
            require_known(name, asked or kernels)
        except pytest.UsageError as error:
            raise _wrong(metafunc, str(error)) from None
    cases = [(name, (kernel,)) for name in engines for kernel in asked] if asked else [(e, kernels) for e in engines]
    metafunc.fixturenames.append("_bpf_case")
    metafunc.parametrize("_bpf_case", cases, indirect=True, ids=["-".join([name, *k]) for name, k in cases])


def _listed(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _wrong(metafunc: pytest.Metafunc, message: str) -> BaseException:
    path, line, _ = metafunc.definition.reportinfo()
    return pytest.Collector.CollectError(f"{path}:{(line or 0) + 1}: {message}")


# The pre-flight check


def to_check(session: pytest.Session) -> list[pytest.Collector]:
    """The files that `--bpf-check` and `bpf_check` name, but for those that pytest collects by their own names."""
    paths = [path for path in matching(session.config) if path.suffix not in CHECKED or not session.isinitpath(path)]
    return [CheckedObject.from_parent(session, path=path) for path in paths]


def matching(config: pytest.Config) -> list[Path]:
    """The files of `--bpf-check`, from where pytest was started, or of `bpf_check`, from the ini file's folder.

    The ini key is not asked where pytest is given single files or tests alone. Raises UsageError for a pattern that no
    file matches.
    """
    asked = [(config.invocation_params.dir, pattern) for pattern in config.getoption("--bpf-check")]
    if not asked and not _narrowed(config):
        asked = [(config.rootpath, pattern) for pattern in config.getini("bpf_check")]
    found: dict[Path, None] = {}
    for base, pattern in asked:
        matching = sorted(
            path for path in map(Path, glob.glob(str(base / pattern), recursive=True)) if not path.is_dir()
        )
        if not matching:
            raise pytest.UsageError(f"bpf: no file matches {pattern!r} in {base}")
        found.update(dict.fromkeys(matching))
    return list(found)


def _narrowed(config: pytest.Config) -> bool:
    """Whether pytest is asked for single files or tests, and for no folder and nothing that the ini file names."""
    usual = config.getini("testpaths")
    given = [argument for argument in config.args if argument not in usual]
    return bool(given) and all("::" in each or Path(config.invocation_params.dir, each).is_file() for each in given)


class CheckedObject(pytest.File):
    """An object file whose programs are verified."""

    def collect(self) -> list[pytest.Item]:
        """An item for each program and kernel; one that fails where the file cannot be loaded. Warns of its notes."""
        return list(self._items(kernels_of(self.config)))

    def _items(self, kernels: tuple[str, ...]) -> Iterator[pytest.Item]:
        btf = self.config.getoption("--bpf-kernel-btf") or self.config.getini("bpf_kernel_btf") or None
        try:
            # What is verified alone is not what coverage is about.
            with observing():
                obj = load(self.path, kernel_btf=btf)
        except (LoadError, CompileError, OSError) as error:
            yield CheckItem.from_parent(self, name="load", problem=str(error))
            return
        for note in obj.notes:
            warnings.warn_explicit(note, UserWarning, str(self.path), 1)
        if not obj.programs:
            yield CheckItem.from_parent(self, name="load")
        for name, program in obj.programs.items():
            for kernel in kernels:
                case = f"{name}[{kernel}]"
                # The id is given: pytest tells what is in brackets apart, and finds the item by it on --lf.
                nodeid = f"{self.nodeid}::{case}"
                yield CheckItem.from_parent(self, name=case, nodeid=nodeid, program=program, kernel=kernel, btf=btf)


class UnloadableError(Exception):
    """The file cannot be loaded; the message is the loader's."""


class CheckItem(pytest.Item):
    """One program, verified for one kernel; or, of an object without a program, whether it can be loaded."""

    def __init__(
        self,
        *,
        program: Program | None = None,
        kernel: str = "",
        btf: str | None = None,
        problem: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kernel:
            self.user_properties.append((KERNEL, kernel))
        self.program, self.kernel, self.btf, self.problem = program, kernel, btf, problem

    def runtest(self) -> None:
        """Verifies, and warns of what the verdict warns of. Raises RefusedError or UnloadableError."""
        if self.program is None:
            if self.problem:
                raise UnloadableError(self.problem)
            return
        with observing():
            verdict = self.program.verify(self.kernel, self.btf)
        for told in verdict.warnings:
            warnings.warn_explicit(f"{self.name}: {told}", UserWarning, str(self.path), 1)
        reports = checks.of(self.config)
        if reports is not None:
            reports.judge(self, self.program, self.kernel, self.btf, verdict)
        if not verdict.accepted:
            raise RefusedError(self.program, verdict, str(self.path))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The refusal alone: there is no code of the user's to show."""
        if isinstance(excinfo.value, RefusedError | UnloadableError | checks.OverBudgetError):
            return str(excinfo.value).replace(f"{self.config.rootpath}{os.sep}", "")
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Shown as the object's path and the program."""
        return self.path, None, f"bpf check: {self.name}"
