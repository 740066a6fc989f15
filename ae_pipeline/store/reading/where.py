"""A condition as SQL writes it after WHERE, as one on Arrow columns.

    condition, columns = parse_where("label IN (7, 9) AND error < 0.01", schema)
    table.filter(condition.expression)

sqlglot parses; what is translated here: comparisons of columns and constants, AND, OR, NOT, IN, BETWEEN, IS NULL, LIKE.
Anything else is refused, also where sqlglot notes it as an addition to a node that is taken (`LIKE ... ESCAPE`).
"""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.errors import ConfigError, first_line
from ae_pipeline.store.reading.conditions import COMPARISONS, Condition, among, as_decimal, compare, is_null

_TAKEN = "comparisons (=, <>, <, <=, >, >=), AND, OR, NOT, IN, BETWEEN, IS NULL and LIKE of columns and constants"
_SHOWN = 300  # characters of a condition in a message
_SIGNS = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def parse_where(text: str, schema: pa.Schema) -> tuple[Condition, frozenset[str]]:
    """The condition, and the columns it needs. Raises ConfigError."""
    import sqlglot
    from sqlglot import exp

    shown = repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    try:
        tree = sqlglot.parse_one(text, into=exp.Condition)
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise ConfigError(f"cannot understand the condition {shown}: {_plain(error)}; expected {_TAKEN}") from None
    for column in tree.find_all(exp.Column):
        path = ".".join(part.name for part in column.parts)
        if len(column.parts) > 1 and path in schema.names:
            raise ConfigError(
                f'the condition {shown} names {path} without quotes; write the column as "{path}", in double quotes'
            )
    columns = frozenset(column.name for column in tree.find_all(exp.Column))
    for name in sorted(columns):
        if name not in schema.names:
            raise ConfigError(
                f"the condition {shown} names a column {name!r}; the store has {', '.join(schema.names)} "
                "(texts stand in single quotes)"
            )
    try:
        condition = _Translation(schema).of(tree)
    except _UnknownError as error:
        raise ConfigError(f"cannot use {error} in the condition {shown}; expected {_TAKEN}") from None
    except ValueError as error:
        raise ConfigError(f"cannot compare {error}, in the condition {shown}; {_columns(schema)}") from None
    except RecursionError:
        raise ConfigError(f"the condition {shown} is nested too deeply; use IN for many values") from None
    if not columns:
        raise ConfigError(f"the condition {shown} names no column; the store has {', '.join(schema.names)}")
    return condition, columns


class _UnknownError(Exception):
    pass


class _Translation:
    """sqlglot's tree to a Condition, node by node."""

    def __init__(self, schema: pa.Schema):
        self._schema = schema
        self._nodes: dict[str, Callable[[Any], Condition]] = {
            "And": lambda node: self.of(node.left) & self.of(node.right),
            "Or": lambda node: self.of(node.left) | self.of(node.right),
            "Not": lambda node: ~self.of(node.this),
            "Paren": lambda node: self.of(node.this),
            "Column": self._flag,
            "Between": self._between,
            "In": self._in,
            "Is": self._is,
            "Like": self._like,
            **dict.fromkeys(_SIGNS, self._comparison),
        }

    def of(self, node: Any) -> Condition:
        """Translate a node that is true, false or null. Raises _UnknownError, ValueError."""
        if type(node).__name__ not in self._nodes:
            raise _UnknownError(node.sql())
        return self._nodes[type(node).__name__](node)

    def _comparison(self, node: Any) -> Condition:
        _only(node, "this", "expression")
        sign, left, right = _SIGNS[type(node).__name__], _bare(node.left), _bare(node.right)
        if _is_column(right) and not _is_column(left):
            sign, left, right = _MIRRORED[sign], right, left
        name, kind = self._column(left)
        if _is_column(right):
            return Condition(COMPARISONS[sign](pc.field(name), pc.field(self._column(right)[0])))
        return compare(name, kind, sign, _constant(right))

    def _between(self, node: Any) -> Condition:
        _only(node, "this", "low", "high")
        name, kind = self._column(node.this)
        low, high = (_constant(node.args[key]) for key in ("low", "high"))
        return compare(name, kind, ">=", low) & compare(name, kind, "<=", high)

    def _in(self, node: Any) -> Condition:
        _only(node, "this", "expressions")
        name, kind = self._column(node.this)
        values = [_constant(item) for item in node.expressions]
        if not values:
            raise _UnknownError(node.sql())
        return among(name, kind, values)

    def _is(self, node: Any) -> Condition:
        _only(node, "this", "expression")
        if type(node.expression).__name__ != "Null":
            raise _UnknownError(node.sql())
        return is_null(self._column(node.this)[0])

    def _like(self, node: Any) -> Condition:
        _only(node, "this", "expression", "negate")
        name, kind = self._column(node.this)
        pattern = _constant(node.expression)
        if not isinstance(pattern, str) or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ValueError(f"{node.expression.sql()} by LIKE with a column of type {kind}")
        # Arrow takes a backslash for an escape character; SQL has none unless it is told.
        like = Condition(pc.match_like(pc.field(name), pattern.replace("\\", "\\\\")))
        return ~like if node.args.get("negate") else like

    def _flag(self, node: Any) -> Condition:
        name, kind = self._column(node)
        return compare(name, kind, "=", True)

    def _column(self, node: Any) -> tuple[str, pa.DataType]:
        node = _bare(node)
        if not _is_column(node):
            raise _UnknownError(node.sql())
        _only(node, "this")
        return node.name, self._schema.field(node.name).type


def _constant(node: Any) -> bool | int | float | Decimal | str:
    node = _bare(node)
    kind = type(node).__name__
    if kind == "Boolean":
        return bool(node.this)
    if kind == "Neg":
        value = _constant(node.this)
        if isinstance(value, bool | str):
            raise _UnknownError(node.sql())
        return value.copy_negate() if isinstance(value, Decimal) else -value  # whose minus rounds to 28 digits
    if kind == "Cast" and node.this.is_string:
        raise _UnknownError(f"{node.sql()} (a time or date is a plain text here: {node.this.sql()})")
    if kind != "Literal":
        raise _UnknownError(node.sql())
    text = str(node.this)
    if node.is_string:
        return text
    try:
        value = int(text) if text.isdigit() else float(text)
    except ValueError:  # thousands of digits
        raise _UnknownError(f"{text[:20]}...") from None
    if isinstance(value, float) and math.isinf(value):
        raise _UnknownError(text[:40])
    exact = Decimal(text)
    return value if as_decimal(value) == exact else exact  # more digits than a float has


def _bare(node: Any) -> Any:
    while type(node).__name__ == "Paren":
        node = node.this
    return node


def _is_column(node: Any) -> bool:
    return type(node).__name__ == "Column"


def _only(node: Any, *known: str) -> None:
    """Refuse what sqlglot has found beside the arguments that are translated."""
    if any(value for key, value in node.args.items() if key not in known):
        raise _UnknownError(node.sql())


def _columns(schema: pa.Schema) -> str:
    return f"the columns are {', '.join(f'{field.name}: {field.type}' for field in schema)}"


def _plain(error: BaseException) -> str:
    return first_line(error).replace("\x1b[4m", "").replace("\x1b[0m", "").split(". Line 1")[0].rstrip(".")
