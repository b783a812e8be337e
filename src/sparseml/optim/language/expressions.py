"""``eval(...)`` in recipes: arithmetic on the recipe's variables.

Variables at the root may use each other, in any order. So may variables of a stage, which hide
those at the root of the same name; ``eval(name)`` alone, and nothing longer, may take a variable
from the root into the stage. Modifiers may use all of them.
"""

from __future__ import annotations

import graphlib
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NoReturn

from sparseml.optim.errors import RecipeRuntimeError, RecipeValueError, RecipeVariableError
from sparseml.optim.language.document import (
    Document,
    Path,
    children,
    stages_of,
    tag_key,
    variables_of,
)
from sparseml.optim.language.yaml_text import MAX_NODES
from sparseml.utils.constants import RECIPE_METADATA_KEY
from sparseml.utils.restricted_eval import (
    UnknownVariableException,
    expression_variables,
    restricted_eval,
)
from sparseml.utils.text import did_you_mean, shortened

_OPEN, _CLOSE = "eval(", ")"
Variables = dict[Any, Any]


def is_eval_string(val: Any) -> bool:
    """Whether a value is text of the form ``eval(...)``, without blanks around it."""
    return isinstance(val, str) and val.startswith(_OPEN) and val.endswith(_CLOSE)


def _expression(text: str) -> str:
    return text[len(_OPEN) : -len(_CLOSE)]


class _Evaluator:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0
        self._sizes: dict[int, int] = {}

    def run(self) -> tuple[Any, Variables]:
        root = self._document.container
        variables = self._variables(variables_of(root), {}, ())
        stages = stages_of(root)
        result = {}
        for key, value in root.items():
            if key in variables:
                result[key] = variables[key]
            elif key in stages:
                result[key] = self._stage(value, variables, (key,))
            else:
                result[key] = self._value(value, variables, (key,))
        return result, variables

    def _stage(self, stage: Mapping[Any, Any], outer: Variables, path: Path) -> dict[Any, Any]:
        variables = variables_of(stage)
        self._check_stage_variables(variables, outer, path)
        own = self._variables(variables, outer, path)
        scope = {**outer, **own}
        return {
            key: own[key] if key in own else self._value(value, scope, (*path, key))
            for key, value in stage.items()
        }

    def _check_stage_variables(self, variables: Variables, outer: Variables, path: Path) -> None:
        """Refuse, as SparseML 1.x does, to calculate with variables of the root in those here."""
        for key, value in variables.items():
            if key == RECIPE_METADATA_KEY:
                continue
            for text, names, place in self._expressions(value, (*path, key)):
                foreign = sorted(names & outer.keys() - variables.keys())
                if foreign and _expression(text).strip() != foreign[0]:
                    name = foreign[0]
                    raise self._document.error(
                        RecipeRuntimeError,
                        f"{shortened(text)} calculates with the global variable {name!r}, which a "
                        f"stage's variable can only use bare, as eval({name}); calculate at the "
                        f"root, or add 'stage_{name}: eval({name})' to the stage and use that",
                        place,
                        found=text,
                    )

    def _variables(self, variables: Variables, outer: Variables, path: Path) -> Variables:
        """Evaluate variables in the order in which they need each other."""
        needs: dict[Any, set[str]] = {key: set() for key in variables}
        for key, value in variables.items():
            if key != RECIPE_METADATA_KEY:
                for _, names, _ in self._expressions(value, (*path, key)):
                    needs[key] |= names & variables.keys()
        try:
            order = list(graphlib.TopologicalSorter(needs).static_order())
        except graphlib.CycleError as err:
            # the sorter lists each variable after the one it needs
            cycle = list(reversed(err.args[1]))
            raise self._document.error(
                RecipeRuntimeError,
                f"circular variables: {' -> '.join(map(str, cycle[:10]))}",
                (*path, cycle[0]),
            ) from err
        scope = dict(outer)
        for key in order:
            is_plain = key == RECIPE_METADATA_KEY
            value = variables[key]
            scope[key] = value if is_plain else self._variable(key, value, scope, path)
        return {key: scope[key] for key in variables}

    def _variable(self, key: Hashable, value: Any, scope: Variables, path: Path) -> Any:
        try:
            result = self._value(value, scope, (*path, key))
        except RecipeVariableError as err:
            # of a variable, not of a modifier: old recipes' code expects a RuntimeError
            raise self._document.error(RecipeRuntimeError, err.message, (*path, key)) from err
        if not path and is_eval_string(value) and not isinstance(result, (int, float)):
            raise self._document.error(
                RecipeRuntimeError,
                f"{shortened(value)} is not a number but {shortened(result)}",
                (*path, key),
                found=value,
            )
        return result

    def _expressions(self, value: Any, path: Path) -> Iterator[tuple[str, set[str], Path]]:
        """The expressions in ``value``, the variables that each needs, and where each stands."""
        if is_eval_string(value):
            try:
                yield value, expression_variables(_expression(value)), path
            except RuntimeError as err:
                self._fail(value, err, path)
        for key, item in children(value):
            yield from self._expressions(item, (*path, key))

    def _value(self, value: Any, scope: Variables, path: Path) -> Any:
        self._add(1, path)
        if isinstance(value, dict):
            return {key: self._value(item, scope, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, scope, (*path, i)) for i, item in enumerate(value)]
        if not is_eval_string(value):
            return value
        try:
            result = restricted_eval(_expression(value), scope)
        except UnknownVariableException as err:
            known = [str(name) for name in scope]
            raise self._document.error(
                RecipeVariableError,
                f"unknown variable {shortened(err.var_name)} in {value:.200}"
                f"{did_you_mean(err.var_name, known)}",
                path,
                var_name=err.var_name,
                found=value,
                allowed=known,
            ) from err
        except RuntimeError as err:
            self._fail(value, err, path)
        self._add(self._size(result), path)
        return result

    def _add(self, size: int, path: Path) -> None:
        self._count += size
        if self._count > 2 * MAX_NODES:
            message = "variables make the recipe too large"
            raise self._document.error(RecipeValueError, message, path)

    def _size(self, value: Any) -> int:
        """How many values there are in ``value``; counted once for each variable."""
        if not isinstance(value, (dict, list)):
            return 1
        if id(value) not in self._sizes:
            self._sizes[id(value)] = 1 + sum(self._size(item) for _, item in children(value))
        return self._sizes[id(value)]

    def _fail(self, value: str, err: Exception, path: Path) -> NoReturn:
        raise self._document.error(RecipeRuntimeError, str(err), path, found=value) from err


def evaluate(document: Document) -> tuple[Any, Variables]:
    """Replace every expression by its value.

    :return: the recipe as plain data, and the variables at its root
    :raises RecipeRuntimeError: if an expression is not arithmetic, or variables depend on each
        other in a circle or on one that does not exist
    :raises RecipeVariableError: if a modifier uses a variable that does not exist
    """
    root = document.container
    if not isinstance(root, dict) or tag_key(root):
        return root, {}
    return _Evaluator(document).run()
