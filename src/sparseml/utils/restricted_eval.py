"""Arithmetic from text, without running code and within limits."""

from __future__ import annotations

import ast
import operator
import threading
from collections.abc import Callable, Mapping
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from sparseml.utils.text import shortened

MAX_EXPRESSION_LENGTH = 1000
MAX_EXPRESSION_DEPTH = 200  # of operators within operators, far below Python's own limit
MAX_INTEGER_BITS = 1024  # as far as a float reaches
MAX_EXPONENT = 1024

Number = int | float


class UnknownVariableException(Exception):
    """An expression names a variable that does not exist."""

    def __init__(self, var_name: str) -> None:
        super().__init__(f"unknown variable {var_name!r}")
        self.var_name = var_name


def _number(value: Any) -> Number:
    # bool is an int; complex and strings are not numbers of a recipe
    if not isinstance(value, (int, float)):
        raise RuntimeError(f"{shortened(value)} is not a number")
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise RuntimeError(f"a number grows beyond {MAX_INTEGER_BITS} bits")
    return value


def _power(base: Number, exponent: Number) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        bits = max(base.bit_length(), 1) * abs(exponent)
        if abs(exponent) > MAX_EXPONENT or (abs(base) > 1 and bits > 2 * MAX_INTEGER_BITS):
            raise RuntimeError("a power grows too large")
    return base**exponent


def _round(number: Number, ndigits: int | None = None) -> Any:
    if ndigits is not None and abs(ndigits) > MAX_INTEGER_BITS:
        raise RuntimeError(f"round takes at most {MAX_INTEGER_BITS} digits, found {ndigits}")
    return round(number, ndigits)


def _checked(function: Callable[..., Any]) -> Callable[..., Number]:
    def call(*args: Any, **kwargs: Any) -> Number:
        for value in (*args, *kwargs.values()):
            _number(value)
        return _number(function(*args, **kwargs))

    return call


_OPERATORS: dict[type[ast.AST], Callable[..., Number]] = {
    ast.Add: _checked(operator.add),
    ast.Sub: _checked(operator.sub),
    ast.Mult: _checked(operator.mul),
    ast.Div: _checked(operator.truediv),
    ast.FloorDiv: _checked(operator.floordiv),
    ast.Pow: _checked(_power),
    ast.Mod: _checked(operator.mod),
    ast.USub: _checked(operator.neg),
    ast.UAdd: _checked(operator.pos),
}
_FUNCTIONS: dict[str, Callable[..., Number]] = {
    function.__name__: _checked(function) for function in (abs, float, int, max, min)
} | {"round": _checked(_round)}
_NODES = (ast.Expr, ast.Constant, ast.Name, ast.UnaryOp, ast.BinOp, ast.Call, ast.keyword)


class _Arithmetic(SimpleEval):
    """simpleeval cut down to numbers, named numbers, operators and six functions."""

    nodes: dict[type[ast.AST], Callable[..., Any]]

    def __init__(self) -> None:
        super().__init__(operators=_OPERATORS, functions=_FUNCTIONS, names={})
        handlers: dict[type[ast.AST], Callable[..., Any]] = self.nodes
        self.nodes = {kind: handlers[kind] for kind in _NODES}
        self.nodes[ast.Name] = lambda node: _number(_variable(node.id, self.names))
        self.nodes[ast.Constant] = lambda node: _number(node.value)

    def calculate(self, tree: ast.expr, names: Mapping[str, Any]) -> Any:
        self.names = names
        try:
            return self.eval("", previously_parsed=tree)
        finally:
            self.names = {}


# making one takes longer than using it, and none is ever used by two threads
_THREAD = threading.local()


def _arithmetic() -> _Arithmetic:
    if not hasattr(_THREAD, "arithmetic"):
        _THREAD.arithmetic = _Arithmetic()
    made: _Arithmetic = _THREAD.arithmetic
    return made


def _variable(name: str, variables: Mapping[str, Any]) -> Any:
    if name not in variables:
        raise UnknownVariableException(name)
    return variables[name]


def _parse(expression: str) -> ast.expr:
    if not isinstance(expression, str):
        raise RuntimeError(f"an expression must be text, found {expression!r}")
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise RuntimeError(f"an expression may have {MAX_EXPRESSION_LENGTH} characters at most")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise RuntimeError(
            f"{shortened(expression)} is not arithmetic: {getattr(err, 'msg', err)}"
        ) from err
    level: list[ast.AST] = [tree]
    for _ in range(MAX_EXPRESSION_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise RuntimeError(
            f"{shortened(expression)} is nested more than {MAX_EXPRESSION_DEPTH} levels deep"
        )
    return tree


def expression_variables(expression: str) -> set[str]:
    """Return the names of the variables in an expression.

    :param expression: what :func:`restricted_eval` takes
    :raises RuntimeError: if it is no expression
    """
    nodes = list(ast.walk(_parse(expression)))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called}


def restricted_eval(expression: str, variables: Mapping[str, Any] | None = None) -> Any:
    """Evaluate an arithmetic expression.

    Allowed are numbers, variables, ``+ - * / // ** %``, signs, parentheses and calls of
    ``abs``, ``float``, ``int``, ``max``, ``min`` and ``round``. Nothing else is, in particular
    no attribute, subscript, text or comparison. Lengths and magnitudes are limited, so that no
    expression takes noticeable time or memory.

    :param expression: the text, for example ``"num_epochs * 0.2"``
    :param variables: values by name. Inside an expression they must be numbers (``bool`` is
        one); an expression that is only a name gives that variable's value whatever its type
    :return: an int or a float, except for a bare name
    :raises UnknownVariableException: for a name that is not in ``variables``
    :raises RuntimeError: for everything else that is wrong with the expression
    """
    tree = _parse(expression)
    if isinstance(tree, ast.Name):
        return _variable(tree.id, variables or {})
    try:
        return _number(_arithmetic().calculate(tree, variables or {}))
    except (InvalidExpression, ArithmeticError, ValueError, TypeError, RuntimeError) as err:
        raise RuntimeError(f"{shortened(expression)} cannot be evaluated: {err}") from err
