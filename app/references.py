"""Which stored model a person means: an alias, a version, a run, or a folder."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.home import home
from app.registry import LATEST, Version
from datasets.errors import ForetideError

if TYPE_CHECKING:
    from app.runs import RunStore
    from forecasting.artifact import Artifact
    from forecasting.config import RunConfig
    from forecasting.protocol import Series

_RUN = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Reference:
    """A stored model.

    Args:
        folder: Its artifact.
        label: How to name it to a person.
    """

    folder: Path
    label: str

    @cached_property
    def stored(self) -> "Artifact":
        """Its artifact without the weights, checked."""
        from forecasting.artifact import load

        return load(self.folder, weights=False)

    @cached_property
    def config(self) -> "RunConfig":
        """The configuration of its training."""
        from datasets.options import build
        from forecasting.artifact import CONFIG
        from forecasting.config import RunConfig

        return build(RunConfig, self.stored.config, str(self.folder / CONFIG))


def find_model(
    model: str, project: str | None = None, read: "Callable[[Reference], Series] | None" = None
) -> Reference:
    """The artifact behind a name.

    Args:
        model: ``champion`` or another alias, a version number, ``latest``, a run (or the beginning of its identifier),
            or a folder.
        project: Whose alias or version; by default the one project whose model fits the data.
        read: The data that is to be forecast, as a model reads it; called where several projects have the name.

    Raises:
        ForetideError: Nothing, or more than one thing, has this name.
    """
    from app.runs import RunStore

    folder = Path(model)
    if os.sep in model or (folder / "schema.json").exists():
        return Reference(folder, str(folder))
    store = RunStore()
    versions = [
        version
        for name in ([project] if project else store.projects())
        for version in _named(store.versions(name), model)
    ]
    found = [Reference(version.artifact, f"{version.project} version {version.version}") for version in versions]
    if len(found) == 1:
        return found[0]
    if found:
        return _matching(found, model, read)
    if _RUN.fullmatch(model) and not model.isdigit():
        row = store.show(model)
        return Reference(row.artifact, f"run {row.run_id}")
    raise _unknown(store, model, project)


def _named(versions: list[Version], which: str) -> list[Version]:
    if which == LATEST:
        return versions[-1:]
    return [version for version in versions if which == str(version.version) or which in version.aliases]


def _unknown(store: "RunStore", model: str, project: str | None) -> ForetideError:
    projects = store.projects()
    if not projects:
        return ForetideError(
            f"--model: found {model!r}, but no model is registered under {home()}; make one with "
            "'foretide train --data FILE --promote'"
        )
    if project or len(projects) == 1:
        try:
            store.resolve(project or projects[0], model)
        except ForetideError as error:
            return ForetideError(f"--model: {error}")
    return ForetideError(
        f"--model: found {model!r}, which none of the projects {', '.join(projects)} has; expected an "
        "alias, a version, a run or a folder; see 'foretide models list'"
    )


def _matching(found: list[Reference], model: str, read: "Callable[[Reference], Series] | None") -> Reference:
    """The one of several models that fits the data."""
    names = ", ".join(reference.label.rpartition(" version ")[0] for reference in found)
    if read is None:
        raise ForetideError(f"--model {model}: the projects {names} have one; name one with --project")
    fitting, failures = [], []
    for reference in found:
        try:
            if _fits(reference.stored.schema, read(reference)):
                fitting.append(reference)
        except ForetideError as error:
            failures.append(error)
    if len(fitting) == 1:
        return fitting[0]
    if len(failures) == len(found):
        raise failures[0]
    if not fitting:
        raise ForetideError(
            f"--model {model}: none of the projects {names} fits the variates and frequency of the "
            "data; name one with --project to see what differs"
        )
    names = ", ".join(reference.label.rpartition(" version ")[0] for reference in fitting)
    raise ForetideError(f"--model {model}: the projects {names} all fit the data; name one with --project")


def _fits(stored: dict[str, Any], series: "Series") -> bool:
    from datasets.schema import LongSeries, same_frequency

    long = isinstance(series, LongSeries)
    frequency = series.frequency if isinstance(series, LongSeries) else str(series.attrs["frequency"])
    if (stored["form"] == "long") != long or not same_frequency(stored["frequency"], frequency):
        return False
    if isinstance(series, LongSeries):
        return True
    return "variate" in series.dims and set(stored["variates"]) <= {str(v) for v in series["variate"].values}
