"""Which stored model a person means: an alias, a version, a run, or a folder."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.home import home
from datasets.errors import ForetideError

if TYPE_CHECKING:
    from forecasting.protocol import Series


@dataclass(frozen=True)
class Reference:
    """A stored model.

    Args:
        folder: Its artifact.
        label: How to name it to a person.
        project: The project it is registered in, or that its artifact names.
    """

    folder: Path
    label: str
    project: str


def find_model(model: str, project: str | None = None, series: "Series | None" = None) -> Reference:
    """The artifact behind a name.

    Args:
        model: ``champion`` or another alias, a version number, a run (or the beginning of its identifier), or a folder.
        project: Whose alias or version; by default the one project whose model fits ``series``.
        series: Data that the model is to forecast.

    Raises:
        ForetideError: Nothing, or more than one thing, has this name.
    """
    from app.runs import RunStore

    folder = Path(model)
    if folder.is_dir() and (folder / "schema.json").exists():
        return Reference(folder, str(folder), _stored_project(folder))
    store = RunStore()
    if re.fullmatch(r"[0-9a-f]{6,64}", model):
        row = store.show(model)
        return Reference(row.artifact, f"run {row.run_id}", row.project)
    chosen = project or _matching_project(store.projects(), model, series)
    version = store.resolve(chosen, model)
    return Reference(version.artifact, f"{chosen} version {version.version}", chosen)


def _matching_project(projects: list[str], model: str, series: "Series | None") -> str:
    if not projects:
        raise ForetideError(f"--model: found {model!r}, but no model is registered under {home()}; train one with 'foretide train', then "
                            "'foretide models register RUN'")
    if series is None:
        if len(projects) == 1:
            return projects[0]
        raise ForetideError(f"--model {model}: there are the projects {', '.join(projects)}; name one with --project")
    fitting = [name for name in projects if _fits(name, model, series)]
    if len(fitting) == 1:
        return fitting[0]
    found = f"{', '.join(fitting)} fit" if fitting else f"no model {model!r} of {', '.join(projects)} fits"
    raise ForetideError(f"--model {model}: {found} the variates and frequency of the data; name the project with --project")


def _fits(project: str, model: str, series: "Series") -> bool:
    import json

    from app.runs import RunStore
    from datasets.schema import LongSeries, same_frequency

    try:
        folder = RunStore().resolve(project, model).artifact
        stored = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    except (ForetideError, OSError, ValueError):
        return False
    long = isinstance(series, LongSeries)
    frequency = series.frequency if isinstance(series, LongSeries) else str(series.attrs["frequency"])
    if (stored["form"] == "long") != long or not same_frequency(stored["frequency"], frequency):
        return False
    return isinstance(series, LongSeries) or set(stored["variates"]) <= {str(v) for v in series["variate"].values}


def _stored_project(folder: Path) -> str:
    from forecasting.artifact import load

    return str(load(folder, weights=False).schema.get("project", "default"))
