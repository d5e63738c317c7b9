"""One file, or one folder, per model. A model is found by its name there: adding it is all that it takes."""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datasets.errors import ForetideError

if TYPE_CHECKING:
    from forecasting.forecaster import Forecaster


def names() -> list[str]:
    """The names of all models, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> "type[Forecaster]":
    """The class of a model.

    Raises:
        ForetideError: No model has this name.
    """
    from forecasting.forecaster import Forecaster

    known = name.lower().replace("-", "_")
    if known not in names():
        close = difflib.get_close_matches(known, names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ForetideError(f"--model: found {name!r}, {hint}expected one of {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{known}")
    made = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Forecaster)
        and f"{kind.__module__}.".startswith(f"{module.__name__}.")
    ]
    if len(made) != 1:
        place = f"{known}/__init__" if hasattr(module, "__path__") else known
        raise ForetideError(f"forecasting/models/{place}.py: found {len(made)} forecasters, expected exactly one")
    return made[0]


def architecture(name: str, options: Mapping[str, Any], where: str = "architecture") -> Any:
    """The options of a model from plain values, checked."""
    from datasets.options import build

    return build(find(name).Config, options, where)
