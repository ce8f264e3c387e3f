"""The intermediate form between the front end and the code generator: values (`ssa`), and a `Builder` for them."""
