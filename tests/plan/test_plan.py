"""plan(config, facts): same input, same output; who listens where, who is asked what, who runs as whom."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from stack.appservers import APP_SERVERS, bundled
from stack.config import Override
from stack.desired import VERSION, Plan, Probe, Service, digest, from_json, to_json
from stack.errors import ConfigError
from stack.facts import Nginx
from stack.plan import plan, workers
from stack.webservers import WEB_SERVERS

from .made import NGINX, config, facts

TWO = """
[apps.shop]
[apps.admin.server]
protocol = "uwsgi"
[sites.shop]
listen = ["80", "[::]:80", "8080"]
server_names = ["shop.org"]
app = "shop"
[sites.admin]
listen = ["8080", "127.0.0.1:9000"]
app = "admin"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "shop"
    directory.mkdir()
    return directory


def planned(project: Path, text: str = "", *sets: str) -> Plan:
    found = config(project, text, *sets)
    return plan(found, facts(found))


def service(made: Plan, name: str) -> Service:
    found = made.service(name)
    assert found is not None
    return found


def probes(made: Plan, hop: str) -> list[Probe]:
    return [each for each in made.probes if each.hop == hop]


def test_the_same_input_gives_an_equal_plan(project: Path) -> None:
    found = config(project, TWO)
    once, again = facts(found), facts(found)
    before = found.model_dump()
    assert plan(found, once) == plan(found, again)
    assert (once, found.model_dump()) == (again, before)


def test_a_plan_needs_no_file_of_the_project(project: Path) -> None:
    found = config(project, '[app]\nenv_file = "nowhere.env"\ndirectory = "nowhere"\n')
    machine = facts(found)
    (project / "stack.toml").unlink()
    project.rmdir()
    assert plan(found, machine)
    assert not project.exists()


def test_a_plan_survives_json(project: Path) -> None:
    found = config(project, TWO)
    made = plan(found, facts(found), [Override("server.workers", "2", "--workers")])
    assert made.overrides == (("server.workers", "2", "--workers"),)
    assert from_json(to_json(made)) == made


def test_secrets_never_enter_a_plan(project: Path) -> None:
    (project / "secrets.env").write_text("TOKEN=hunter2\n")
    made = planned(project, '[app]\nenv_file = "secrets.env"\nenv = { STAGE = "prod" }\n')
    text = to_json(made)
    assert "hunter2" not in text
    assert "TOKEN" not in text
    assert service(made, "app").env_file == str(project / "secrets.env")
    assert service(made, "app").env == {"STAGE": "prod"}


def test_files_checks_and_services_of_the_smallest_stack(project: Path) -> None:
    made = planned(project)
    assert [each.path for each in made.files] == [
        "apps/app/stackctl_entry.py",
        "nginx/nginx.conf",
        "nginx/site.conf",
    ]
    assert [each.name for each in made.checks] == ["nginx -t"]
    assert [(each.name, each.tier) for each in made.services] == [("app", 0), ("nginx", 1)]
    assert (made.name, made.project, made.state_dir) == ("shop", str(project), str(project / ".stackctl"))
    assert made.log == project / ".stackctl" / "log" / "stack.log"


def test_every_public_address_is_listened_on_once(project: Path) -> None:
    made = planned(project, TWO)
    addresses = ["0.0.0.0:80", "[::]:80", "0.0.0.0:8080", "127.0.0.1:9000"]
    assert [each.address for each in made.listeners] == addresses
    assert list(service(made, "nginx").listeners) == addresses


def test_the_app_server_is_told_everything_on_its_command_line(project: Path) -> None:
    text = "[server]\nworkers = 3\nthreads = 5\nbacklog = 7\ntimeout = 1.5\nstop_within = 12\n"
    argv = " ".join(service(planned(project, text), "app").argv)
    assert argv.startswith(f"/srv/shop/.venv/bin/python {bundled.BOOTSTRAP} stackctl_entry:application ")
    assert f"--pythonpath {project}/.stackctl/apps/app --bind unix:{{socket}} --state {{control}} " in argv
    assert "--workers 3 --threads 5 --backlog 7 --timeout 1.5 --stop-within 12" in argv


@pytest.mark.parametrize(("cpus", "count"), [(1, 2), (2, 2), (5, 5)])
def test_workers_follow_the_cpus_and_are_two_at_least(project: Path, cpus: int, count: int) -> None:
    found = config(project)
    assert workers(found.apps["app"], facts(found, cpus=cpus)) == count


def test_workers_as_told_may_be_one(project: Path) -> None:
    found = config(project, "[server]\nworkers = 1\n")
    assert workers(found.apps["app"], facts(found)) == 1


def test_both_sides_of_a_hop_have_the_same_link_and_protocol(project: Path) -> None:
    made = planned(project, TWO)
    site = next(file.text for file in made.files if file.path == "nginx/site.conf")
    for name, protocol, passing in (("shop", "http", "proxy_pass http://"), ("admin", "uwsgi", "uwsgi_pass ")):
        app = service(made, name)
        assert app.link == f"/run/stackctl/shop/sockets/{name}.{protocol}.sock"
        assert f'server "unix:{app.link}";' in site
        assert f"{passing}stackctl_shop_{name};" in site
        assert app.probe is not None
        assert (app.probe.protocol, app.probe.address) == (protocol, f"unix:{app.link}")


def test_the_web_server_outwaits_the_app_server(project: Path) -> None:
    site = next(file.text for file in planned(project, "[server]\ntimeout = 10\n").files if "site" in file.path)
    assert "proxy_read_timeout 15s;" in site


def test_nginx_is_stopped_in_its_own_way_and_reloaded_when_its_files_change(project: Path) -> None:
    before, same, after = (service(planned(project, text), "nginx") for text in ("", "", "[site]\nmax_body = '1m'\n"))
    assert before.reads == same.reads != after.reads
    assert dataclasses.replace(before, reads=after.reads) == after
    assert (before.reload_signal, before.stop_signal, before.orphan_signal) == ("HUP", "QUIT", "TERM")
    assert before.is_batch
    assert before.listeners_variable == "NGINX"
    assert before.pid_file == "/run/stackctl/shop/nginx.g{generation}.pid"


def test_an_nginx_without_the_option_is_not_given_it(project: Path) -> None:
    found = config(project)
    for version, given in (((1, 18, 0), False), ((1, 19, 5), True), ((1, 31, 3), True)):
        made = plan(found, facts(found, nginx=Nginx("/x/nginx", version, NGINX.modules)))
        for argv in (made.checks[0].argv, service(made, "nginx").argv):
            assert argv[0] == "/x/nginx"
            assert ("-e" in argv) == given


def test_there_is_a_plan_where_there_is_no_nginx(project: Path) -> None:
    found = config(project)
    made = plan(found, facts(found, nginx=None))
    assert service(made, "nginx").argv[0] == "nginx"


def test_nginx_of_root_works_as_the_user_of_the_app_in_its_own_group(project: Path) -> None:
    found = config(project)
    machine = facts(found, is_root=True, user="root")
    for user, group, line in (("shop", "users", "user shop users;\n"), ("", "", "user root;\n")):
        apps = {"app": dataclasses.replace(machine.apps["app"], user=user, group=group)}
        made = plan(found, dataclasses.replace(machine, apps=apps))
        assert line in next(file.text for file in made.files if file.path == "nginx/nginx.conf")
        assert (made.user, service(made, "app").user) == (user, user)
    assert "\nuser " not in next(file.text for file in plan(found, facts(found)).files if "nginx.conf" in file.path)


# Where it is found.


@pytest.mark.parametrize(
    ("site", "url", "host"),
    [
        ("", "http://127.0.0.1:8000/", "127.0.0.1:8000"),
        ("listen = '80'", "http://127.0.0.1/", "127.0.0.1"),
        ("listen = '[::]:80'", "http://[::1]/", "[::1]"),
        ("listen = '[::1]:8080'", "http://[::1]:8080/", "[::1]:8080"),
        ("listen = '8080'\nserver_names = ['a.org', 'b.org']", "http://a.org:8080/", "a.org:8080"),
        ("listen = '80'\nserver_names = ['a.org']", "http://a.org/", "a.org"),
        ("listen = '80'\nserver_names = ['*.a.org']", "http://127.0.0.1/", "www.a.org"),
        ("listen = '8080'\nserver_names = ['_', '*.a.org']", "http://127.0.0.1:8080/", "www.a.org:8080"),
        ("listen = '8080'\nserver_names = ['_']", "http://127.0.0.1:8080/", "127.0.0.1:8080"),
    ],
)
def test_url_and_host_are_those_that_the_site_answers_to(project: Path, site: str, url: str, host: str) -> None:
    made = planned(project, f"[site]\n{site}\n")
    assert made.url == url
    assert {each.host for each in made.probes} == {host}


def test_every_hop_is_probed_the_innermost_first(project: Path) -> None:
    made = planned(project, TWO)
    assert [each.hop for each in made.probes] == ["app", "app", "web", "site", "static", "web", "site", "static"]
    for each in probes(made, "site"):
        assert each.protocol == "http"
        assert each.within == 35.0
    assert [each.address for each in probes(made, "site")] == ["127.0.0.1:80", "127.0.0.1:8080"]


def test_health_is_what_app_and_site_are_asked(project: Path) -> None:
    made = planned(project, "[app]\nhealth = '/healthz'\n")
    assert [each.path for each in made.probes if each.hop != "web"] == ["/healthz", "/healthz", "/static/a%20b.css"]


@pytest.mark.parametrize(
    ("etag", "nginx"), [('"5f1-a0"', True), ('W/"5f1-a0"', True), ('"1690-1-2"', False), ("5f1-a0", False), ("", False)]
)
def test_a_static_file_must_come_from_nginx(project: Path, etag: str, *, nginx: bool) -> None:
    (probe,) = probes(planned(project), "static")
    assert (probe.path, probe.status, probe.header) == ("/static/a%20b.css", 200, "etag")
    assert bool(re.fullmatch(probe.pattern, etag)) == nginx


def test_a_folder_without_a_file_is_not_probed(project: Path) -> None:
    found = config(project)
    machine = facts(found)
    empty = dataclasses.replace(machine.statics["site"][0], sample="")
    assert probes(plan(found, dataclasses.replace(machine, statics={"site": (empty,)})), "static") == []


def test_the_summary_says_where_which_way_and_how_much(project: Path) -> None:
    text = planned(project, "[server]\nworkers = 3\n").welcome()
    assert "http://127.0.0.1:8000/" in text
    assert "shop.web:app" in text
    assert "12" in text


def test_a_site_without_a_name_comes_first_since_unknown_hosts_get_the_first(project: Path) -> None:
    site = next(file.text for file in planned(project, TWO).files if file.path == "nginx/site.conf")
    assert site.index("stackctl_shop_admin;\n") < site.index("server_name shop.org;")


# What stackctl does not have.


def test_an_unknown_engine_web_server_or_protocol_is_refused(project: Path) -> None:
    for setting, hint in (
        ("server.engine=bundeld", "Did you mean bundled?"),
        ("site.web=ngnix", "Did you mean nginx?"),
        ("site.web=qqq", "There is: nginx, external, none."),
        ("server.protocol=ajp", "It speaks http, uwsgi, fastcgi, scgi."),
    ):
        with pytest.raises(ConfigError) as caught:
            planned(project, "", setting)
        assert caught.value.hint == hint
        assert repr(setting.partition("=")[2]) in caught.value.message


def test_the_servers_have_the_shape_that_a_plan_wants() -> None:
    for app_server in APP_SERVERS.values():
        assert app_server.PROTOCOLS
        assert {app_server.STOP_SIGNAL, app_server.ORPHAN_SIGNAL} <= {"TERM", "INT", "QUIT", "KILL", "HUP"}
    for web_server in WEB_SERVERS.values():
        assert web_server.PROTOCOLS


# JSON.


def test_another_version_is_refused(project: Path) -> None:
    data = json.loads(to_json(planned(project)))
    with pytest.raises(ValueError, match=f"not a plan of version {VERSION}"):
        from_json(json.dumps({**data, "version": VERSION + 1}))


@pytest.mark.parametrize("text", ["[]", "1", "null", "{}", '"x"', "", "{", '{"version": 1}'])
def test_what_is_no_plan_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error is one
        from_json(text)


@pytest.mark.parametrize(
    "change",
    [{"services": ["x"]}, {"services": [{"name": "x"}]}, {"odd": 1}, {"listeners": 3}, {"overrides": [["a", "b"]]},
     {"files": [{"path": "a", "text": "b", "odd": 1}]}],
)  # fmt: skip
def test_another_shape_is_a_value_error(project: Path, change: dict[str, object]) -> None:
    data = json.loads(to_json(planned(project)))
    with pytest.raises(ValueError):  # noqa: PT011 - the first line of each differs
        from_json(json.dumps({**data, **change}))


def test_a_digest_is_of_the_value_alone() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest("")) == 16


def test_the_witness_is_in_the_site_and_changes_with_it(project: Path) -> None:
    small, large = planned(project), planned(project, "[site]\nmax_body = '64m'\n")
    paths = [probes(made, "web")[0].path for made in (small, large)]
    assert paths[0] != paths[1]
    for made, path in zip((small, large), paths, strict=True):
        assert f"location = {path} {{" in site_of(made)


def test_an_external_web_server_is_neither_run_nor_required(project: Path) -> None:
    found = config(project, "[site]\nweb = 'external'\n")
    made = plan(found, facts(found, web_group="www-data", groups=("www-data",)))
    assert [each.name for each in made.services] == ["app"]
    assert (made.listeners, made.checks, made.group) == ((), (), "www-data")
    assert [each.ours for each in made.probes] == [True, False, False, False]
    assert "--socket-mode 660" in " ".join(made.services[0].argv)
    assert site_of(made) == site_of(planned(project))


@pytest.mark.parametrize(
    ("text", "flags"),
    [("", set()), ("preload = true", {"--preload"}), ("preload = 'anyway'", {"--preload-anyway"})],
)
def test_app_is_preloaded_where_that_is_asked_for(project: Path, text: str, flags: set[str]) -> None:
    argv = service(planned(project, f"[server]\n{text}\n"), "app").argv
    assert {each for each in argv if each.startswith("--preload")} == flags


def test_without_a_web_server_the_app_server_takes_the_public_sockets(project: Path) -> None:
    text = "[site]\nweb = 'none'\nlisten = [8000, '[::1]:8000']\nmax_body = '1k'\n"
    made = planned(project, text)
    (service,) = made.services
    assert service.listeners == ("0.0.0.0:8000", "[::1]:8000")
    assert [each.address for each in made.listeners] == list(service.listeners)
    argv = " ".join(service.argv)
    assert "--bind fd://3 --bind fd://4 --static /static=/srv/shop/static --max-body 1024" in argv
    assert "--socket-mode 600" in argv
    assert [each.hop for each in made.probes] == ["app", "site", "static"]


def test_behind_a_web_server_the_app_server_serves_no_files(project: Path) -> None:
    argv = planned(project).services[0].argv
    assert not {"--static", "--max-body"} & set(argv)


def test_a_stack_has_one_web_server(project: Path) -> None:
    with pytest.raises(ConfigError, match="nginx and none"):
        planned(project, "[sites.a]\n[sites.b]\nweb = 'none'\nlisten = 8001\n")


def site_of(made: Plan) -> str:
    return next(each.text for each in made.files if each.path == "nginx/site.conf")
