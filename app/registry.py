"""The registry: versions of a project's model, their aliases, and who promoted what, and when."""

import difflib
import getpass
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.home import home as home_folder
from app.store import Store
from datasets.errors import ForetideError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
PREVIOUS = "previous"
LATEST = "latest"

_EVENT = "promotion."
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
# What MLflow refuses in a name, or cannot quote in a search; the percent sign makes the escape reversible.
_ESCAPES = {"%": "%25", "/": "%2F", ":": "%3A", "'": "%27", '"': "%22", "`": "%60"}
_VERSIONS = """
    SELECT v.name, v.version, v.creation_time,
        (SELECT json_group_object(t.key, t.value) FROM model_version_tags t
            WHERE t.workspace = v.workspace AND t.name = v.name AND t.version = v.version),
        (SELECT json_group_array(a.alias) FROM registered_model_aliases a
            WHERE a.workspace = v.workspace AND a.name = v.name AND a.version = v.version)
    FROM model_versions v WHERE v.current_stage <> 'Deleted_Internal' AND v.workspace = 'default'
    ORDER BY v.name, v.version"""


@dataclass(frozen=True)
class Version:
    """One registered version of a project's model.

    Args:
        run_id: The run that made it.
        artifact: Absolute path of its folder, as the home stands now.
        aliases: Names that point here, sorted.
        created: When it was registered (UTC).
        model: Name of the model, such as ``itransformer``.
    """

    project: str
    version: int
    run_id: str
    artifact: Path
    aliases: tuple[str, ...]
    created: datetime
    model: str


@dataclass(frozen=True)
class Promotion:
    """One change of a project's champion.

    Args:
        when: UTC.
        version, before: The champion after and before; None if there was none.
        by: Account name of the person.
        action: ``promote`` or ``rollback``.
    """

    when: datetime
    version: int
    before: int | None
    by: str
    action: str


class Registry:
    """Models by project; every project has at most one ``champion``, so that an alias is never ambiguous.

    Args:
        home: Folder of the run store; by default ``FORETIDE_HOME`` or ``.foretide``. It may be moved at any time.
    """

    def __init__(self, home: Path | None = None) -> None:
        self.home = home_folder() if home is None else Path(home).expanduser().absolute()
        self.store = Store(self.home)

    def projects(self) -> list[str]:
        """Names of the projects that have a registered version."""
        return sorted({version.project for version in self._all_versions()})

    def versions(self, project: str) -> list[Version]:
        """The versions of a project, oldest first; empty where nothing was registered."""
        return [version for version in self._all_versions() if version.project == project]

    def resolve(self, project: str, which: str | int = CHAMPION) -> Version:
        """The version that a number or an alias names.

        Args:
            which: ``champion``, another alias, a version number, or ``latest``.

        Raises:
            ForetideError: The project or the version is not there; says which ones are.
        """
        versions = self.versions(project)
        if not versions:
            raise ForetideError(f"project {project!r}: has no registered model; {_instead(project, self.projects())}")
        if which == LATEST:
            return versions[-1]
        for version in versions:
            if str(which) == str(version.version) or which in version.aliases:
                return version
        known = ", ".join(" = ".join([str(version.version), *version.aliases]) for version in versions)
        raise ForetideError(
            f"project {project!r}: has no version or alias {which!r}; found {known}; "
            "see: foretide models promote --help"
        )

    def promote(self, project: str, version: int, *, action: str = "promote") -> None:
        """Makes a version the champion; the champion before it becomes ``previous``. The change is recorded.

        Raises:
            ForetideError: There is no such version.
        """
        self.resolve(project, version)
        with self.store.writing() as client:
            before = self._champion(project)
            if before == version:
                return
            name = escape(project)
            if before is not None:
                client.set_registered_model_alias(name, PREVIOUS, str(before))
            client.set_registered_model_alias(name, CHAMPION, str(version))
            now = datetime.now(UTC)
            event = {"version": version, "before": before, "by": _account(), "action": action}
            client.set_registered_model_tag(name, f"{_EVENT}{now:%Y%m%dT%H%M%S.%f}", json.dumps(event))

    def rollback(self, project: str) -> Version:
        """Makes ``previous`` the champion again, and the champion ``previous``; twice is as if nothing had happened.

        Raises:
            ForetideError: There is nothing to go back to.
        """
        versions = self.versions(project)
        target = next((version for version in versions if PREVIOUS in version.aliases), None)
        if target is None or CHAMPION in target.aliases:
            raise ForetideError(
                f"project {project!r}: has no previous champion to go back to; promote a version by its number"
            )
        self.promote(project, target.version, action="rollback")
        return self.resolve(project)

    def history(self, project: str) -> list[Promotion]:
        """Every change of the champion, oldest first."""
        events = sorted((key, value) for key, value in self._model_tags(project).items() if key.startswith(_EVENT))
        return [
            Promotion(
                when=datetime.strptime(key.removeprefix(_EVENT), "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC),
                **json.loads(value),
            )
            for key, value in events
        ]

    def set_alias(self, project: str, alias: str, version: int) -> None:
        """Points an alias of one's own at a version.

        Raises:
            ForetideError: The alias is kept by Foretide or malformed, or there is no such version.
        """
        if alias in (CHAMPION, PREVIOUS):
            raise ForetideError(
                f"alias {alias!r}: is set by promotion and rollback alone, so that its history is "
                "complete; see: foretide models promote --help"
            )
        if not _ALIAS.fullmatch(alias) or alias.lower() == LATEST or re.fullmatch(r"[vV]\d+", alias):
            raise ForetideError(
                f"alias {alias!r}: expected a letter, then up to 63 letters, digits, '-' or '_'; "
                f"{LATEST!r} and names like 'v3' are taken"
            )
        self.resolve(project, version)
        with self.store.writing() as client:
            client.set_registered_model_alias(escape(project), alias, str(version))

    def delete_version(self, project: str, version: int) -> None:
        """Takes a version out of the registry; its run and artifact stay.

        Raises:
            ForetideError: It is the champion, or there is no such version.
        """
        found = self.resolve(project, version)
        if CHAMPION in found.aliases:
            raise ForetideError(f"project {project!r}: version {version} is the champion; promote another one first")
        with self.store.writing() as client:
            client.delete_model_version(escape(project), str(found.version))

    def _champion(self, project: str) -> int | None:
        return next((version.version for version in self.versions(project) if CHAMPION in version.aliases), None)

    def _all_versions(self) -> list[Version]:
        if self.store.is_empty:
            return []
        found = self._read_file() if self.store.database else self._read_client()
        # A shared server may hold models of other applications.
        return [self._version(*row) for row in found if "artifact" in row[3]]

    def _read_file(self) -> list[tuple[str, int, int, dict[str, str], list[str]]]:
        return [
            (name, version, created, json.loads(tags), json.loads(aliases))
            for name, version, created, tags, aliases in self.store.query(_VERSIONS)
        ]

    def _read_client(self) -> list[tuple[str, int, int, dict[str, str], list[str]]]:
        with self.store.reading() as client:
            rows = []
            for model in _pages(client.search_registered_models):
                aliases = {alias: int(version) for alias, version in model.aliases.items()}
                for found in _pages(client.search_model_versions, filter_string=f"name = '{model.name}'"):
                    number = int(found.version)
                    rows.append(
                        (
                            model.name,
                            number,
                            found.creation_timestamp,
                            dict(found.tags),
                            [alias for alias, version in aliases.items() if version == number],
                        )
                    )
        return sorted(rows, key=lambda row: row[:2])

    def _version(self, name: str, version: int, created: int, tags: dict[str, str], aliases: list[str]) -> Version:
        return Version(
            project=unescape(name),
            version=version,
            run_id=tags["run_id"],
            artifact=self.home / tags["artifact"],
            aliases=tuple(sorted(aliases)),
            created=datetime.fromtimestamp(created / 1000, UTC),
            model=tags.get("model", ""),
        )

    def _model_tags(self, project: str) -> dict[str, str]:
        if self.store.is_empty:
            return {}
        if self.store.database:
            statement = "SELECT key, value FROM registered_model_tags WHERE name = ? AND workspace = 'default'"
            return dict(self.store.query(statement, (escape(project),)))
        with self.store.reading() as client:
            return next(
                (
                    dict(model.tags)
                    for model in _pages(client.search_registered_models)
                    if model.name == escape(project)
                ),
                {},
            )


def add_version(client: "MlflowClient", project: str, internal_id: str, tags: dict[str, str]) -> int:
    """Registers a run under its project, and returns the number of the version."""
    from mlflow.exceptions import MlflowException

    name = escape(project)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # MLflow wants a source. This form names no folder, passes its checks, and survives a move; the tag holds the path.
    made = client.create_model_version(
        name, source=f"runs:/{internal_id}/artifact", run_id=internal_id, tags=tags, await_creation_for=0
    )
    return int(made.version)


def escape(project: str) -> str:
    """A project's name as MLflow accepts it for a model."""
    return "".join(_ESCAPES.get(character, character) for character in project)


def unescape(name: str) -> str:
    """The inverse of ``escape``."""
    return re.sub("|".join(_ESCAPES.values()), lambda found: chr(int(found[0][1:], 16)), name)


def check_project(project: str) -> None:
    """Refuses a name that could not be typed, printed or stored."""
    if project != project.strip() or not project.isprintable() or len(project) > 80 or not project.strip("."):
        raise ForetideError(
            f"project {project!r}: expected a name of 1 to 80 printable characters, without spaces at its ends"
        )


def _instead(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"found {', '.join(map(repr, known[:10]))}" if known else "train one with: foretide train"


def _pages(search: Any, **arguments: Any) -> list[Any]:
    found, token = [], None
    while True:
        page = search(max_results=200, page_token=token, **arguments)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
