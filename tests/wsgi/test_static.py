from __future__ import annotations

import os
import re
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stack.wsgi.response import FileWrapper
from stack.wsgi.static import TYPES, Static

from .conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DATA = b"0123456789"
MODIFIED = 0x6553F100  # seconds
DATE = formatdate(MODIFIED, usegmt=True)
TAG = '"6553f100-a"'
APP = (b"the app's",)


def app(_: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return APP


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with files, and a secret beside it."""
    (tmp_path / "secret").write_bytes(b"secret")
    directory = tmp_path / "static"
    (directory / "sub").mkdir(parents=True)
    for name in ("a.css", "sub/b.JS", "c d.bin", ".txt", "back\\slash.txt", "ä.png", "f.tar.gz", "..."):
        (directory / name).write_bytes(DATA)
        os.utime(directory / name, ns=(MODIFIED * 10**9, MODIFIED * 10**9 + 999_999_999))
    (directory / "empty").touch()
    (directory / "link").symlink_to(tmp_path / "secret")
    (directory / "loop").symlink_to("loop")
    os.mkfifo(directory / "fifo")
    return directory


def ask(
    static: Static, path: str, method: str = "GET", script: str = "", **headers: str
) -> tuple[int, dict[str, str], bytes | None]:
    """Status, headers and body of the answer; None if it is the app's."""
    told: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": script,
        "PATH_INFO": path.encode().decode("latin-1"),
        "wsgi.file_wrapper": FileWrapper,
        **{f"HTTP_{name}": value for name, value in headers.items()},
    }
    result = static(environ, lambda *each: told.append(each))
    if result is APP:
        return 200, {}, None
    found = dict(told[0][1])
    if isinstance(result, FileWrapper):
        region = result.region()
        assert region is not None, "it is a plain file, for sendfile"
        data = os.pread(region[0], int(found["Content-Length"]), region[1])
        result.close()
    else:
        data = b"".join(result)
    assert len(told) == 1
    return int(told[0][0][:3]), found, data


@pytest.fixture
def static(files: Path) -> Static:
    return Static(app, [("/static", str(files))])


def test_file_comes_with_type_length_and_validators(static: Static) -> None:
    assert ask(static, "/static/a.css") == (
        200,
        {
            "Last-Modified": DATE,
            "ETag": TAG,
            "Content-Type": "text/css",
            "Accept-Ranges": "bytes",
            "Content-Length": "10",
        },
        DATA,
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sub/b.JS", "text/javascript"),
        ("sub//b.JS", "text/javascript"),
        ("c d.bin", "application/octet-stream"),
        (".txt", "application/octet-stream"),
        ("...", "application/octet-stream"),
        ("back\\slash.txt", "text/plain"),
        ("ä.png", "image/png"),
        ("f.tar.gz", "application/gzip"),
    ],
)
def test_type_is_by_the_extension(static: Static, name: str, kind: str) -> None:
    status, headers, data = ask(static, f"/static/{name}")
    assert (status, headers["Content-Type"], data) == (200, kind, DATA)


def test_types_are_the_web_servers() -> None:
    text = (ROOT / "templates" / "nginx" / "types.conf.j2").read_text()
    lines = re.findall(r"^\s+(\S+/\S+)\s+([^;]+);", text, re.MULTILINE)
    assert {extension: kind for kind, names in lines for extension in names.split()} == TYPES


def test_symbolic_link_is_followed(static: Static) -> None:
    assert ask(static, "/static/link")[2] == b"secret"


@pytest.mark.parametrize("path", ["/", "/static", "/statics/a.css", "/other/static/a.css", "//static/a.css", ""])
def test_all_else_is_the_apps(static: Static, path: str) -> None:
    assert ask(static, path, "POST")[2] is None


@pytest.mark.parametrize(
    "name",
    [
        *("", "missing", "sub", "sub/", "a.css/", "a.css/b", "fifo", "loop", "x" * 300, "x/" * 3000),
        *("../secret", "sub/../../secret", "sub/../a.css", "./a.css", "..", "sub/..", "/../secret"),
        *("a.css\0", "a.css\0.png", "\0", "..\\secret", "%2e%2e/secret"),
    ],
)
def test_what_is_no_file_below_the_directory_is_404_and_not_the_apps(static: Static, name: str) -> None:
    status, headers, data = ask(static, f"/static/{name}")
    assert (status, data) == (404, b"Not Found\n")
    assert headers["Content-Length"] == "10"


def test_absolute_name_stays_below_the_directory(static: Static, files: Path) -> None:
    assert ask(static, f"/static/{files.parent}/secret")[0] == 404


def test_unreadable_file_is_403(static: Static, files: Path) -> None:
    (files / "a.css").chmod(0)
    user = os.geteuid()
    if user == 0:  # who reads everything
        os.seteuid(65534)
    try:
        assert ask(static, "/static/a.css")[0] == 403
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("name", ["a.css", "missing"])
def test_other_methods_are_405(static: Static, name: str) -> None:
    status, headers, _ = ask(static, f"/static/{name}", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_longest_url_wins_and_a_missing_file_is_not_looked_for_further(files: Path) -> None:
    static = Static(app, [("/a", str(files)), ("/a/sub/deep", str(files / "sub")), ("/ä", str(files))])
    assert ask(static, "/a/sub/b.JS")[2] == DATA
    assert ask(static, "/a/sub/deep/b.JS")[2] == DATA
    assert ask(static, "/a/sub/deep/a.css")[0] == 404
    assert ask(static, "/ä/a.css")[0] == 200


def test_mounted_app_has_its_prefix_before_the_path(files: Path) -> None:
    static = Static(app, [("/shop/static", str(files))])
    assert ask(static, "/static/a.css", script="/shop")[2] == DATA
    assert ask(static, "/static/a.css")[2] is None


PAST, FUTURE = formatdate(MODIFIED - 1, usegmt=True), formatdate(MODIFIED + 1, usegmt=True)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"IF_NONE_MATCH": TAG}, 304),
        ({"IF_NONE_MATCH": f"W/{TAG}"}, 304),
        ({"IF_NONE_MATCH": f'"x, y", {TAG}'}, 304),
        ({"IF_NONE_MATCH": "*"}, 304),
        ({"IF_NONE_MATCH": '"x"'}, 200),
        ({"IF_NONE_MATCH": "nonsense"}, 200),
        ({"IF_NONE_MATCH": '"x"', "IF_MODIFIED_SINCE": DATE}, 200),
        ({"IF_MODIFIED_SINCE": DATE}, 304),
        ({"IF_MODIFIED_SINCE": FUTURE}, 304),
        ({"IF_MODIFIED_SINCE": PAST}, 200),
        ({"IF_MODIFIED_SINCE": ""}, 200),
        ({"IF_MODIFIED_SINCE": "yesterday"}, 200),
        ({"IF_MODIFIED_SINCE": "Tue, 99 Foo 99999999999999999999 99:99:99 GMT"}, 200),
        ({"IF_MATCH": TAG}, 200),
        ({"IF_MATCH": "*"}, 200),
        ({"IF_MATCH": f"W/{TAG}"}, 412),
        ({"IF_MATCH": '"x"', "IF_NONE_MATCH": TAG}, 412),
        ({"IF_UNMODIFIED_SINCE": PAST}, 412),
        ({"IF_UNMODIFIED_SINCE": DATE}, 200),
        ({"IF_UNMODIFIED_SINCE": PAST, "IF_MATCH": TAG}, 200),
    ],
)
def test_conditions(static: Static, method: str, headers: dict[str, str], status: int) -> None:
    found = ask(static, "/static/a.css", method, **headers)
    assert found[0] == status
    if status == 304:
        assert found[1:] == ({"Last-Modified": DATE, "ETag": TAG}, b"")


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=2-4", 2, 4),
        ("Bytes= 2-4 ", 2, 4),
        ("bytes=7-", 7, 9),
        ("bytes=7-99", 7, 9),
        ("bytes=-3", 7, 9),
        ("bytes=-99", 0, 9),
    ],
)
def test_one_part(static: Static, wanted: str, first: int, last: int) -> None:
    status, headers, data = ask(static, "/static/a.css", RANGE=wanted)
    assert (status, data) == (206, DATA[first : last + 1])
    assert headers["Content-Range"] == f"bytes {first}-{last}/10"
    assert headers["Content-Length"] == str(last - first + 1)


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_part_that_is_not_there_is_416(static: Static, wanted: str) -> None:
    status, headers, _ = ask(static, "/static/a.css", RANGE=wanted)
    assert (status, headers["Content-Range"]) == (416, "bytes */10")


@pytest.mark.parametrize(
    "wanted", ["bytes=-", "bytes=4-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "", "bytes=\u0661-"]
)
def test_range_that_is_not_understood_is_ignored(static: Static, wanted: str) -> None:
    assert ask(static, "/static/a.css", RANGE=wanted)[::2] == (200, DATA)


def test_range_is_ignored_for_head_and_for_another_version(static: Static) -> None:
    assert ask(static, "/static/a.css", "HEAD", RANGE="bytes=0-1")[0] == 200
    assert ask(static, "/static/a.css", RANGE="bytes=0-1", IF_RANGE='"x"')[0] == 200
    assert ask(static, "/static/a.css", RANGE="bytes=0-1", IF_RANGE=f"W/{TAG}")[0] == 200
    assert ask(static, "/static/a.css", RANGE="bytes=0-1", IF_RANGE=PAST)[0] == 200
    assert ask(static, "/static/a.css", RANGE="bytes=0-1", IF_RANGE=TAG)[0] == 206
    assert ask(static, "/static/a.css", RANGE="bytes=0-1", IF_RANGE=DATE)[0] == 206


def test_empty_file(static: Static) -> None:
    assert ask(static, "/static/empty")[::2] == (200, b"")
    assert ask(static, "/static/empty", RANGE="bytes=-5")[::2] == (200, b"")
    assert ask(static, "/static/empty", RANGE="bytes=0-")[0] == 416


def test_no_descriptor_is_left_open(static: Static) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("a.css", "missing", "sub", "fifo", "..", "loop"):
        ask(static, f"/static/{name}")
        ask(static, f"/static/{name}", IF_NONE_MATCH="*")
        ask(static, f"/static/{name}", IF_MATCH='"x"')
        ask(static, f"/static/{name}", RANGE="bytes=99-")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
