from __future__ import annotations

from pathlib import Path

import pytest

from stack.wsgi.arguments import settings

BASE = ["shop:app", "--bind", "127.0.0.1:80"]


def test_nothing_is_served_or_limited_unless_asked_for() -> None:
    found = settings(BASE)
    assert (found.static, found.max_body, found.socket_mode) == ((), 0, 0o600)


def test_folders_are_absolute_and_their_urls_without_a_last_slash() -> None:
    found = settings([*BASE, "--static", "/static/=shop/static", "--static", "/a/b=/x=y"])
    assert found.static == (("/static", str(Path.cwd() / "shop/static")), ("/a/b", "/x=y"))


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1048576", 1 << 20), ("500m", 500 << 20), ("2G", 2 << 30)])
def test_memory_is_in_bytes_or_larger_units(text: str, size: int) -> None:
    assert settings([*BASE, "--max-memory", text]).max_memory == size


def test_preloading_anyway_is_preloading() -> None:
    assert settings([*BASE, "--preload-anyway"]).preload
    assert not settings(BASE).preload


@pytest.mark.parametrize(("text", "mode"), [("600", 0o600), ("0660", 0o660), ("770", 0o770), ("620", 0o620)])
def test_socket_mode_is_octal(text: str, mode: int) -> None:
    assert settings([*BASE, "--socket-mode", text]).socket_mode == mode


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["--socket-mode", mode]
            for mode in ("777", "666", "662", "601", "604", "060", "400", "2660", "8", "", "u+w")
        ),
        *(["--max-body", size] for size in ("-1", "1m", "")),
        *(["--max-head", size] for size in ("0", "1023", "1048577", "64k", "")),
        *(["--head-within", seconds] for seconds in ("0", "-1", "nan", "")),
        *(["--max-memory", size] for size in ("-1", "1t", "", "m", "1.5g")),
        *(["--max-requests", number] for number in ("-1", "x", "")),
        *(["--workers", number] for number in ("0", "-1", "1.5", "")),
        *(["--timeout", seconds] for seconds in ("-1", "nan", "inf", "1s", "")),
        ["--access-format", "apache"],
        *(["--static", text] for text in ("", "/static", "/static=", "static=x", "=x", "/=x", "//=x", "/a//b=x")),
        *(["--static", text] for text in ("/../a=x", "/a/.=x")),
        *(["--forwarded-from", text] for text in ("", "localhost", "10.0.0.1/8", "10.0.0.0/33", "*")),
    ],
)
def test_nonsense_is_refused_by_name(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        settings([*BASE, *arguments])
    assert end.value.code == 2
    assert f"argument {arguments[0]}: " in capsys.readouterr().err
