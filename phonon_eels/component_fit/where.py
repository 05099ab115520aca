"""Choose positions of a fit by an expression such as ``status != converged and p_value < 0.01``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phonon_eels.component_fit.result import STATUS_WORDS, ComponentFit
from phonon_eels.errors import ConfigError

LONGEST = 500
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
MAPS = ("deviance", "pearson_chi2", "p_value", "n_channels", "evaluations")


@dataclass(frozen=True)
class Known:
    """What an expression may speak of.

    Attributes
    ----------
    numbers
        Word → map, (rows, columns).
    flags
        Word → (map of numbers, their words).
    shape
        (rows, columns).
    about
        The words, for messages.
    """

    numbers: Mapping[str, np.ndarray]
    flags: Mapping[str, tuple[np.ndarray, tuple[str, ...]]]
    shape: tuple[int, ...]
    about: str


def positions_where(fit: ComponentFit, expression: str) -> np.ndarray:
    """Return where an expression holds, (rows, columns) of bool.

    Parameters
    ----------
    expression
        Comparisons (== != < <= > >=) joined by and, or, not and brackets. Compared are numbers, `deviance`, `pearson_chi2`,
        `p_value`, `n_channels`, `evaluations`, parameters (``b.centre``) and their deviations (``b.centre.std``); `status`
        is compared with its words (== and != only). The text is parsed, never run. NaN fulfils only !=.

    Raises
    ------
    ConfigError
        If it is anything else.

    Examples
    --------
    ``positions_where(fit, "status != converged or b.fwhm.std > 2")``
    """
    numbers = {word: np.asarray(getattr(fit, word)) for word in MAPS}
    numbers |= {name: fit.value(name) for name in fit.names}
    numbers |= {f"{name}.std": fit.value_std(name) for name in fit.names}
    about = f"{', '.join(('status', *MAPS, *fit.names))} (deviations: with .std)"
    return where_true(expression, Known(numbers, {"status": (fit.status, STATUS_WORDS)}, fit.status.shape, about))


def where_true(expression: str, known: Known) -> np.ndarray:
    """Return where an expression on known maps holds, (rows, columns) of bool; as `positions_where`.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    if len(expression) > LONGEST:
        raise ConfigError(f"where: the expression has {len(expression)} characters; at most {LONGEST} are read")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as problem:
        raise ConfigError(f'where: cannot read {expression!r}; write it as "status != converged"') from problem
    return np.broadcast_to(_truth(tree, known), known.shape).copy()


def _truth(node: ast.expr, known: Known) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, known) for value in node.values]
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return np.asarray(join.reduce(parts))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_truth(node.operand, known)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        result = np.ones(known.shape, bool)
        for left, sign, right in zip(sides[:-1], node.ops, sides[1:], strict=True):
            result &= _comparison(left, sign, right, known)
        return result
    raise ConfigError(f'where: {ast.unparse(node)!r} is no comparison; write it as "status != converged"')


def _comparison(left: ast.expr, sign: ast.cmpop, right: ast.expr, known: Known) -> np.ndarray:
    compare = COMPARISONS.get(type(sign))
    if compare is None:
        raise ConfigError("where: compare by ==, !=, <, <=, > or >=")
    words = [ast.unparse(side) for side in (left, right)]
    for flag, (values, meanings) in known.flags.items():
        if flag not in words:
            continue
        word = words[1 - words.index(flag)]
        if word not in meanings or not isinstance(sign, ast.Eq | ast.NotEq):
            raise ConfigError(f"where: {flag} is compared by == or != with one of {', '.join(meanings)}, not {word!r}")
        return np.asarray(compare(values, meanings.index(word)))
    return np.asarray(compare(_number(left, known), _number(right, known)))


def _number(node: ast.expr, known: Known) -> np.ndarray | float:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand, known)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    word = ast.unparse(node)
    if word in known.numbers:
        return known.numbers[word]
    raise ConfigError(f"where: {word!r} is no number and none of {known.about}")
