"""Reads a project's settings into a `Config`. Later layers cover earlier: default < file < environment < flag."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stack.config.complaints import did_you_mean, explained
from stack.config.document import AUTO, App, Config, Document, Site
from stack.config.layers import FILE, Override, lay_over, merge, read
from stack.errors import ConfigError

__all__ = ["Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config and where its values come from."""

    config: Config
    file: Path | None
    origins: Mapping[str, str]
    overrides: tuple[Override, ...]

    def origin(self, *keys: str) -> str:
        """What decided the first of these dotted keys that anything decided; `default` if nothing did.

        A table is decided by what decided the first thing in it.
        """
        found = (where for key in keys for name, where in self.origins.items() if f"{name}.".startswith(f"{key}."))
        return next(found, "default")


def load(project: Path, overrides: Sequence[Override] = ()) -> Loaded:
    """The settings of the project in this directory, with `overrides` over the file's, the later over the earlier.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a setting is wrong; it names file and key.
    """
    file, table = read(project)
    origins: dict[str, str] = {}
    merged: dict[str, Any] = {}
    merge(merged, table, origins, str(file.name if file else ""))
    for override in overrides:
        lay_over(merged, override, origins)
    try:
        document = Document.model_validate(merged)
    except ValidationError as error:
        raise explained(error, file, origins) from None
    _refuse_both(merged, "app", "apps", origins)
    _refuse_both(merged, "site", "sites", origins)
    return Loaded(_resolved(project, document), file, origins, tuple(overrides))


def _refuse_both(merged: dict[str, Any], short: str, long: str, origins: Mapping[str, str]) -> None:
    if merged.get(short) and merged.get(long):
        origin = next((each for key, each in origins.items() if key.startswith(short + ".")), FILE)
        raise ConfigError(
            f"{origin}: [{short}] is the short form for a single one, and there is [{long}.*] too",
            f"Name it: [{long}.NAME].",
        )


def _resolved(project: Path, document: Document) -> Config:
    project = project.absolute()
    apps = document.apps or {"app": document.app or App()}
    sites = document.sites or {"site": document.site or Site()}
    stack = document.stack
    if stack.name == AUTO:
        slug = re.sub(r"[^a-z0-9_-]+", "-", project.name.lower()).strip("-_")[:32].strip("-_")
        stack = stack.model_copy(update={"name": slug or "stack"})
    for name, site in sites.items():
        _check_app_of(name, site, apps)
    for number, smoke in enumerate(document.smoke):
        if smoke.site not in (AUTO, *sites):
            raise ConfigError(
                f"smoke[{number}].site = {smoke.site!r}: there is no such site",
                did_you_mean(smoke.site, sites) or f"There is: {', '.join(sites)}.",
            )
    complete = {
        name: app.model_copy(update={"server": document.server.model_copy(update=_given(app.server))})
        for name, app in apps.items()
    }
    return Config(
        project=str(project),
        stack=stack,
        logs=document.logs,
        programs=document.programs,
        apps=complete,
        sites=sites,
        smoke=document.smoke,
    )


def _check_app_of(name: str, site: Site, apps: Mapping[str, App]) -> None:
    if site.app == AUTO and len(apps) > 1:
        raise ConfigError(f"[sites.{name}] must say which app answers", f"app = one of: {', '.join(apps)}")
    if site.app not in (AUTO, *apps):
        raise ConfigError(
            f"[sites.{name}] app = {site.app!r}: there is no such app",
            did_you_mean(site.app, apps) or f"There is: {', '.join(apps)}.",
        )


def _given(table: BaseModel) -> dict[str, Any]:
    """The fields that were set, not those that have their default."""
    return {name: getattr(table, name) for name in table.model_fields_set}
