"""What a smoke asks for, what visitors find wrong, and where its stack is put; the whole of it is in e2e."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.config import Smoke, load, parse_set
from stack.errors import UsageError
from stack.operations import visitors
from stack.operations.sandbox import Sandbox, overrides
from stack.operations.smoke import Check, Report, chosen
from stack.operations.visitors import Came, Judge, Load, Request, Visitors
from stack.supervisor import sockets

PAGE = Came(200, {"content-type": "text/html; charset=utf-8", "etag": ""}, "Grüße".encode(), 0.5)
LISTED = (Smoke(path="/"), Smoke(path="/a"), Smoke(path="/a", method="POST"))


class Pages(BaseHTTPRequestHandler):
    """`/N` is answered with the status N, `/host` with the host that was asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = (self.headers["Host"] if self.path == "/host" else "body").encode()
        self.send_response(200 if self.path == "/host" else int(self.path[1:]))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Twice", "one")
        self.send_header("X-Twice", "two")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def pages() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def says(answer: bytes) -> Iterator[str]:
    """A server that says this to whoever comes, whatever the question, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@contextmanager
def lets_go(ending: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that answers the first request of each connection, and closes it after the `ending`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # shut down
                while True:
                    connection, _ = server.accept()
                    with connection:
                        if connection.recv(65536):
                            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            ending(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def get(address: str, path: str) -> Request:
    return Request("GET", path, address, "shop.example", 30.0)


def answers(status: int) -> Judge:
    return partial(visitors.wrong, Smoke(path="/", status=status))


def test_without_paths_everything_listed_is_asked_for() -> None:
    assert chosen(LISTED, ()) == LISTED


def test_a_path_means_all_that_is_listed_of_it() -> None:
    assert chosen(LISTED, ["/a"]) == LISTED[1:]


def test_a_path_that_is_not_listed_is_a_get() -> None:
    assert chosen(LISTED, ["/b?c=d", "/"]) == (Smoke(path="/b?c=d"), LISTED[0])


def test_what_is_no_path_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="healthz is not a path"):
        chosen(LISTED, ["healthz"])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, ""),
        ({"status": 200}, ""),
        ({"status": 404}, "answered 200, not 404"),
        ({"header": "content-type: text/html"}, ""),
        ({"header": "ETag"}, ""),
        ({"header": "Content-Type: json"}, "says Content-Type: text/html; charset=utf-8, without 'json'"),
        ({"header": "Location"}, "has no header Location"),
        ({"text": "Grüße"}, ""),
        ({"text": "Hello"}, "has no 'Hello' in its body"),
        ({"max_seconds": 0.25}, "took 0.5 s, more than 0.25"),
    ],
)
def test_what_is_wrong_with_an_answer(wanted: dict[str, object], said: str) -> None:
    assert visitors.wrong(Smoke.model_validate({"path": "/", **wanted}), PAGE) == said


def test_a_redirect_is_well_and_an_error_is_not() -> None:
    assert visitors.wrong(Smoke(path="/"), Came(399, {}, b"", 0.0)) == ""
    assert visitors.wrong(Smoke(path="/"), Came(400, {}, b"", 0.0)) == "answered 400, not below 400"


def test_a_body_has_a_type_and_no_body_has_none() -> None:
    form = visitors.request(Smoke(path="/", method="POST", body="a=b"), "127.0.0.1:1", "h")
    assert (form.method, form.body, form.content_type) == ("POST", "a=b", "application/x-www-form-urlencoded")
    assert visitors.request(Smoke(path="/"), "127.0.0.1:1", "h").content_type == ""


def test_the_site_is_asked_by_its_name(pages: str) -> None:
    came = visitors.ask(get(pages, "/host"))
    assert came.body == b"shop.example"
    assert came.headers["x-twice"] == "one, two"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf",
        b"SSH-2.0-x\r\n",
    ],
)
def test_half_an_answer_is_none(answer: bytes) -> None:
    with says(answer) as address, pytest.raises((OSError, HTTPException)) as caught:
        visitors.ask(get(address, "/"))
    assert visitors.failure(caught.value)


def test_visitors_count_every_request(pages: str) -> None:
    with Visitors({get(pages, "/200"): answers(200), get(pages, "/404"): answers(404)}) as crowd:
        crowd.another_turn()
        crowd.another_turn()
    met = crowd.load()
    assert met.requests >= 4 * (visitors.KEPT + visitors.FRESH)
    assert met.failed == 0
    assert len(met.seconds) == met.requests
    assert list(met.seconds) == sorted(met.seconds)


def test_visitors_of_one_port_go_to_the_address_that_they_are_asked_to(pages: str) -> None:
    other = pages.replace("127.0.0.1", "127.0.0.2")  # nobody listens there
    with Visitors({get(pages, "/200"): answers(200), get(other, "/404"): answers(404)}) as crowd:
        crowd.another_turn()
        crowd.another_turn()
    met = crowd.load()
    assert 0 < met.failed < met.requests
    assert all("refused" in each for each in met.failures)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_address_of_ipv6_is_asked() -> None:
    with socket.socket(socket.AF_INET6) as held:
        held.bind(("::1", 0))
        with pytest.raises(ConnectionRefusedError):
            visitors.ask(get(f"[::1]:{held.getsockname()[1]}", "/"))


def test_visitors_notice_another_status(pages: str) -> None:
    with Visitors({get(pages, "/200"): answers(200), get(pages, "/500"): answers(200)}) as crowd:
        crowd.another_turn()
    met = crowd.load()
    assert 0 < met.failed < met.requests
    assert met.failures == ("GET /500: answered 500, not 200",)


def test_visitors_notice_that_nobody_is_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with Visitors({get(f"127.0.0.1:{held.getsockname()[1]}", "/"): answers(200)}) as crowd:
            crowd.another_turn()
    met = crowd.load()
    assert met.failed == met.requests > 0
    assert "refused" in met.failures[0]


def closed(connection: socket.socket) -> None:
    connection.close()


def closed_with_a_request_in_its_queue(connection: socket.socket) -> object:
    return connection.recv(1, socket.MSG_PEEK)


def closed_after_it_has_read_a_request(connection: socket.socket) -> object:
    return connection.recv(65536)


@pytest.mark.parametrize("ending", [closed, closed_with_a_request_in_its_queue])
def test_request_that_nobody_has_read_is_asked_again_and_counted_apart(
    ending: Callable[[socket.socket], object],
) -> None:
    with lets_go(ending) as address:
        with Visitors({get(address, "/"): answers(200)}, kept=1, fresh=0) as crowd:
            crowd.another_turn()
        met = crowd.load()
    assert (met.failed, met.failures) == (0, ())
    assert met.again >= met.requests - 1 > 0


def test_request_that_was_read_and_not_answered_is_lost(pages: str) -> None:
    with lets_go(closed_after_it_has_read_a_request) as address:
        with Visitors({get(address, "/"): answers(200), get(pages, "/200"): answers(200)}, kept=1, fresh=0) as crowd:
            crowd.another_turn()
        met = crowd.load()
        assert met.failed == met.again == 0, "each has a connection of its own"
        with Visitors({get(address, "/"): answers(200)}, kept=1, fresh=0) as crowd:
            crowd.another_turn()
        met = crowd.load()
    assert met.again == 0
    assert 0 < met.failed < met.requests
    assert met.failures[0].startswith("GET /: Remote end closed connection")


def test_visitors_tell_the_phases_apart(pages: str) -> None:
    crowd = Visitors({get(pages, "/200"): answers(200), get(pages, "/500"): answers(200)})
    crowd.enter("one")
    with crowd:
        crowd.another_turn()
        crowd.enter("two")
        crowd.another_turn()
    one, two, both = crowd.load("one"), crowd.load("two"), crowd.load()
    assert min(one.requests, two.requests, one.failed, two.failed) > 0
    assert one.requests + two.requests == both.requests
    assert one.failed + two.failed == both.failed


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_first_that_enough_are_within(seconds: list[float], share: float) -> None:
    found = Load(seconds=tuple(sorted(seconds))).percentile(share)
    assert found in seconds
    assert sum(each <= found for each in seconds) >= share * len(seconds) - 1e-9
    assert sum(each < found for each in seconds) < share * len(seconds) + 1e-9


def test_no_answers_have_no_percentile() -> None:
    assert Load().percentile(0.5) == 0


def test_the_first_failure_decides_the_exit_code() -> None:
    good, bad = Check("up", "up", 1.0), Check("path", "GET /", 1.0, problem="answered 500, not below 400")
    assert Report("shop", (good,), {}).exit_code == 0
    assert Report("shop", (good, bad), {}).exit_code == 4
    assert Report("shop", (Check("up", "up", 1.0, problem="no nginx", exit_code=5), bad), {}).exit_code == 5


@pytest.mark.parametrize("text", ['[site]\nlisten = ["80", "[::]:80"]\n', "", "[sites.site]\n"])
def test_the_stack_is_put_aside_whatever_the_project_says(text: str, tmp_path: Path) -> None:
    (tmp_path / "stack.toml").write_text(text)
    sandbox = Sandbox()
    sandbox.directory = tmp_path / "aside"
    flag = parse_set(f"stack.state_dir={tmp_path}")
    found = load(tmp_path, (flag, *overrides(sandbox, load(tmp_path, [flag])))).config
    assert found.stack.runtime_dir == sandbox.runtime_dir
    assert found.state_dir == sandbox.state_dir
    listen = found.sites["site"].listen
    assert len(set(listen)) == len(load(tmp_path).config.sites["site"].listen)
    assert all(each.startswith("127.0.0.1:") for each in listen)
    sandbox.close()


def test_sites_that_share_an_address_share_it_aside(tmp_path: Path) -> None:
    (tmp_path / "stack.toml").write_text(
        '[sites.a]\nlisten = "80"\nserver_names = "a"\n[sites.b]\nlisten = ["80", "81"]\nserver_names = "b"\n'
    )
    sandbox = Sandbox()
    found = load(tmp_path, tuple(overrides(sandbox, load(tmp_path)))).config
    assert found.sites["a"].listen[0] == found.sites["b"].listen[0] != found.sites["b"].listen[1]
    sandbox.close()


def test_an_nginx_of_our_own_stands_for_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "stack.toml").write_text('[site]\nweb = "external"\nlisten = "80"\n')
    sandbox = Sandbox()
    assert load(tmp_path, tuple(overrides(sandbox, load(tmp_path)))).config.sites["site"].web == "nginx"
    sandbox.close()


def test_sites_stay_as_they_are_where_the_place_of_an_nginx_outside_is_borrowed(tmp_path: Path) -> None:
    (tmp_path / "stack.toml").write_text('[site]\nweb = "external"\nlisten = "80"\n')
    sandbox = Sandbox()
    sandbox.directory = tmp_path / "aside"
    sandbox.borrow("/run/stackctl/shop")
    before = load(tmp_path)
    found = load(tmp_path, tuple(overrides(sandbox, before))).config
    assert sandbox.runtime_dir == "/run/stackctl/shop"
    assert found.sites == before.config.sites
    assert found.stack.runtime_dir == before.config.stack.runtime_dir
    assert found.state_dir == sandbox.state_dir


def test_a_free_address_is_kept_for_who_shares_it() -> None:
    sandbox = Sandbox()
    address = sandbox.free_address()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", int(address.rpartition(":")[2])))
    sockets.listen(address, 1).close()
    sandbox.close()
