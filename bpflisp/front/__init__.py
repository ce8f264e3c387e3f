"""Forms to SSA: declarations, the typed tree, the checker where every type error is, and lowering."""
