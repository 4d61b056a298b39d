"""`--watch`: a save brings the new code; a broken one is said, and the old serves on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .project import APPS, Foreground, Project, until

pytestmark = pytest.mark.e2e

APP = """
import os

def app(environ, start_response):
    body = {version!r}.encode() + os.environ.get("EXTRA", "").encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def code(version: str) -> str:
    return APP.format(version=version)


def serves(project: Project, version: str) -> None:
    until(lambda: project.get("/").text == version, lambda: f"{version!r} is served, not {project.get('/').text!r}")


def generation(project: Project) -> int:
    number: int = project.service("app")["generations"][-1]["number"]
    return number


def begun(project: Project) -> Foreground:
    """In the foreground, watching; version 1 is served."""
    project.write("app.py", code("1"))
    started = project.start("up", "--watch", "--listen", project.address, "--workers", "1")
    started.says(project.url)
    return started


@pytest.fixture
def stack(steered: Project) -> Foreground:
    return begun(steered)


@pytest.fixture(scope="module")
def running() -> Iterator[Project]:
    project = Project(APPS / "steered")
    try:
        begun(project)
        yield project
    finally:
        project.end()


@pytest.fixture
def watched(running: Project) -> Project:
    """One that runs for several tests, which leave the settings as they were; version 1 is served."""
    if running.get("/").text != "1":
        running.write("app.py", code("1"))
        serves(running, "1")
    return running


def test_saved_code_is_served_and_broken_code_is_shown_while_the_old_serves(
    steered: Project, stack: Foreground
) -> None:
    assert "warning: --watch is for development" in stack.err
    assert steered.get("/").text == "1"
    steered.write("app.py", code("2"))
    serves(steered, "2")
    steered.write("app.py", code("3") + "\nraise RuntimeError('not yet')\n")
    stack.says("RuntimeError: not yet")
    stack.says("the old code serves on")
    assert f'File "{steered.directory}/app.py", line ' in stack.out
    assert "discover.py" not in stack.out, "no frame but the project's"
    assert steered.get("/").text == "2"
    assert "not yet" in steered.run("logs", "watch").out
    steered.write("app.py", code("4"))
    serves(steered, "4")
    assert generation(steered) == 3
    assert steered.service("watch")["restarts"] == 0


def test_ending_the_stack_ends_the_watching(steered: Project, stack: Foreground) -> None:
    watcher = psutil.Process(steered.pid("watch"))
    stack.process.send_signal(signal.SIGINT)
    assert stack.wait() == 0
    assert not watcher.is_running()
    assert "Traceback" not in stack.out
    steered.nothing_is_left()


def test_editors_that_rename_are_seen_and_so_are_folders(steered: Project, stack: Foreground) -> None:  # noqa: ARG001
    fresh = steered.write(".app.py.tmp", code("2"))
    fresh.rename(steered.directory / "app.py")
    serves(steered, "2")
    before = generation(steered)
    package = steered.place / "package"
    package.mkdir()
    (package / "__init__.py").write_text("VERSION = '3'\n")
    package.rename(steered.directory / "package")
    until(lambda: generation(steered) > before, "the folder is seen")
    steered.write("templates/mail.txt", "a template")
    until(lambda: generation(steered) > before + 1, "a template in a new folder is seen")


@pytest.mark.xdist_group("watched")
def test_settings_are_taken_up_and_an_env_file_elsewhere_too(watched: Project) -> None:
    elsewhere = watched.place / "secrets"
    elsewhere.write_text("EXTRA=a\n")
    watched.write("stack.toml", f'[app]\nenv_file = "{elsewhere}"\n')
    serves(watched, "1a")
    for text in ("b", "c"):  # the second time, it is another file
        replaced(elsewhere, f"EXTRA={text}\n")
        serves(watched, f"1{text}")
    watched.write("stack.toml", "[app\n")
    until(lambda: "is not TOML" in watched.log(), "it is said")
    assert watched.get("/").text == "1c"
    watched.write("stack.toml", "")
    serves(watched, "1")


@pytest.mark.xdist_group("watched")
def test_app_that_moves_is_watched_where_it_is_then(watched: Project) -> None:
    elsewhere = watched.place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "app.py").write_text(code("2"))
    watched.write("stack.toml", '[app]\ndirectory = "../elsewhere"\n')
    serves(watched, "2")
    replaced(elsewhere / "app.py", code("3"))
    serves(watched, "3")
    watched.write("stack.toml", "")
    serves(watched, "1")


def replaced(path: Path, text: str) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    fresh.rename(path)


@pytest.mark.xdist_group("watched")
def test_save_of_the_same_size_in_the_same_second_is_served(watched: Project) -> None:
    """Python alone would take it for what it has compiled."""
    moment = (watched.directory / "app.py").stat().st_mtime
    for version in ("2", "3"):
        fresh = watched.write(".app.py.tmp", code(version))
        os.utime(fresh, (moment, moment))
        fresh.rename(watched.directory / "app.py")
        serves(watched, version)


def test_watched_app_writes_no_bytecode_that_could_be_taken_for_what_is_saved_next(steered: Project) -> None:
    """A worker that still loads the code of before a save would write it after the save."""
    steered.write("late.py", "from inner import app\n")
    steered.write("inner.py", code("1"))
    steered.write("app.py", "def app(*arguments):\n    import late\n    return late.app(*arguments)\n")
    steered.up("--watch", "--workers", "1")
    assert steered.get("/").text == "1"
    assert not list((steered.directory / "__pycache__").glob("late.*"))


def test_what_is_saved_during_a_reload_leads_to_one_more(steered: Project) -> None:
    go_on = steered.event("go-on")
    waits = f"import os, time\nopen({str(steered.event('ran'))!r}, 'a').write('x')\n"
    waits += f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
    hook = steered.write("hook", waits)
    hook.chmod(0o755)
    steered.write("stack.toml", '[app]\nbefore_reload = "python hook"\n')
    steered.write("app.py", code("1"))
    steered.up("--watch", "--workers", "1")
    steered.write("app.py", code("2"))
    until(steered.event("ran").exists, "a reload is under way")
    for version in range(3, 8):
        steered.write("app.py", code(str(version)))
        steered.write(f"more{version}.py", "")
    go_on.touch()
    until(lambda: "app: generation 3 serves" in steered.log(), "there was one more")
    assert steered.get("/").text == "7"
    steered.write("app.py", code("8"))
    serves(steered, "8")
    assert steered.event("ran").read_text() == "xxx"
    assert generation(steered) == 4


@pytest.mark.xdist_group("watched")
def test_watching_survives_other_reloads_and_is_no_difference(watched: Project) -> None:
    watcher = watched.pid("watch")
    watched.run("reload", "--set", "server.threads=2")
    assert watched.run("diff", "--exit-code").out == ""
    watched.write("app.py", code("2"))
    serves(watched, "2")
    assert watched.pid("watch") == watcher
    assert "FAIL" not in watched.run("health").out


def test_watch_stands_alone_beside_a_running_stack(steered: Project) -> None:
    assert "no stack of" in steered.run("watch", code=1).err
    steered.write("app.py", code("1"))
    steered.up("--workers", "1")
    watching = steered.start("watch")
    watching.says("watches")
    steered.write("app.py", code("2"))
    serves(steered, "2")
    watching.says("generation 2 serves")
    steered.run("down")
    assert watching.wait() == 0
    assert "the stack has ended" in watching.err


def test_watching_alone_ends_with_a_signal_and_the_stack_goes_on(steered: Project) -> None:
    steered.up("--workers", "1")
    watching = steered.start("watch")
    watching.says("watches")
    watching.process.send_signal(signal.SIGINT)
    assert watching.wait() == 130
    assert "Traceback" not in watching.err
    assert steered.get("/").text == "1"
