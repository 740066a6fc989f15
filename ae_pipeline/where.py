"""A condition as SQL writes it after WHERE, as an Arrow expression.

    condition, columns = parse_where("label IN (7, 9) AND error < 0.01", known=["id", "label", "error"])

sqlglot parses; what is translated here: comparisons of columns and constants, AND, OR, NOT, IN, BETWEEN, IS NULL, LIKE.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.compute as pc

from ae_pipeline.errors import ConfigError, first_line

_TAKEN = "comparisons (=, <>, <, <=, >, >=), AND, OR, NOT, IN, BETWEEN, IS NULL and LIKE of columns and constants"


def parse_where(text: str, known: Sequence[str]) -> tuple[pc.Expression, frozenset[str]]:
    """The expression, and the columns it needs. Raises ConfigError."""
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(text, into=exp.Condition)
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise ConfigError(f"cannot understand the condition {text!r}: {_plain(error)}; expected {_TAKEN}") from None
    columns = frozenset(column.name for column in tree.find_all(exp.Column))
    for name in sorted(columns):
        if name not in known:
            raise ConfigError(
                f"the condition {text!r} names a column {name!r}; the store has {', '.join(known)} "
                "(texts stand in single quotes)"
            )
    try:
        expression = _translate(tree)
    except (_UnknownError, RecursionError) as error:
        raise ConfigError(f"cannot use {error} in the condition {text!r}; expected {_TAKEN}") from None
    if not columns:
        raise ConfigError(f"the condition {text!r} names no column; the store has {', '.join(known)}")
    return expression, columns


class _UnknownError(Exception):
    pass


def _translate(node: Any) -> pc.Expression:
    name = type(node).__name__
    if name in _BINARY:
        return _BINARY[name](_translate(node.left), _translate(node.right))
    if name in _OTHERS:
        return _OTHERS[name](node)
    raise _UnknownError(node.sql())


def _literal(node: Any) -> pc.Expression:
    if node.is_string:
        return pc.scalar(str(node.this))
    return pc.scalar(int(node.this) if str(node.this).isdigit() else float(node.this))


def _in(node: Any) -> pc.Expression:
    if not node.expressions:
        raise _UnknownError(node.sql())
    return functools.reduce(operator.or_, (_translate(node.this) == _translate(item) for item in node.expressions))


def _between(node: Any) -> pc.Expression:
    value = _translate(node.this)
    return (value >= _translate(node.args["low"])) & (value <= _translate(node.args["high"]))


def _is(node: Any) -> pc.Expression:
    if type(node.expression).__name__ != "Null":
        raise _UnknownError(node.sql())
    return _translate(node.this).is_null()


def _like(node: Any) -> pc.Expression:
    if type(node.expression).__name__ != "Literal" or not node.expression.is_string:
        raise _UnknownError(node.sql())
    return pc.match_like(_translate(node.this), str(node.expression.this))


_BINARY: dict[str, Callable[[pc.Expression, pc.Expression], pc.Expression]] = {
    "EQ": operator.eq,
    "NEQ": operator.ne,
    "LT": operator.lt,
    "LTE": operator.le,
    "GT": operator.gt,
    "GTE": operator.ge,
    "And": operator.and_,
    "Or": operator.or_,
}
_OTHERS: dict[str, Callable[[Any], pc.Expression]] = {
    "Column": lambda node: pc.field(node.name),
    "Literal": _literal,
    "Boolean": lambda node: pc.scalar(bool(node.this)),
    "Neg": lambda node: pc.multiply(pc.scalar(-1), _translate(node.this)),
    "Paren": lambda node: _translate(node.this),
    "Not": lambda node: ~_translate(node.this),
    "Between": _between,
    "In": _in,
    "Is": _is,
    "Like": _like,
}


def _plain(error: BaseException) -> str:
    return first_line(error).replace("\x1b[4m", "").replace("\x1b[0m", "").split(". Line 1")[0].rstrip(".")
