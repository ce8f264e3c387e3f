"""From SSA to machine code: `compile_function`."""
