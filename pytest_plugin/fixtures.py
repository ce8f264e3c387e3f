"""What the fixture `bpf` gives: worlds in which an object's programs are called by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

from simulator import Object, Program, Result, World, as_struct, settings_now

CPUS = 4
"""How many CPUs a world has where a test does not say."""


class BpfFactory:
    """Makes worlds: `bpf(obj)`. It keeps nothing, so that one serves a whole session."""

    def __call__(
        self, obj: Object, *, seed: int | None = None, cpus: int = CPUS, verify: bool | None = None
    ) -> BpfWorld:
        """A fresh world with the object's maps and programs.

        `seed` is that of its random numbers, `cpus` how many CPUs it has; `verify=False` lets programs run that the
        verifier refuses.
        """
        if not isinstance(obj, Object):
            raise TypeError(f"bpf(...) takes an object, as load gives it: bpf(load({_as_path(obj)!r}))")
        seed = settings_now().seed if seed is None else seed
        return BpfWorld(obj, World(obj, seed=seed, cpus=cpus), verify)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"bpf makes worlds: w = bpf(obj), and then w.{name}")

    def __repr__(self) -> str:
        return "bpf"


def _as_path(given: object) -> str:
    """The file that was meant by what is no object."""
    return str(given) if isinstance(given, str | PurePath) else getattr(given, "origin", "") or "fw.bpf.o"


class _Caller:
    """A program in a world, as a function."""

    def __init__(self, world: BpfWorld, program: Program) -> None:
        self._world, self._program = world, program
        self.__name__ = program.name

    def __call__(self, packet: Any = None, **options: Any) -> Result:
        """Runs the program in this world; see `simulator.Program.__call__`."""
        return self._world._call(self._program, packet, options)

    def __repr__(self) -> str:
        return self._program.name or self._program.type


class BpfWorld:
    """An object in a world of its own: programs as methods, maps, clock, CPU, mocked helpers.

    What is not defined here is the world's: `w.maps`, `w.clock`, `w.cpu`, `w.helpers`, `w.task`, `w.printed`, ...
    """

    _obj: Object
    _verify: bool | None
    _in_kernel: dict[str, Result]
    world: World

    def __init__(self, obj: Object, world: World, verify: bool | None = None) -> None:
        self.__dict__.update(_obj=obj, world=world, _verify=verify, _in_kernel={})

    def __getattr__(self, name: str) -> Any:
        obj: Object = self.__dict__["_obj"]
        if name in obj.programs:
            return self._caller(obj.programs[name])
        try:
            return getattr(self.__dict__["world"], name)
        except AttributeError:
            raise AttributeError(f"{obj.path}: {_unknown('program', name, obj.programs)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(self.world, name):
            raise AttributeError(f"a world has no {name!r} to set")
        setattr(self.world, name, value)

    def __getitem__(self, name: str) -> Callable[..., Result]:
        """A program by its name, or by its section."""
        return self._caller(self._obj[name])

    def records(self, name: str, struct: str = "") -> list[Any]:
        """Takes the records of a ring buffer: bytes, or the object's structure of that name."""
        buffer: Any = self.world.maps[name]
        if not hasattr(buffer, "read"):
            raise TypeError(f"map {name!r} is of type {buffer.definition.type}: it has no records")
        taken: list[bytes] = buffer.read()
        return [as_struct(self._obj, struct, record) for record in taken] if struct else taken

    @property
    def printed(self) -> list[str]:
        """What programs printed in this world. Raises EngineUnavailable where one did in the kernel, unseen."""
        for result in self._in_kernel.values():
            _ = result.trace
        return self.world.printed

    def __iter__(self) -> Iterator[str]:
        return iter(self._obj.programs)

    def __repr__(self) -> str:
        return f"<world of {self._obj.path}: programs {', '.join(self._obj.programs) or 'none'}>"

    def _caller(self, program: Program) -> Callable[..., Result]:
        return _Caller(self, program)

    def _call(self, program: Program, packet: Any, options: dict[str, Any]) -> Result:
        options.setdefault("verify", self._verify)
        result = program(packet, world=self.world, **options)
        if result.engine == "kernel":
            self._in_kernel[program.name] = result
        return result


def _unknown(what: str, name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known) or 'none'}"
    return f"no {what} {name!r}; {hint}"
