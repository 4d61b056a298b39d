"""The example project: each route answers what its page promises."""

import hashlib
import importlib.util
import logging
import os
import platform
import sys
from html.parser import HTMLParser
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

EXAMPLE = Path(__file__).resolve().parent.parent / "deploy" / "example"
MEGABYTE = 1_000_000
DOWNLOAD = EXAMPLE / "files" / "four-letters.txt"
SVG = "{http://www.w3.org/2000/svg}svg"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load app.py afresh from its path; sys.path is not touched, sys.modules only during the test."""
    name = "stackctl_example_app"
    specification = importlib.util.spec_from_file_location(name, EXAMPLE / "app.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, name, module)  # where Flask looks up the folder of the templates
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def app(example: ModuleType) -> Flask:
    """Give the Flask application under the name that servers look for."""
    application = example.app
    assert isinstance(application, Flask)
    return application


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Give a client that speaks to the application without a server."""
    return app.test_client()


@pytest.fixture
def sleeps(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the application's sleep by a list of what it was asked for."""
    calls: list[float] = []
    monkeypatch.setattr(example, "sleep", calls.append)
    return calls


class Elements(HTMLParser):
    """Collects the start tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        """Read the whole page."""
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep one start tag."""
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def named(self, tag: str) -> list[dict[str, str]]:
        """Give the attributes of each element with this tag."""
        return [attributes for name, attributes in self.found if name == tag]

    def values(self, attribute: str) -> list[str]:
        """Give the value of this attribute wherever it is set."""
        return [attributes[attribute] for _, attributes in self.found if attribute in attributes]


@pytest.fixture
def front_page(client: FlaskClient) -> Elements:
    """Give the elements of the first page."""
    response = client.get("/")
    assert response.status_code == HTTPStatus.OK
    assert response.mimetype == "text/html"
    return Elements(response.get_data(as_text=True))


def test_the_application_needs_no_secret(app: Flask) -> None:
    assert app.secret_key is None


def test_front_page_has_a_stylesheet_an_icon_and_an_image_with_a_description(front_page: Elements) -> None:
    links = {link["rel"]: link["href"] for link in front_page.named("link")}
    assert links == {"stylesheet": "/static/style.css", "icon": "/static/favicon.svg"}
    (image,) = front_page.named("img")
    assert image["src"] == "/static/way.svg"
    for stop in ("browser", "nginx", "WSGI server", "Flask"):
        assert stop in image["alt"]


def test_every_local_address_on_the_front_page_answers(
    front_page: Elements, client: FlaskClient, sleeps: list[float]
) -> None:
    addresses = {
        address
        for attribute in ("href", "src", "srcset")
        for address in front_page.values(attribute)
        if address.startswith("/")
    }
    assert {"/stream", "/slow?seconds=3", "/download", "/api/facts", "/healthz", "/nowhere"} <= addresses
    for address in addresses:
        with client.get(address) as response:
            response.get_data()
            expected = HTTPStatus.NOT_FOUND if address == "/nowhere" else HTTPStatus.OK
            assert response.status_code == expected, address
    assert sleeps.count(3) == 1


def test_front_page_loads_nothing_from_another_host(front_page: Elements) -> None:
    loaded = [
        *front_page.values("src"),
        *front_page.values("srcset"),
        *(link["href"] for link in front_page.named("link")),
    ]
    assert loaded
    assert all(address.startswith("/static/") for address in loaded)


def test_front_page_has_no_inline_style_or_script(front_page: Elements) -> None:
    assert front_page.named("style") == []
    assert front_page.values("style") == []
    assert all("src" in script for script in front_page.named("script"))
    assert not [name for _, attributes in front_page.found for name in attributes if name.startswith("on")]


def test_front_page_uses_each_id_once_and_labels_each_field(front_page: Elements) -> None:
    identifiers = front_page.values("id")
    assert len(identifiers) == len(set(identifiers))
    fields = {field["id"] for tag in ("input", "textarea") for field in front_page.named(tag)}
    assert fields == {label["for"] for label in front_page.named("label")}
    assert set(front_page.values("aria-labelledby")) <= set(identifiers)


def test_front_page_headings_skip_no_level(front_page: Elements) -> None:
    levels = [int(tag[1]) for tag, _ in front_page.found if tag in {"h1", "h2", "h3", "h4", "h5", "h6"}]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_front_page_forms_point_at_their_routes(front_page: Elements) -> None:
    forms = {form["action"]: form for form in front_page.named("form")}
    assert set(forms) == {"/guestbook", "/upload"}
    assert all(form["method"] == "post" for form in forms.values())
    assert forms["/upload"]["enctype"] == "multipart/form-data"
    assert {field["name"] for field in front_page.named("input")} == {"name", "file"}


def test_front_page_shows_the_facts_of_the_request(client: FlaskClient) -> None:
    page = client.get(
        "/",
        base_url="https://stops.example:8443",
        environ_overrides={"SERVER_SOFTWARE": "testing/1.0", "REMOTE_ADDR": "192.0.2.7"},
    ).get_data(as_text=True)
    for fact in ("testing/1.0", "192.0.2.7", "stops.example:8443", "https", str(os.getpid())):
        assert f"<td>{fact}</td>" in page


def test_front_page_escapes_what_a_client_sends(client: FlaskClient) -> None:
    page = client.get("/", environ_overrides={"SERVER_SOFTWARE": "<script>x</script>"}).get_data(as_text=True)
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_addresses_on_the_front_page_follow_the_prefix_it_is_mounted_under(client: FlaskClient) -> None:
    page = client.get("/", base_url="http://localhost/inner/").get_data(as_text=True)
    elements = Elements(page)
    addresses = [*elements.values("href"), *elements.values("src"), *elements.values("action")]
    assert all(address.startswith(("/inner/", "https://peps.python.org/")) for address in addresses)


@pytest.mark.parametrize("name", ["favicon.svg", "way.svg", "way-tall.svg"])
def test_images_are_well_formed_and_load_nothing(name: str) -> None:
    text = (EXAMPLE / "static" / name).read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert root.tag == SVG
    assert "viewBox" in root.attrib
    assert "href" not in text
    assert "<script" not in text


def test_facts_are_those_of_the_request(client: FlaskClient) -> None:
    response = client.get(
        "/api/facts",
        base_url="https://stops.example",
        environ_overrides={
            "SERVER_SOFTWARE": "testing/1.0",
            "REMOTE_ADDR": "192.0.2.7",
            "wsgi.multiprocess": True,
            "wsgi.multithread": False,
        },
    )
    assert response.status_code == HTTPStatus.OK
    assert response.mimetype == "application/json"
    facts = response.get_json()
    assert facts.pop("python_version") == platform.python_version()
    assert facts.pop("flask_version").startswith("3.")
    assert facts == {
        "server_software": "testing/1.0",
        "remote_addr": "192.0.2.7",
        "multiprocess": True,
        "multithread": False,
        "scheme": "https",
        "host": "stops.example",
        "pid": os.getpid(),
    }


def test_facts_survive_a_server_that_does_not_introduce_itself(client: FlaskClient) -> None:
    response = client.get("/api/facts", environ_overrides={"REMOTE_ADDR": ""})
    assert response.get_json()["server_software"] == "unknown"
    assert response.get_json()["remote_addr"] == "unknown"


def test_guestbook_redirects_to_thanks(client: FlaskClient) -> None:
    response = client.post("/guestbook", data={"name": "Ada", "message": "hello"})
    assert response.status_code == HTTPStatus.SEE_OTHER
    assert response.headers["Location"] == "/thanks?name=Ada"


@pytest.mark.parametrize("name", ["Zoë & Søn", "a=b#c?d", "one\r\ntwo", "猫"])
def test_guestbook_carries_any_name_to_the_thanks_page(client: FlaskClient, name: str) -> None:
    response = client.post("/guestbook", data={"name": name}, follow_redirects=True)
    assert response.status_code == HTTPStatus.OK
    assert response.request.path == "/thanks"
    assert response.request.args["name"] == name


@pytest.mark.parametrize("form", [{}, {"name": ""}, {"name": "  \n"}])
def test_guestbook_calls_a_nameless_guest_stranger(client: FlaskClient, form: dict[str, str]) -> None:
    response = client.post("/guestbook", data=form)
    assert response.headers["Location"] == "/thanks?name=stranger"


def test_guestbook_shortens_a_long_name(client: FlaskClient) -> None:
    response = client.post("/guestbook", data={"name": "x" * 5000})
    assert response.headers["Location"] == "/thanks?name=" + "x" * 80


def test_guestbook_writes_the_entry_to_the_log_on_one_line(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=app.logger.name):
        client.post("/guestbook", data={"name": "Ada", "message": "first\nsecond"})
    assert caplog.messages == ["guestbook: 'Ada' wrote 'first\\nsecond'"]


def test_guestbook_cannot_be_read(client: FlaskClient) -> None:
    response = client.get("/guestbook")
    assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert "POST" in response.headers["Allow"]
    assert "Method Not Allowed" in response.get_data(as_text=True)


def test_thanks_escapes_the_name(client: FlaskClient) -> None:
    page = client.get("/thanks", query_string={"name": "<b>Ada</b>"}).get_data(as_text=True)
    assert "Thank you, &lt;b&gt;Ada&lt;/b&gt;." in page


def test_thanks_works_without_a_name(client: FlaskClient) -> None:
    response = client.get("/thanks")
    assert response.status_code == HTTPStatus.OK
    assert "Thank you, stranger." in response.get_data(as_text=True)


def test_stream_sends_ten_lines_as_plain_text_and_asks_nginx_not_to_buffer(
    client: FlaskClient, sleeps: list[float]
) -> None:
    with client.get("/stream") as response:
        lines = response.get_data(as_text=True).splitlines()
        assert lines == [f"line {number} of 10" for number in range(1, 11)]
        assert response.status_code == HTTPStatus.OK
        assert response.mimetype == "text/plain"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in response.headers
    assert sleeps == [0.2] * 9


def test_stream_makes_each_line_only_when_it_is_wanted(client: FlaskClient, sleeps: list[float]) -> None:
    with client.get("/stream?n=3&delay=0") as response:
        chunks = response.iter_encoded()
        assert next(chunks) == b"line 1 of 3\n"
        assert len(sleeps) == 0
        assert next(chunks) == b"line 2 of 3\n"
        assert len(sleeps) == 1
        assert list(chunks) == [b"line 3 of 3\n"]
        assert sleeps == [0, 0]


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        ("1", 1),
        ("100", 100),
        ("101", 100),
        ("1e999", 100),
        ("0", 0),
        ("-5", 0),
        ("nan", 0),
        ("many", 10),
        ("", 10),
    ],
)
def test_stream_keeps_the_number_of_lines_in_bounds(client: FlaskClient, asked: str, lines: int) -> None:
    with client.get("/stream", query_string={"n": asked, "delay": "0"}) as response:
        assert response.get_data(as_text=True).count("\n") == lines


@pytest.mark.parametrize(
    ("asked", "delay"),
    [("0", 0), ("0.5", 0.5), ("1", 1), ("60", 1), ("inf", 1), ("-1", 0), ("nan", 0), ("soon", 0.2)],
)
def test_stream_keeps_the_delay_in_bounds(client: FlaskClient, sleeps: list[float], asked: str, delay: float) -> None:
    with client.get("/stream", query_string={"n": "2", "delay": asked}) as response:
        response.get_data()
    assert sleeps == [delay]


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("", 3),
        ("?seconds=1.5", 1.5),
        ("?seconds=0", 0),
        ("?seconds=11", 10),
        ("?seconds=-1", 0),
        ("?seconds=x", 3),
    ],
)
def test_slow_sleeps_within_bounds(client: FlaskClient, sleeps: list[float], query: str, seconds: float) -> None:
    response = client.get(f"/slow{query}")
    assert sleeps == [seconds]
    assert response.mimetype == "text/plain"
    assert response.get_data(as_text=True) == f"slept {seconds:g} seconds in worker {os.getpid()}\n"


def upload(client: FlaskClient, filename: str, content: bytes) -> TestResponse:
    """Post one file, with the form written by hand: the test client leaves a temporary file of its own open."""
    head = f'--frontier\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--frontier--\r\n"
    return client.post("/upload", data=body, content_type="multipart/form-data; boundary=frontier")


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 2 * MEGABYTE])
def test_upload_answers_the_size_and_the_sha256_of_the_file(client: FlaskClient, size: int) -> None:
    content = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    response = upload(client, "notes.txt", content)
    assert response.status_code == HTTPStatus.OK
    assert response.get_json() == {
        "filename": "notes.txt",
        "bytes": size,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_upload_reads_the_file_in_chunks(
    example: ModuleType, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Recorder:
        """Stands in for the SHA-256 and notes the size of each piece."""

        def update(self, piece: bytes) -> None:
            sizes.append(len(piece))

        def hexdigest(self) -> str:
            return "recorded"

    monkeypatch.setattr(hashlib, "sha256", Recorder)
    content = bytes(2 * example.CHUNK_SIZE + 5)
    response = upload(client, "zeros.bin", content)
    assert response.get_json()["sha256"] == "recorded"
    assert sizes == [example.CHUNK_SIZE, example.CHUNK_SIZE, 5]


@pytest.mark.parametrize("field", ["file", "other"])
def test_upload_without_a_file_is_a_bad_request(client: FlaskClient, field: str) -> None:
    response = client.post("/upload", data={field: "only text"}, content_type="multipart/form-data")
    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert "file" in response.get_json()["error"]


def test_upload_of_a_form_in_which_no_file_was_chosen_is_a_bad_request(client: FlaskClient) -> None:
    response = upload(client, "", b"")
    assert response.status_code == HTTPStatus.BAD_REQUEST


def test_download_is_the_file_itself_where_no_web_server_would_send_it(client: FlaskClient) -> None:
    with client.get("/download") as response:
        assert response.status_code == HTTPStatus.OK
        assert response.mimetype == "text/plain"
        assert response.headers["Content-Disposition"] == "attachment; filename=four-letters.txt"
        assert response.get_data() == DOWNLOAD.read_bytes()
        assert "X-Accel-Redirect" not in response.headers


def test_download_is_left_to_a_web_server_that_says_so(client: FlaskClient) -> None:
    with client.get("/download", headers={"X-Accel-Private": "/media /private"}) as response:
        assert response.status_code == HTTPStatus.OK
        assert response.headers["X-Accel-Redirect"] == "/private/four-letters.txt"
        assert response.headers["Content-Disposition"] == "attachment; filename=four-letters.txt"
        assert response.get_data() == b""


def test_download_can_be_asked_for_in_part(client: FlaskClient) -> None:
    with client.get("/download", headers={"Range": "bytes=5-11"}) as response:
        assert response.status_code == HTTPStatus.PARTIAL_CONTENT
        assert response.get_data() == b"letters"


def test_healthz_answers_ok(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert response.status_code == HTTPStatus.OK
    assert response.mimetype == "text/plain"
    assert response.get_data() == b"ok\n"


def test_unknown_address_gets_a_page_with_the_way_back(client: FlaskClient) -> None:
    response = client.get("/no/<such>/page")
    page = response.get_data(as_text=True)
    assert response.status_code == HTTPStatus.NOT_FOUND
    assert response.mimetype == "text/html"
    assert "<code>/no/&lt;such&gt;/page</code>" in page
    assert Elements(page).named("a")[0]["href"] == "/"


def test_a_failure_in_the_code_gets_a_page_that_tells_nothing_of_it(
    app: Flask, example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        message = "the inner reason"
        raise RuntimeError(message)

    monkeypatch.setattr(example, "collect_facts", fail)
    response = app.test_client().get("/")
    page = response.get_data(as_text=True)
    assert response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert "Internal Server Error" in page
    assert "the inner reason" not in page
