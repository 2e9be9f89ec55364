"""Groups of options: one parameter of a verb that stands for several options.

A group is a dataclass whose fields are annotated as parameters of verbs are.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from typing import Any


def expand(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with the options of its groups in place of these; typer can read its signature."""
    parameters = inspect.signature(verb).parameters
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if is_dataclass(parameter.annotation)
    }

    @functools.wraps(verb)
    def run(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        verb(**values, **made)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            option
            for name, parameter in parameters.items()
            for option in (_options(groups[name]) if name in groups else [parameter])
        ]
    )
    return run


def _options(group: Any) -> list[Parameter]:
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=field.type,
        )
        for field in fields(group)
    ]
