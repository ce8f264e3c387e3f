"""Text to forms, and Common Lisp at compile time: reader, evaluator, macros."""
