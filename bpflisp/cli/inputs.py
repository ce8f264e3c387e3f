"""Input of commands: objects, programs, kernels, packets. What cannot be read ends the command with exit code 2."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpflisp.cli.errors import UNREADABLE, CommandError, fail
from bpflisp.diagnostics import error

if TYPE_CHECKING:
    from bpflisp.cli.compiling import Wishes
    from simulator import Object, Program


def load_object(path: str, kernel_btf: str | None = None, how: Wishes | None = None, **settings: Any) -> Object:
    """The object, or the Lisp source compiled (so `how`), at a path; `settings` as `cli.settings` reads them."""
    from bpflisp.cli.compiling import Wishes, compiled

    if Path(path).suffix == ".lisp":
        return loaded(compiled(path, how or Wishes(), exit_code=UNREADABLE).elf, path, kernel_btf, **settings)
    return loaded(path, path, kernel_btf, **settings)


def loaded(what: str | bytes, path: str, kernel_btf: str | None, **settings: Any) -> Object:
    """The object of a file, or of the bytes that were made of it."""
    from simulator import LoadError, load

    try:
        name = path if isinstance(what, bytes) else ""
        return load(what, name=name, kernel_btf=kernel_btf, **settings)
    except LoadError as problem:
        raise CommandError(str(problem)) from None
    except OSError as problem:
        raise unreadable(problem, path) from None


def unreadable(problem: OSError, path: str) -> CommandError:
    """A file that the system does not let us read, as the end of a command."""
    return CommandError(error("file", problem.strerror or str(problem), where=str(problem.filename or path)).render())


def program_of(obj: Object, name: str | None) -> Program:
    """The program of this name or section; the only one where none is named."""
    if name is None:
        if len(obj.programs) == 1:
            return next(iter(obj.programs.values()))
        fail("which-program", "name one of its programs", where=obj.path, help=_choices(obj))
    try:
        return obj[name]
    except KeyError as problem:
        from difflib import get_close_matches

        near = get_close_matches(name, obj.programs, n=1)
        help = f"did you mean --prog {near[0]}?" if near else _choices(obj)
        text = str(problem.args[0]).replace(f" in {obj.path}; it has {', '.join(obj.programs)}", "")
        fail("no-such-program", text, where=obj.path, help=help)


def _choices(obj: Object) -> str:
    return f"it has {', '.join(obj.programs)}" if obj.programs else "it has no program at all"


def known_kernels(kernels: Sequence[str]) -> Sequence[str]:
    """The kernels, each a version that can be read; the default where none is asked for."""
    from bpflisp.spec.kernels import DEFAULT, MEASURED, UnknownKernelError, profile

    for kernel in kernels:
        try:
            profile(kernel)
        except UnknownKernelError as problem:
            fail("unknown-kernel", str(problem), where="--kernel", help=f"measured are {', '.join(MEASURED)}")
    return kernels or (DEFAULT,)


def known_engine(name: str) -> str:
    """The engine's name, if there is such an engine."""
    from simulator import ENGINES

    if name not in ENGINES:
        fail("unknown-engine", f"no engine {name!r}", where="--engine", help=f"there are {', '.join(ENGINES)}")
    return name


def packets(text: str) -> list[bytes]:
    """The packets that `--packet` names: a pcap file, hex digits, or a scapy expression."""
    if Path(text).suffix in (".pcap", ".pcapng", ".cap") or Path(text).is_file():
        return _of_file(text)
    digits = text.replace(" ", "").replace(":", "")
    try:
        return [bytes.fromhex(digits)]
    except ValueError:
        return _of_expression(text)


def _of_file(path: str) -> list[bytes]:
    """The packets of a pcap or pcapng file, as they stand there."""
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapReader

    try:
        file = open(path, "rb")  # noqa: SIM115  closed below, where another error is told
    except OSError as problem:
        raise unreadable(problem, path) from None
    try:
        # Given a path, scapy leaves the file open where it is no pcap.
        with file:
            return [bytes(packet) for packet, _ in RawPcapReader(file)]
    except (Scapy_Exception, EOFError, OSError, ValueError, struct.error) as problem:
        fail("pcap", "this is no pcap or pcapng file", where=path, because=str(problem) or type(problem).__name__)


def _of_expression(text: str) -> list[bytes]:
    """A scapy expression's packet, or packets where it is a list. It is evaluated: it is the user's own."""
    from scapy.layers import inet, inet6, l2
    from scapy.packet import Packet, Raw

    names = {name: getattr(module, name) for module in (inet, inet6, l2) for name in dir(module) if name[:1] != "_"}
    try:
        found = eval(text, {"__builtins__": {"bytes": bytes, "range": range, "len": len}, "Raw": Raw, **names})
        made = found if isinstance(found, list) else [found]
        return [bytes(packet) for packet in made if isinstance(packet, Packet | bytes) or _no_packet(packet)]
    except CommandError:
        raise
    except Exception as problem:
        fail(
            "packet",
            f"{text!r} is no hex, no file and no scapy expression",
            where="--packet",
            because=f"{type(problem).__name__}: {problem}",
            help="Ether()/IP(dst='10.0.0.1')/TCP(dport=80)",
        )


def _no_packet(found: object) -> bool:
    raise TypeError(f"a packet is wanted, not {type(found).__name__}")
