"""Kernel functions on sets of CPUs. A mask that a program makes is an object; any other is where the test put it."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator.kfuncs.registry import models
from simulator.machine import Machine

_SIZE = 1024
"""Bytes of a struct bpf_cpumask whose kernel has room for 8,064 CPUs."""

_WORD = 8


def _bits(machine: Machine, mask: int) -> int:
    """A mask's bits, of the CPUs that there are."""
    return int.from_bytes(machine.read(mask, _bytes(machine)), "little") & _all(machine)


def _put(machine: Machine, mask: int, bits: int) -> None:
    machine.write(mask, bits.to_bytes(_bytes(machine), "little"))


def _bytes(machine: Machine) -> int:
    return -(-machine.world.cpus // (8 * _WORD)) * _WORD


def _all(machine: Machine) -> int:
    return (1 << machine.world.cpus) - 1


def _first(machine: Machine, bits: int) -> int:
    """The number of the lowest bit; how many CPUs there are where no bit is set."""
    return (bits & -bits).bit_length() - 1 if bits else machine.world.cpus


@models("bpf_cpumask_create")
def create(machine: Machine, *_: int) -> int:
    """The address of a new, empty mask."""
    return machine.world.objects.allocate("mask of CPUs", _SIZE)


@models("bpf_cpumask_acquire")
def share(machine: Machine, mask: int, *_: int) -> int:
    """One more reference."""
    return machine.world.objects.share(mask)


@models("bpf_cpumask_release")
def release(machine: Machine, mask: int, *_: int) -> int:
    """Lets a reference go."""
    machine.world.objects.release(mask)
    return 0


def _change(machine: Machine, cpu: int, mask: int, to: bool) -> int:
    """Sets or clears one CPU's bit: what it was. No such CPU: nothing, and 0."""
    cpu &= M32
    if cpu >= machine.world.cpus:
        return 0
    bits = _bits(machine, mask)
    _put(machine, mask, bits | 1 << cpu if to else bits & ~(1 << cpu))
    return bits >> cpu & 1


@models("bpf_cpumask_set_cpu")
def set_cpu(machine: Machine, cpu: int, mask: int, *_: int) -> int:
    """Puts a CPU in."""
    _change(machine, cpu, mask, to=True)
    return 0


@models("bpf_cpumask_clear_cpu")
def clear_cpu(machine: Machine, cpu: int, mask: int, *_: int) -> int:
    """Takes a CPU out."""
    _change(machine, cpu, mask, to=False)
    return 0


@models("bpf_cpumask_test_and_set_cpu")
def test_and_set_cpu(machine: Machine, cpu: int, mask: int, *_: int) -> int:
    """Puts a CPU in: whether it was."""
    return _change(machine, cpu, mask, to=True)


@models("bpf_cpumask_test_and_clear_cpu")
def test_and_clear_cpu(machine: Machine, cpu: int, mask: int, *_: int) -> int:
    """Takes a CPU out: whether it was in."""
    return _change(machine, cpu, mask, to=False)


@models("bpf_cpumask_test_cpu")
def test_cpu(machine: Machine, cpu: int, mask: int, *_: int) -> int:
    """Whether a CPU is in."""
    return _bits(machine, mask) >> (cpu & M32) & 1 if cpu & M32 < machine.world.cpus else 0


@models("bpf_cpumask_setall")
def set_all(machine: Machine, mask: int, *_: int) -> int:
    """Puts all CPUs in."""
    _put(machine, mask, _all(machine))
    return 0


@models("bpf_cpumask_clear")
def clear(machine: Machine, mask: int, *_: int) -> int:
    """Takes all out."""
    _put(machine, mask, 0)
    return 0


@models("bpf_cpumask_copy")
def copy(machine: Machine, to: int, source: int, *_: int) -> int:
    """Makes one as another."""
    _put(machine, to, _bits(machine, source))
    return 0


@models("bpf_cpumask_populate")
def populate(machine: Machine, mask: int, source: int, size: int, *_: int) -> int:
    """Makes one of bytes: EACCES for fewer than there are CPUs, EINVAL for what is not in words."""
    size &= M32
    if size < -(-machine.world.cpus // 8):
        return -errno.EACCES
    if size >= _WORD and size % _WORD:
        return -errno.EINVAL
    _put(machine, mask, int.from_bytes(machine.read(source, size), "little") & _all(machine))
    return 0


@models("bpf_cpumask_and")
def both(machine: Machine, to: int, one: int, other: int, *_: int) -> int:
    """What is in both: whether that is anything."""
    bits = _bits(machine, one) & _bits(machine, other)
    _put(machine, to, bits)
    return int(bits != 0)


@models("bpf_cpumask_or")
def either(machine: Machine, to: int, one: int, other: int, *_: int) -> int:
    """What is in one of them."""
    _put(machine, to, _bits(machine, one) | _bits(machine, other))
    return 0


@models("bpf_cpumask_xor")
def one_alone(machine: Machine, to: int, one: int, other: int, *_: int) -> int:
    """What is in one of them alone."""
    _put(machine, to, _bits(machine, one) ^ _bits(machine, other))
    return 0


@models("bpf_cpumask_equal")
def equal(machine: Machine, one: int, other: int, *_: int) -> int:
    """Whether the same is in both."""
    return int(_bits(machine, one) == _bits(machine, other))


@models("bpf_cpumask_intersects")
def intersects(machine: Machine, one: int, other: int, *_: int) -> int:
    """Whether anything is in both."""
    return int(_bits(machine, one) & _bits(machine, other) != 0)


@models("bpf_cpumask_subset")
def subset(machine: Machine, one: int, other: int, *_: int) -> int:
    """Whether all of the first is in the second."""
    return int(_bits(machine, one) & ~_bits(machine, other) == 0)


@models("bpf_cpumask_empty")
def empty(machine: Machine, mask: int, *_: int) -> int:
    """Whether nothing is in."""
    return int(_bits(machine, mask) == 0)


@models("bpf_cpumask_full")
def full(machine: Machine, mask: int, *_: int) -> int:
    """Whether all are in."""
    return int(_bits(machine, mask) == _all(machine))


@models("bpf_cpumask_weight")
def weight(machine: Machine, mask: int, *_: int) -> int:
    """How many are in."""
    return _bits(machine, mask).bit_count()


@models("bpf_cpumask_first", "bpf_cpumask_any_distribute")
def first(machine: Machine, mask: int, *_: int) -> int:
    """The first that is in; how many CPUs there are where none is. Any of them will do for the second function."""
    return _first(machine, _bits(machine, mask))


@models("bpf_cpumask_first_zero")
def first_zero(machine: Machine, mask: int, *_: int) -> int:
    """The first that is not in."""
    return _first(machine, ~_bits(machine, mask) & _all(machine))


@models("bpf_cpumask_first_and", "bpf_cpumask_any_and_distribute")
def first_and(machine: Machine, one: int, other: int, *_: int) -> int:
    """The first that is in both."""
    return _first(machine, _bits(machine, one) & _bits(machine, other))
