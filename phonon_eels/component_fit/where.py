"""Choose positions of a fit by an expression such as ``status != converged and p_value < 0.01``."""

from __future__ import annotations

import ast
import operator

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
    if len(expression) > LONGEST:
        raise ConfigError(f"where: the expression has {len(expression)} characters; at most {LONGEST} are read")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as problem:
        raise ConfigError(f'where: cannot read {expression!r}; write it as "status != converged"') from problem
    return np.broadcast_to(_truth(tree, fit), fit.status.shape).copy()


def _truth(node: ast.expr, fit: ComponentFit) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, fit) for value in node.values]
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return np.asarray(join.reduce(parts))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_truth(node.operand, fit)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        result = np.ones(fit.status.shape, bool)
        for left, sign, right in zip(sides[:-1], node.ops, sides[1:], strict=True):
            result &= _comparison(left, sign, right, fit)
        return result
    raise ConfigError(f'where: {ast.unparse(node)!r} is no comparison; write it as "status != converged"')


def _comparison(left: ast.expr, sign: ast.cmpop, right: ast.expr, fit: ComponentFit) -> np.ndarray:
    compare = COMPARISONS.get(type(sign))
    if compare is None:
        raise ConfigError("where: compare by ==, !=, <, <=, > or >=")
    words = [ast.unparse(side) for side in (left, right)]
    if "status" in words:
        word = words[1 - words.index("status")]
        if word not in STATUS_WORDS or not isinstance(sign, ast.Eq | ast.NotEq):
            raise ConfigError(
                f"where: status is compared by == or != with one of {', '.join(STATUS_WORDS)}, not {word!r}"
            )
        return np.asarray(compare(fit.status, STATUS_WORDS.index(word)))
    return np.asarray(compare(_number(left, fit), _number(right, fit)))


def _number(node: ast.expr, fit: ComponentFit) -> np.ndarray | float:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand, fit)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    word = ast.unparse(node)
    if word in MAPS:
        return np.asarray(getattr(fit, word))
    if word in fit.names:
        return fit.value(word)
    if word.removesuffix(".std") in fit.names:
        return fit.value_std(word.removesuffix(".std"))
    known = ", ".join(("status", *MAPS, *fit.names))
    raise ConfigError(f"where: {word!r} is no number and none of {known} (deviations: with .std)")
