"""Programs as Python source: blocks, ranges of values, structure, text.

    blocks   which instructions follow which
    ranges   what each register may hold at each block: masks that are not needed, addresses that are known
    frame    stack slots that can be local variables, registers whose values are never read
    shape    nested ifs and loops out of blocks, with a dispatcher where that does not work
    text     one instruction as a line of Python

The engine that uses them is `simulator.engines.python`.
"""
