"""Which folders a site serves by itself, and a file in each public one to try it with."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from stack.config import AUTO, Config, Site
from stack.facts.access import Identity, hindrance
from stack.facts.app import AppFacts

__all__ = ["Static", "find_statics"]

MOST_LOOKED_AT = 200  # files, for a sample
MOST_BYTES = 2**20  # of a sample: it is fetched whole


@dataclass(frozen=True, slots=True)
class Static:
    """A URL path and the folder behind it.

    `sample` is the URL path of a file in it, quoted; "" if there is none. `hindrance` is what keeps the web server from
    it, in words; "" if nothing does. A `private` one is served where the app tells the web server so; no sample.
    """

    url: str
    folder: str
    exists: bool
    sample: str
    hindrance: str = ""
    private: bool = False


def find_statics(config: Config, apps: Mapping[str, AppFacts], reader: Identity) -> dict[str, tuple[Static, ...]]:
    """By the site's name: what the config says, or the app's own static folder; `reader` is the web server's user."""
    return {
        name: (
            *(_looked_at(*each, reader) for each in _folders(config, site, apps[config.app_of(site)]).items()),
            *(_private(url, config.path(folder), reader) for url, folder in site.private.items()),
        )
        for name, site in config.sites.items()
    }


def _folders(config: Config, site: Site, app: AppFacts) -> dict[str, str]:
    if site.static == AUTO:
        return {app.static_url: app.static_folder} if app.static_url else {}
    return {url: os.path.normpath(Path(config.project, folder)) for url, folder in site.static.items()}


def _private(url: str, path: Path, reader: Identity) -> Static:
    folder, exists = os.path.normpath(path), path.is_dir()
    return Static(url, folder, exists, "", hindrance(folder, reader) if exists else "", private=True)


def _looked_at(url: str, folder: str, reader: Identity) -> Static:
    sample = next((each for each in itertools.islice(_files(folder), MOST_LOOKED_AT) if _is_plain(folder, each)), "")
    exists = Path(folder).is_dir()
    return Static(
        url,
        folder,
        exists,
        sample=f"{url.rstrip('/')}/{quote(os.fsencode(sample))}" if sample else "",
        hindrance=hindrance(str(Path(folder, sample)), reader) if exists else "",
    )


def _files(folder: str) -> Iterator[str]:
    """Paths of files relative to the folder, those nearest to it first; hidden ones, which may be denied, left out."""
    for directory, directories, files in os.walk(folder):
        directories[:] = sorted(each for each in directories if not each.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(directory, name), folder)  # noqa: PTH118 - text, as os.walk gives it


def _is_plain(folder: str, name: str) -> bool:
    try:
        found = Path(folder, name).stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES
