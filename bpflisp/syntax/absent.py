"""What Common Lisp has and is not here: refused by its name, with what there is in its place."""

from __future__ import annotations

from bpflisp.syntax.forms import FormError, Symbol, fail, text

_CLASSES = "`defstruct` has records, `make-hash-table` tables"
_CATCHES = "(handler-case form (error (e) ...)) catches errors, `ignore-errors` passes them over"
_CLOCK = "compiling depends on the source alone"
_STREAMS = "(with-output-to-string (s) ...) collects text"

_HELP = {
    **dict.fromkeys(
        ("DEFCLASS", "DEFGENERIC", "DEFMETHOD", "MAKE-INSTANCE", "SLOT-VALUE", "WITH-SLOTS", "WITH-ACCESSORS",
         "CLASS-OF", "FIND-CLASS", "ENSURE-GENERIC-FUNCTION", "PRINT-UNREADABLE-OBJECT", "PRINT-OBJECT"), _CLASSES),
    **dict.fromkeys(
        ("DEFINE-CONDITION", "MAKE-CONDITION", "HANDLER-BIND", "RESTART-CASE", "RESTART-BIND", "INVOKE-RESTART",
         "WITH-SIMPLE-RESTART", "FIND-RESTART", "BREAK", "INVOKE-DEBUGGER", "SIGNAL",
         "SIMPLE-CONDITION-FORMAT-CONTROL"), _CATCHES),
    **dict.fromkeys(
        ("RANDOM", "MAKE-RANDOM-STATE", "GET-UNIVERSAL-TIME", "GET-INTERNAL-REAL-TIME", "GET-INTERNAL-RUN-TIME",
         "GET-DECODED-TIME", "TIME", "MACHINE-TYPE", "MACHINE-INSTANCE", "LISP-IMPLEMENTATION-TYPE",
         "Y-OR-N-P", "YES-OR-NO-P", "READ", "ED", "ROOM", "DRIBBLE"), _CLOCK),
    **dict.fromkeys(
        ("MAKE-STRING-OUTPUT-STREAM", "GET-OUTPUT-STREAM-STRING", "WITH-INPUT-FROM-STRING",
         "MAKE-STRING-INPUT-STREAM", "READ-SEQUENCE", "WRITE-SEQUENCE"), _STREAMS),
    **dict.fromkeys(
        ("COMPILE", "DISASSEMBLE", "TRACE", "UNTRACE", "STEP", "INSPECT", "DESCRIBE", "APROPOS", "DOCUMENTATION"),
        "`eval` and `funcall` evaluate"),
    **dict.fromkeys(
        ("FIND-PACKAGE", "PACKAGE-NAME", "SYMBOL-PACKAGE", "LIST-ALL-PACKAGES", "DO-SYMBOLS", "UNINTERN",
         "PACKAGE-USE-LIST", "IN-READTABLE", "SET-MACRO-CHARACTER", "SET-DISPATCH-MACRO-CHARACTER"),
        "there is one package, and one way of reading"),
    **dict.fromkeys(("ADJUST-ARRAY", "ARRAY-DISPLACEMENT", "ROW-MAJOR-AREF", "BIT", "SBIT"),
                    "vectors have one dimension: `make-array`, `aref`, `vector-push-extend`"),
    **dict.fromkeys(("NSTRING-UPCASE", "NSTRING-DOWNCASE", "NSTRING-CAPITALIZE"),
                    "strings are not changed in place: `string-upcase`"),
    "DEFINE-SETF-EXPANDER": "(defsetf name (parameter...) (new-value) form)",
    "GET-SETF-EXPANSION": "(defsetf name (parameter...) (new-value) form)",
    "DEFINE-COMPILER-MACRO": "`defmacro`",
    "WITH-HASH-TABLE-ITERATOR": "(maphash function table), or `loop` with `being the hash-keys`",
    **dict.fromkeys((
        "ARRAY-ELEMENT-TYPE", "ARRAY-IN-BOUNDS-P", "BIT-VECTOR-P", "BOOLE", "CHAR-INT", "CHAR-NAME",
        "COMPILED-FUNCTION-P", "CONJUGATE", "COPY-SYMBOL", "CTYPECASE", "CCASE", "DECODE-FLOAT", "FCEILING",
        "FFLOOR", "FMAKUNBOUND", "FROUND", "FTRUNCATE", "GRAPHIC-CHAR-P", "HASH-TABLE-SIZE", "HASH-TABLE-TEST",
        "IMAGPART", "REALPART", "INTEGER-DECODE-FLOAT", "LOAD-TIME-VALUE", "LOOP-FINISH", "MAKE-SEQUENCE",
        "MAKUNBOUND", "MEMBER-IF-NOT", "NBUTLAST", "NSET-EXCLUSIVE-OR", "NSUBLIS", "NSUBST-IF", "NSUBSTITUTE-IF",
        "PHASE", "PPRINT", "REMPROP", "SCALE-FLOAT", "SET", "SPECIAL-OPERATOR-P", "SUBST-IF", "SUBSTITUTE-IF-NOT",
        "SUBTYPEP", "SXHASH", "TAN", "TRANSLATE-PATHNAME", "WRITE",
    ), ""),
    "COMPLEX": "numbers are whole, fractions or floating",
}  # fmt: skip
"""Name -> what helps. Of each other name it is not known whether it is Common Lisp's."""


def undefined(head: Symbol) -> FormError:
    """The error of a call of what is not defined."""
    help = _HELP.get(head.name)
    if help is not None:
        return fail("not-built", f"`{text(head)}` of Common Lisp is not here", help=help)
    return fail("undefined-function", f"no function, macro or special form is named `{text(head)}`")
