"""Each rule: where it fires, and where it does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from stack.appservers import PEERS, bundled
from stack.config import Config
from stack.errors import ConfigError, MissingProgramError
from stack.facts import Facts, Nginx, ServerProgram, Static
from stack.plan import plan
from stack.rules import RULES, Problem, check, problems

from .made import NGINX, broken, config, facts

MODULES = NGINX.modules
TWO_APPS = "[apps.a]\n[apps.b]\n[site]\napp = 'a'\n"
TWO_SITES = "[sites.a]\n{}\n[sites.b]\n{}\n"


def one(found: list[Problem], rule: str) -> Problem:
    assert [each.rule for each in found] == [rule]
    assert found[0].hint
    return found[0]


def test_nothing_is_wrong_where_all_is_well(tmp_path: Path) -> None:
    assert broken(config(tmp_path)) == []


def test_nginx_is_here(tmp_path: Path) -> None:
    found = one(broken(config(tmp_path), nginx=None, nginx_looked=("PATH", "/usr/sbin")), "nginx-is-here")
    assert found.kind is MissingProgramError
    assert "PATH, /usr/sbin" in found.message


def test_nginx_is_new_enough(tmp_path: Path) -> None:
    found = config(tmp_path)
    old = one(broken(found, nginx=Nginx("/x", (1, 17, 10), MODULES)), "nginx-is-new-enough")
    assert old.message == "/x is nginx 1.17.10; stackctl needs 1.18 or newer"
    assert broken(found, nginx=Nginx("/x", (1, 18, 0), MODULES)) == []


def test_web_server_speaks_the_protocol(tmp_path: Path) -> None:
    found = config(tmp_path)
    made = plan(found, facts(found))
    (app, nginx) = made.services
    assert app.probe is not None
    odd = dataclasses.replace(app, probe=dataclasses.replace(app.probe, protocol="ajp"))
    problem = one(
        list(problems(found, facts(found), dataclasses.replace(made, services=(odd, nginx)))),
        "web-server-speaks-the-protocol",
    )
    assert "nginx does not forward requests in ajp" in problem.message


def test_nginx_has_the_module(tmp_path: Path) -> None:
    modules = {"http": "proxy", "uwsgi": "uwsgi", "fastcgi": "fastcgi", "scgi": "scgi"}
    for protocol, module in modules.items():
        found = config(tmp_path, f"[server]\nprotocol = '{protocol}'\n")
        only = Nginx("/x", (1, 22, 1), (f"http_{module}_module",))
        assert broken(found, nginx=only) == []
        others = tuple(each for each in MODULES if each not in only.modules)
        problem = one(broken(found, nginx=dataclasses.replace(only, modules=others)), "nginx-has-the-module")
        assert f"was built without its {protocol} module, http_{module}_module" in problem.message
        assert protocol not in problem.hint.partition(":")[0].split()


@pytest.mark.parametrize(
    ("web", "stop_within", "fires"),
    [("nginx", 30, True), ("nginx", 35, True), ("nginx", 35.5, False), ("none", 31, True), ("none", 31.5, False)],
)
def test_stopping_outlasts_requests(tmp_path: Path, web: str, stop_within: float, *, fires: bool) -> None:
    text = f"[server]\ntimeout = 30\nstop_within = {stop_within}\n[site]\nweb = '{web}'\n"
    found = [each for each in broken(config(tmp_path, text)) if each.kind]
    assert [each.rule for each in found] == (["stopping-outlasts-requests"] if fires else [])
    assert all(f"stop_within = {stop_within} is not more than timeout = 30" in each.message for each in found)


@pytest.mark.parametrize(("protocol", "most"), [("uwsgi", 11), ("http", 14), ("fastcgi", 11), ("scgi", 11)])
def test_heads_fit_the_hop(tmp_path: Path, protocol: str, most: int) -> None:
    text = f"[server]\nprotocol = '{protocol}'\n[stack]\nmax_header = '{{}}k'\n"
    assert broken(config(tmp_path, text.format(most))) == []
    found = one(broken(config(tmp_path, text.format(most + 1))), "heads-fit-the-hop")
    assert "[stack] max_header" in found.message
    assert f"[server] protocol = {protocol}" in found.message
    assert found.hint == f'Set max_header to "{most}k" or less.'


def test_app_decides_on_bodies(tmp_path: Path) -> None:
    found = config(tmp_path, "[site]\nmax_body = 1000\n")
    takes = {name: dataclasses.replace(app, max_content_length=1001) for name, app in facts(found).apps.items()}
    problem = one(broken(found, apps=takes), "app-decides-on-bodies")
    assert "max_body = 1000 is less than the app's own MAX_CONTENT_LENGTH = 1001" in problem.message
    assert broken(config(tmp_path, "[site]\nmax_body = 1001\n"), apps=takes) == []
    assert broken(config(tmp_path), apps=takes) == []


def test_backlog_is_real(tmp_path: Path) -> None:
    found = config(tmp_path, "[server]\nbacklog = 1024\n")
    problem = one(broken(found, somaxconn=1023), "backlog-is-real")
    assert "[server] backlog = 1024" in problem.message
    assert "net.core.somaxconn" in problem.message
    assert broken(found, somaxconn=1024) == []
    assert broken(config(tmp_path), somaxconn=1) == []


@pytest.mark.parametrize("wanted", ["true", '"anyway"'])
def test_preloading_is_looked_after(tmp_path: Path, wanted: str) -> None:
    assert broken(config(tmp_path, f"[server]\npreload = {wanted}\n")) == []
    server = ServerProgram("/x/gunicorn", "23.0")
    text = f"[apps.a.server]\nengine = 'gunicorn'\n[apps.b]\n[site]\napp = 'a'\n[server]\npreload = {wanted}\n"
    problem = one(broken(config(tmp_path, text), servers={"a": server, "b": None}), "preloading-is-looked-after")
    assert "[server] preload: the app server gunicorn forks without a look" in problem.message
    assert "Use engine = 'bundled'" in problem.hint


@pytest.mark.parametrize("engine", PEERS)
def test_peer_that_is_told_to_preload_is_refused_as_any_other(tmp_path: Path, engine: str) -> None:
    found = config(tmp_path, f"[server]\nengine = '{engine}'\npreload = true\n")
    rules = {each.rule for each in broken(found, servers={"app": ServerProgram(f"/x/{engine}", "2.8")})}
    assert rules == {"app-server-may-be-chosen", "preloading-is-looked-after"}


def test_static_folders_exist(tmp_path: Path) -> None:
    gone = Static("/static", "/srv/gone", exists=False, sample="")
    found = one(broken(config(tmp_path), statics={"site": (gone,)}), "static-folders-exist")
    assert "/static is /srv/gone, which is not a directory" in found.message


def test_folders_are_public_or_private(tmp_path: Path) -> None:
    public = Static("/static", "/srv/files", exists=True, sample="")
    for url, folder in (("/private", "/srv/files"), ("/static/", "/srv/others")):
        private = Static(url, folder, exists=True, sample="", private=True)
        found = one(broken(config(tmp_path), statics={"site": (public, private)}), "folders-are-public-or-private")
        assert f"private: {url} is {folder}, and [site] static has /static" in found.message
    apart = Static("/private", "/srv/private", exists=True, sample="", private=True)
    assert broken(config(tmp_path), statics={"site": (public, apart)}) == []
    gone = Static("/private", "/srv/gone", exists=False, sample="", private=True)
    assert (
        "[site] private: /private"
        in one(broken(config(tmp_path), statics={"site": (gone,)}), "static-folders-exist").message
    )


def test_sockets_have_short_paths(tmp_path: Path) -> None:
    found = config(tmp_path)
    room = 107 - len("/sockets/app.g1000000.sock")
    assert broken(found, runtime_dir="/" + "r" * (room - 1)) == []
    one(broken(found, runtime_dir="/" + "r" * room), "sockets-have-short-paths")
    one(broken(found, runtime_dir="/" + "é" * (room // 2 + 1)), "sockets-have-short-paths")


def as_user(found: Config, *users: str) -> dict[str, Any]:
    """The machine of a root that starts these apps as these users."""
    apps = facts(found).apps
    named = {name: dataclasses.replace(app, user=user) for (name, app), user in zip(apps.items(), users, strict=True)}
    return {"is_root": True, "user": "root", "apps": named}


def test_root_lends_no_hand_or_a_warning(tmp_path: Path) -> None:
    found = config(tmp_path)
    assert one(broken(found, **as_user(found, "")), "root-lends-no-hand").kind is None
    assert broken(found, **as_user(found, "shop")) == []


@pytest.mark.parametrize(
    ("name", "owner"),
    [("nginx", "the web server"), ("stack", "the supervisor"), ("access", "the access log"), ("auto", "the word")],
)
def test_an_app_cannot_have_the_name_of_something_else(tmp_path: Path, name: str, owner: str) -> None:
    found = one(broken(config(tmp_path, f"[apps.{name}]\n")), "apps-have-names-of-their-own")
    assert found.message.startswith(f"[apps.{name}]: the name is taken by {owner}")


def test_two_apps_cannot_be_one_upstream(tmp_path: Path) -> None:
    text = "[apps.{}]\n[apps.{}]\n[site]\napp = 'a-b'\n"
    assert (
        "[apps.a-b]" in one(broken(config(tmp_path, text.format("a-b", "a_b"))), "apps-have-names-of-their-own").message
    )
    assert broken(config(tmp_path, text.format("a-b", "a-c"))) == []


@pytest.mark.parametrize(
    ("one_site", "other", "fires"),
    [
        ("", "", True),
        ("listen = ['80', '81']", "listen = ['81', '82']", True),
        ("listen = '80'", "listen = '81'", False),
        ("server_names = ['a.org', 'b.org']", "server_names = ['B.org']", True),
        ("server_names = ['a.org']", "server_names = ['b.org']", False),
        ("server_names = ['a.org']", "", False),
        ("server_names = ['_']", "", True),
    ],
)
def test_sites_are_told_apart(tmp_path: Path, one_site: str, other: str, *, fires: bool) -> None:
    found = broken(config(tmp_path, TWO_SITES.format(one_site, other)))
    assert [each.rule for each in found] == (["sites-are-told-apart"] if fires else [])


def test_apps_share_a_user(tmp_path: Path) -> None:
    found = config(tmp_path, TWO_APPS)
    problem = one(broken(found, **as_user(found, "ana", "")), "apps-share-a-user")
    assert "not as ana and root" in problem.message
    assert broken(found, **as_user(found, "ana", "ana")) == []


def test_check_raises_the_first_error_and_tells_the_others(tmp_path: Path) -> None:
    found = config(tmp_path, "[server]\nstop_within = 1\n[site]\nlisten = 80\n")
    machine: Facts = facts(found, nginx=None, is_root=True)
    with pytest.raises(MissingProgramError) as caught:
        check(found, machine, plan(found, machine))
    assert caught.value.detail.startswith("also: [server] stop_within")
    assert "as root" not in caught.value.detail


def test_check_returns_the_warnings(tmp_path: Path) -> None:
    found = config(tmp_path)
    machine = facts(found, is_root=True)
    assert [each.rule for each in check(found, machine, plan(found, machine))] == ["root-lends-no-hand"]


def test_an_error_has_the_kind_that_a_rule_gives_it(tmp_path: Path) -> None:
    found = config(tmp_path, "[server]\nstop_within = 1\n")
    with pytest.raises(ConfigError):
        check(found, facts(found), plan(found, facts(found)))


def test_web_server_can_read_static_files(tmp_path: Path) -> None:
    hindered = Static("/static", "/root/static", exists=True, sample="", hindrance="www-data cannot use /root")
    found = one(broken(config(tmp_path), statics={"site": (hindered,)}), "web-server-can-read-static-files")
    assert "www-data cannot use /root" in found.message
    assert found.kind is None


def test_our_directories_are_open(tmp_path: Path) -> None:
    said = "[stack] runtime_dir: www-data cannot use /root"
    found = one(broken(config(tmp_path), closed=(said,)), "our-directories-are-open")
    assert (found.message, found.kind) == (said, None)


def test_app_server_faces_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = config(tmp_path, "[site]\nweb = 'none'\n")
    assert [each.rule for each in broken(found)] == ["something-is-lost-without-a-web-server"]
    monkeypatch.setattr(bundled, "FACES_CLIENTS", False)
    one([each for each in broken(found) if each.kind], "app-server-faces-clients")


def test_something_is_lost_without_a_web_server(tmp_path: Path) -> None:
    found = one(broken(config(tmp_path, "[site]\nweb = 'none'\n")), "something-is-lost-without-a-web-server")
    assert found.kind is None
    assert broken(config(tmp_path, "[site]\nweb = 'nginx'\n")) == []


def test_nothing_is_parked_on_a_public_socket(tmp_path: Path) -> None:
    text = "[site]\nweb = 'none'\n[server]\nkeep_previous = true\n"
    found = [each for each in broken(config(tmp_path, text)) if each.kind]
    assert [each.rule for each in found] == ["nothing-is-parked-on-a-public-socket"]
    assert broken(config(tmp_path, "[server]\nkeep_previous = true\n")) == []


def test_external_web_server_may_connect(tmp_path: Path) -> None:
    found = config(tmp_path, "[site]\nweb = 'external'\n")
    refused = one(broken(found, web_group="www-data", groups=("ana",)), "external-web-server-may-connect")
    assert "sudo usermod -aG www-data ana" in refused.hint
    assert broken(found, web_group="www-data", groups=("ana", "www-data")) == []
    assert broken(found, web_group="www-data", nginx=None, groups=("www-data",)) == []


def test_external_web_server_finds_the_site(tmp_path: Path) -> None:
    external = "[site]\nweb = 'external'\n"
    found = one(broken(config(tmp_path, external + "listen = [8000, 80]\n")), "external-web-server-finds-the-site")
    assert found.kind is None
    for named in ("listen = 8000", "listen = '127.0.0.1:80'", "listen = 80\nserver_names = ['_', 'shop.example.org']"):
        assert broken(config(tmp_path, f"{external}{named}\n")) == []
    assert broken(config(tmp_path, "[site]\nlisten = 80\n")) == []


@pytest.mark.parametrize("engine", PEERS)
def test_app_server_may_be_chosen(tmp_path: Path, engine: str) -> None:
    found = config(tmp_path, f"[server]\nengine = '{engine}'\n")
    program = {"app": ServerProgram(f"/srv/shop/.venv/bin/{engine}", "2.8")}
    problem = one(broken(found, servers=program), "app-server-may-be-chosen")
    assert f"'{engine}': stackctl only measures it" in problem.message
    assert problem.hint == "To serve with, there is: bundled, uwsgi, gunicorn."
    made = facts(found, servers=program)
    assert check(found, made, plan(found, made), with_peers=True) == []


@pytest.mark.parametrize(("engine", "package"), [("uwsgi", "pyuwsgi"), ("gunicorn", "gunicorn")])
def test_app_server_is_here(tmp_path: Path, engine: str, package: str) -> None:
    found = config(tmp_path, f"[server]\nengine = '{engine}'\n")
    missing = one(broken(found, servers={"app": None}), "app-server-is-here")
    assert missing.kind is MissingProgramError
    assert f"there is no {engine} beside /srv/shop/.venv/bin/python, nor on PATH" in missing.message
    assert missing.hint.startswith(f"Install it there: /srv/shop/.venv/bin/python -m pip install {package}\n")
    assert broken(found, servers={"app": ServerProgram(f"/srv/shop/.venv/bin/{engine}", "27.0")}) == []


def test_a_gunicorn_of_another_python_is_a_warning(tmp_path: Path) -> None:
    outside = ServerProgram("/usr/bin/gunicorn", "20.1.0", "/srv/shop/.venv")
    found = one(
        broken(config(tmp_path, "[server]\nengine = 'gunicorn'\n"), servers={"app": outside}), "app-server-is-here"
    )
    assert found.kind is None
    assert "does not see what is installed in /srv/shop/.venv" in found.message
    uwsgi = dataclasses.replace(outside, path="/usr/bin/uwsgi")
    assert broken(config(tmp_path, "[server]\nengine = 'uwsgi'\n"), servers={"app": uwsgi}) == []


@pytest.mark.parametrize("sign", ["$(", "@(", ":"])
def test_app_server_reads_its_paths(tmp_path: Path, sign: str) -> None:
    rule, here = "app-server-reads-its-paths", {"app": ServerProgram("/usr/bin/uwsgi", "2.0.31")}
    engine, place = "server.engine='uwsgi'", f"stack.state_dir='a{sign}b)'"
    assert sign in one(broken(config(tmp_path, "", engine, place), servers=here), rule).message
    assert f"/a{sign}b)/app." in one(
        broken(config(tmp_path, "", engine), servers=here, runtime_dir=f"/run/a{sign}b)"), rule
    ).message.replace("sockets/", "")
    assert broken(config(tmp_path, "", place)) == []


@pytest.mark.parametrize("name", ["a*", "a?", "[a]"])
def test_nginx_finds_the_site(tmp_path: Path, name: str) -> None:
    place = f"stack.state_dir='{name}'"
    assert name in one(broken(config(tmp_path, "", place)), "nginx-finds-the-site").message
    assert broken(config(tmp_path, "[site]\nweb = 'external'\n", place)) == []


def test_every_rule_is_tested_here_by_its_name() -> None:
    here = Path(__file__).read_text("utf-8")
    for rule in RULES:
        assert f'"{rule.__name__.replace("_", "-")}"' in here
        assert rule.__doc__
