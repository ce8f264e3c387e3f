"""Drops block parameters that always hold the same value.

Used by the builder, whose construction makes such parameters, and by passes that take edges away.
"""

from __future__ import annotations

from bpflisp.ir.ssa import Edge, Function, Param, Value, incoming_edges, replace_values


def remove_trivial_params(function: Function) -> bool:
    """Replace each block parameter that gets one value alone, itself aside, by that value. Says whether any was.

    The value dominates the block: it reaches it on every edge, or on all edges but those that hand the parameter
    itself around, and those come from blocks that the block dominates.
    """
    edges = {block: [edge for _, edge in incoming] for block, incoming in incoming_edges(function).items()}
    replaced: dict[Value, Value] = {}

    def final(value: Value) -> Value:
        while value in replaced:
            value = replaced[value]
        return value

    progress = True
    while progress:
        progress = False
        for block in function.blocks[1:]:
            for param in list(block.params):
                only = _single_value(block.params.index(param), param, edges[block], replaced)
                if only is not None:
                    replaced[param] = final(only)
                    _drop(block.params, param, edges[block])
                    progress = True
    replace_values(function, replaced)
    return bool(replaced)


def _single_value(index: int, param: Param, edges: list[Edge], replaced: dict[Value, Value]) -> Value | None:
    """The one value other than `param` that the edges hand over at `index`; None where there are none or several."""
    only: Value | None = None
    for edge in edges:
        value = edge.args[index]
        while value in replaced:
            value = replaced[value]
        if value is param or value == only:
            continue
        if only is not None:
            return None
        only = value
    return only


def _drop(params: list[Param], param: Param, edges: list[Edge]) -> None:
    index = params.index(param)
    del params[index]
    for edge in edges:
        del edge.args[index]
