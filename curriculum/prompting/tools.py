"""The tools a ReAct loop may call: search over the passages, and a calculator."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

Search = Callable[[list[str], int], list[list[str]]]

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_LARGEST = 10**15


def calculate(expression: str) -> str:
    """The value of an arithmetic expression (+ - * / // % ** and parentheses), or a sentence saying why there is none."""
    try:
        value = _value(ast.parse(expression.replace("^", "**").replace(",", ""), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError) as error:
        return f"error: {error.msg if isinstance(error, SyntaxError) else error}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(node: ast.AST) -> int | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > 64 or abs(left) > 10**6):
            raise ValueError("the power is too large")
        result = _BINARY[type(node.op)](left, right)
        if isinstance(result, complex) or abs(result) > _LARGEST:
            raise ValueError("the result is too large or not real")
        return result
    raise ValueError("only numbers and + - * / // % ** are understood")
