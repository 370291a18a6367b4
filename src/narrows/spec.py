"""A recipe's arguments as JSON and back, so that a run folder holds a description and never code.

A number, a string or a shape stands for itself; a part (likelihood, network, schedule) is `{"Name": {argument: value}}`
with a name that the module of that argument exports. Nothing else is ever looked up.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from types import ModuleType
from typing import Any

from torch import nn

from narrows import (
    activations,
    corruptions,
    divergences,
    flows,
    gradients,
    likelihoods,
    networks,
    objectives,
    penalties,
    posteriors,
    priors,
    schedules,
)

__all__ = ["arguments_of", "describe", "misspelt", "restore"]

_MODULES: dict[str, ModuleType] = {
    "likelihood": likelihoods,
    "network": networks,
    "beta": schedules,
    "capacity": schedules,
    "bound": objectives,
    "prior": priors,
    "posterior": posteriors,
    "flow": flows,
    "corruption": corruptions,
    "discrepancy": divergences,
    "game": divergences,
    "penalty": penalties,
    "activation": activations,
    "gradient": gradients,
}
_BUILT = (schedules, corruptions, divergences, gradients, penalties)  # stand in a recipe's arguments as what they build


def misspelt(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a name that is not known, with the nearest right one."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"there is no {kind} {name!r}" + (
        f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(known)}"
    )


def describe(argument: str, value: Any) -> Any:
    """The JSON form of one argument. Raises TypeError for a part that is not the library's own."""
    if isinstance(value, (type(None), bool, int, float, str)):
        return value
    if isinstance(value, (Integral, Real)):  # numpy's
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, (tuple, list, nn.ModuleList)):
        return [describe(argument, v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        part: Any = type(value)
        arguments = dataclasses.asdict(value)
    elif isinstance(value, partial):
        part, arguments = value.func, dict(value.keywords)
    elif isinstance(value, nn.Module):
        part, arguments = type(value), None
    else:
        part, arguments = value, {}
    module = _MODULES.get(argument)
    name = getattr(part, "__name__", repr(part))
    if module is None or name not in module.__all__ or getattr(module, name) is not part:
        raise TypeError(f"{argument}={name} is not one of Narrows' own parts and cannot be described in a file")
    if arguments is None:  # a part of ours keeps what it was built with under the same names
        arguments = {n: getattr(value, n) for n in inspect.signature(part).parameters}
    return {name: {k: describe(k, v) for k, v in arguments.items()}}


def restore(argument: str, value: Any) -> Any:
    """The argument from its JSON form. Raises ValueError for a name that is not there."""
    if isinstance(value, list):
        return tuple(restore(argument, v) for v in value)
    module = _MODULES.get(argument)
    if module is None or not isinstance(value, (str, Mapping)):
        return value
    if isinstance(value, str):
        value = {value: {}}
    (name, arguments), *others = value.items()
    known = [n for n in module.__all__ if isinstance(getattr(module, n), type) or module is objectives]
    if name not in known or others:
        raise ValueError(misspelt(argument, name, known))
    part = getattr(module, name)
    takes = inspect.signature(part).parameters
    words = {k for k in arguments if k in takes and takes[k].annotation is str}  # a network's activation="leaky"
    arguments = {k: v if k in words else restore(k, v) for k, v in arguments.items()}
    try:
        if module in _BUILT:
            return part(**arguments)
        return partial(part, **arguments) if arguments else part
    except TypeError as error:
        raise ValueError(f"{argument}: {error}") from None


def arguments_of(objective: objectives.Objective) -> dict[str, Any] | None:
    """What an objective was built with, in JSON form; None where a schedule or bound of someone's own is among it."""
    try:
        return {
            name: describe(name, getattr(objective, name)) for name in inspect.signature(type(objective)).parameters
        }
    except TypeError:
        return None
