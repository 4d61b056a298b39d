"""Faults, injected for real: what goes on nevertheless, with each app server. `make faults` makes docs/faults.md of it.

Where `stack` is asked for, one stack is started for all tests of a column: each must leave it serving. With
E2E_FAULTS the same is done to two stacks configured by hand, of which it is only noted what they do.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest

from tests.faults.peer import Peer

from .client import Load
from .fault import ENGINES, PEERS, THOROUGH, Watch, fault
from .kept import THREADS, Kept, Stack, ended, is_whole, made
from .project import IN_THE_SERVER, ROOT, STACKCTL, lives, until

pytestmark = pytest.mark.e2e

COLUMNS = [
    pytest.param(each, marks=pytest.mark.xdist_group(f"faults of {each}"))
    for each in ENGINES + (PEERS if THOROUGH else ())
]


@pytest.fixture(scope="module")
def stacks() -> Iterator[dict[str, Stack]]:
    """The stacks that run, by column."""
    with contextlib.ExitStack() as ends:
        running: dict[str, Stack] = {}
        yield running
        for each in running.values():
            ends.callback(ended, each)


@pytest.fixture(params=COLUMNS)
def stack(request: pytest.FixtureRequest, stacks: dict[str, Stack]) -> Stack:
    """A stack that serves: the one that the last test has left, if it has left it whole."""
    column = request.param
    if column in stacks and not is_whole(stacks[column]):
        ended(stacks.pop(column))
    if column not in stacks:
        stacks[column] = made(column)
        stacks[column].begin()
    return stacks[column]


@pytest.fixture(params=COLUMNS)
def fresh(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """One that has not been started."""
    stack = made(request.param)
    yield stack
    ended(stack)


@pytest.fixture(params=ENGINES)
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """One under stackctl, not started."""
    stack = Kept(request.param)
    yield stack
    ended(stack)


def says(stack: Stack, *words: str) -> bool:
    """Whether a line of the log matches all of these."""
    return any(all(re.search(word, line) for word in words) for line in stack.log().splitlines())


def visit(stack: Stack, path: str) -> Callable[[], int]:
    """A GET beside the test; what is returned waits for its status, 0 if there was no answer."""
    statuses: list[int] = []

    def ask() -> None:
        try:
            statuses.append(stack.get(path).status)
        except (OSError, HTTPException):
            statuses.append(0)

    visitor = threading.Thread(target=ask)
    visitor.start()

    def status() -> int:
        visitor.join()
        return statuses[0]

    return status


def answers(stack: Stack) -> bool:
    """Whether as many requests as there are threads are answered, one after the other: no worker is left out."""
    try:
        return all(stack.get("/").status == 200 for _ in range(2 * THREADS))
    except (OSError, HTTPException):
        return False


def serves_on(stack: Stack, load: Load, more: int = 30) -> None:
    """Wait for so many good answers more."""
    enough = load.good + more
    until(lambda: load.good >= enough, "requests are answered", stack.within)


def has_another(stack: Stack, name: str, old: int) -> bool:
    """Whether another process serves by now."""
    with contextlib.suppress(AssertionError):
        return stack.pid(name) != old
    return False


def is_replaced(stack: Stack, *victims: int) -> bool:
    """Whether there are as many workers as before, these not among them."""
    workers = stack.workers("app")
    return len(workers) == 2 and not workers & set(victims)


# What is killed.


@fault("supervisor killed")
def test_killed_supervisor_takes_everything_with_it_and_leaves_room_for_the_next(kept: Kept) -> str:
    kept.begin()
    supervisor = psutil.Process(kept.status()["pid"])
    family = [supervisor, *supervisor.children(recursive=True)]
    watch = Watch()
    supervisor.kill()
    until(lambda: not any(map(lives, family)), "all are gone")
    gone = str(watch)
    kept.begin()
    assert kept.get("/").text == "1"
    return f"{len(family)} processes gone after {gone}"


@fault("app server killed")
def test_killed_app_server_is_replaced(stack: Stack) -> str:
    master, workers = stack.pid("app"), stack.workers("app")
    watch = Watch()
    os.kill(master, signal.SIGKILL)
    until(lambda: not any(map(psutil.pid_exists, workers)), "none of its workers is left", stack.within)
    until(lambda: has_another(stack, "app", master) and answers(stack), "another one serves", stack.within)
    return f"back after {watch}"


@fault("worker killed")
def test_killed_worker_costs_at_most_what_it_had_in_hand(stack: Stack) -> str:
    with Load(stack.port, 3, slow=False) as load:
        serves_on(stack, load)
        victim = min(stack.workers("app"))
        watch = Watch()
        os.kill(victim, signal.SIGKILL)
        until(lambda: is_replaced(stack, victim), "another worker", stack.within)
        back = str(watch)
        serves_on(stack, load)
    assert len(load.failed) <= THREADS, f"{len(load.failed)} requests failed: {load.failed}"
    until(lambda: says(stack, str(victim), "SIGKILL|signal 9"), "the log names the signal", stack.within)
    return f"another after {back}; {len(load.failed)} failed"


@fault("nginx killed")
def test_killed_nginx_is_replaced_on_the_same_port(stack: Stack) -> str:
    master = stack.pid("nginx")
    watch = Watch()
    os.kill(master, signal.SIGKILL)
    until(lambda: has_another(stack, "nginx", master) and answers(stack), "another one serves", stack.within)
    back = str(watch)
    assert "SIGKILL" in stack.run("status").out
    assert says(stack, "nginx", "SIGKILL")
    return f"back after {back}"


@fault("nginx worker killed")
def test_killed_worker_of_nginx_is_replaced(stack: Stack) -> str:
    before = stack.workers("nginx")
    victim = min(before)
    watch = Watch()
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(stack.workers("nginx") - {victim}) == len(before), "another one", stack.within)
    assert answers(stack)
    until(lambda: says(stack, str(victim), "signal 9"), "the log tells", stack.within)
    return f"another after {watch}"


# Loops.


AT_ONCE = "os._exit(3)"
SOON = "threading.Timer(0.01, os._exit, (3,)).start()"


def crashing(stack: Stack, end: str) -> Path:
    """Breaks the code: whoever imports it ends so, and leaves a byte in the file that is returned."""
    spawns = stack.event("spawns")
    spawns.touch()
    spawns.chmod(0o666)
    works = (stack.directory / "app.py").read_text()
    stack.write("app.py", f"{works}\nimport threading\nopen({str(spawns)!r}, 'a').write('.')\n{end}\n")
    return spawns


def cpu(processes: list[psutil.Process]) -> float:
    """Seconds that these, and what of theirs has ended, have worked."""
    total = 0.0
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(each.cpu_times()[:4])
    return total


@fault("crash loop at the start")
def test_app_that_ends_its_process_ends_the_start(kept: Kept) -> str:
    kept.write("app.py", IN_THE_SERVER.format("os._exit(3)"))
    watch = Watch()
    done = kept.up("--set", f"server.engine={kept.column}", code=1)
    ends = str(watch)
    assert "app did not start" in done.err
    kept.nothing_is_left()
    kept.write("app.py", IN_THE_SERVER.format("1 / 0"))
    assert "ZeroDivisionError" in kept.up("--set", f"server.engine={kept.column}", code=1).err
    kept.nothing_is_left()
    return f"refused after {ends}"


@fault("crash loop later")
def test_crash_loop_is_slowed_down_and_ends_when_the_code_is_mended(fresh: Stack) -> str:
    return slowed_down(fresh, AT_ONCE)


@fault("crash loop of what was ready")
def test_crash_loop_of_workers_that_were_ready_is_slowed_down_too(fresh: Stack) -> str:
    return slowed_down(fresh, SOON)


def slowed_down(fresh: Stack, end: str) -> str:
    """Has a worker killed whose successors end so; how many there were."""
    fresh.begin()
    works = (fresh.directory / "app.py").read_text()
    spawns = crashing(fresh, end)
    span = 30.0 if THOROUGH else 4.0
    before, began = cpu(fresh.processes()), time.monotonic()
    os.kill(min(fresh.workers("app")), signal.SIGKILL)
    until(lambda: time.monotonic() > began + span, "the span in which spawns are counted", 2 * span)
    tried, worked = spawns.stat().st_size, (cpu(fresh.processes()) - before) / span
    # How many there may be is a matter of the pauses alone: a busy machine has fewer.
    assert 0 < tried <= 10, f"{tried} spawns in {span:g} s"
    fresh.write("app.py", works)
    until(lambda: is_whole(fresh), "it serves again", fresh.within)
    return f"{tried} spawns in {span:g} s, {100 * worked:.0f} % CPU"


# Reloads.

BROKEN = {
    "SyntaxError": "def broken(:\n",
    "no_such_module": "import no_such_module\n",
    "no database": "raise LookupError('no database')\n",
}


@fault("broken code at a reload")
def test_reload_to_broken_code_fails_no_request(stack: Stack) -> str:
    works = (stack.directory / "app.py").read_text()
    try:
        with Load(stack.port, 3, slow=False) as load:
            serves_on(stack, load)
            for reason, code in BROKEN.items():
                stack.write("app.py", code)
                if isinstance(stack, Kept):
                    refused = stack.reload(code=3)
                    assert reason in refused.err
                else:
                    stack.ask_to_reload()
                    until(lambda reason=reason: says(stack, reason), f"{reason} is told", stack.within)  # type: ignore[misc]
                serves_on(stack, load, 500 // len(BROKEN) if THOROUGH else 30)
    finally:
        stack.write("app.py", works)
    assert not load.failed, f"{len(load.failed)} requests failed"
    return f"0 of {load.good} failed"


@fault("reload under load")
def test_reloads_fail_no_request(stack: Stack) -> str:
    times = 10 if THOROUGH else 2
    with Load(stack.port, 16 if THOROUGH else 4) as load:
        serves_on(stack, load)
        for number in range(times):
            stack.write("version.txt", f"{number}")
            stack.reload()
            until(lambda number=number: stack.get("/").text == f"{number}", "the new code answers", stack.within)  # type: ignore[misc]
            serves_on(stack, load, 150 if THOROUGH else 30)
    stack.write("version.txt", "1")
    stack.reload()
    assert not load.failed, f"{len(load.failed)} of {load.good + len(load.failed)} requests failed"
    return f"0 of {load.good} failed"


@fault("more and fewer workers")
def test_other_numbers_of_workers_fail_no_request(fresh: Stack) -> str:
    fresh.begin()
    with Load(fresh.port, 4, slow=False) as load:
        serves_on(fresh, load)
        for workers in (8 if THOROUGH else 4, 1):
            fresh.scale(workers)
            until(lambda workers=workers: len(fresh.workers("app")) == workers, f"{workers} workers", fresh.within)  # type: ignore[misc]
            serves_on(fresh, load)
    assert not load.failed, f"{len(load.failed)} of {load.good + len(load.failed)} requests failed"
    return f"0 of {load.good} failed"


# What is stuck, or stands still.


@fault("stuck in Python")
def test_endless_request_is_ended_at_its_limit_and_shown(stack: Stack) -> str:
    before = stack.workers("app")
    watch = Watch()
    status = visit(stack, "/loop")()
    answered = str(watch)
    assert status in (502, 504), f"the answer was {status}"
    until(lambda: before - stack.workers("app"), "the worker is replaced", stack.within)
    until(lambda: is_whole(stack), "it is whole again", stack.within)
    until(lambda: says(stack, "GET /loop"), "the log has the request", stack.within)
    until(lambda: says(stack, "in loop"), "the log has the stack", stack.within)
    return f"{status} after {answered}, of {stack.timeout} s"


@fault("stuck in C")
def test_request_stuck_in_c_is_ended(stack: Stack) -> str:
    before = stack.workers("app")
    watch = Watch()
    status = visit(stack, "/sleep-in-c")
    until(lambda: before - stack.workers("app"), "the worker is killed", stack.within)
    killed = str(watch)
    assert status() in (502, 504)
    until(lambda: is_whole(stack), "it is whole again", stack.within)
    if stack.column in ENGINES:
        until(lambda: says(stack, "in sleep_in_c"), "the log has the stack", stack.within)
    return f"killed after {killed}, of {stack.timeout} s"


@fault("worker stopped")
def test_stopped_worker_is_replaced(stack: Stack) -> str:
    victim = min(stack.workers("app"))
    watch = Watch()
    os.kill(victim, signal.SIGSTOP)
    until(lambda: is_replaced(stack, victim), "another worker", stack.within)
    replaced = str(watch)
    until(lambda: answers(stack), "it answers", stack.within)
    return f"replaced after {replaced}"


@fault("supervisor stopped")
def test_stopped_supervisor_is_told_by_health(kept: Kept) -> str:
    kept.begin()
    supervisor = psutil.Process(kept.status()["pid"])
    supervisor.suspend()
    watch = Watch()
    done = kept.run("health", code=4)
    told = str(watch)
    assert f"the supervisor (pid {supervisor.pid}) does not answer" in done.out + done.err
    assert kept.get("/").text == "1"
    supervisor.resume()
    kept.run("health")
    return f"told after {told}"


# What runs out.


def limit(process: psutil.Process, *options: str) -> str:
    """prlimit(1) on a process, as its own user: root may not do so to others' where it lacks CAP_SYS_RESOURCE."""
    user, group = process.uids().real, process.gids().real
    words = ["prlimit", f"--pid={process.pid}", *options]
    return subprocess.run(words, user=user, group=group, capture_output=True, text=True, check=True).stdout.strip()


def taken(worker: psutil.Process) -> int:
    """How many of the descriptors that it may have; none if it has ended of that, to be replaced."""
    with contextlib.suppress(FileNotFoundError):
        return sum(int(fd.name) < 20 for fd in Path(f"/proc/{worker.pid}/fd").iterdir())
    return 0


@fault("no descriptors")
def test_workers_without_descriptors_do_not_spin_and_recover(stack: Stack) -> str:
    workers = [psutil.Process(each) for each in stack.workers("app")]
    limits = [limit(each, "--nofile", "--output=SOFT", "--noheadings") for each in workers]
    for each in workers:
        limit(each, "--nofile=20:")
    try:
        with contextlib.ExitStack() as silent:
            for _ in range(60):
                client = silent.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(stack.link()))
            before, began = cpu(workers), time.monotonic()
            until(lambda: time.monotonic() > began + 1, "the span in which the work is measured")
            worked = (cpu(workers) - before) / (time.monotonic() - began)
            used = max(map(taken, workers))
        watch = Watch()
        until(lambda: answers(stack), "it answers again", stack.within)
        recovered = str(watch)
    finally:
        for each, soft in zip(workers, limits, strict=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                limit(each, f"--nofile={soft}:")
    assert worked < 0.5, f"{100 * worked:.0f} % CPU for nothing"
    return f"{used} of 20 taken: {100 * worked:.0f} % CPU; back after {recovered}"


@fault("out of memory")
def test_worker_without_memory_is_replaced_and_the_log_says_why(stack: Stack) -> str:
    before = stack.workers("app")
    for each in map(psutil.Process, before):
        limit(each, f"--as={each.memory_info().vms + (128 << 20)}:")
    watch = Watch()
    status = stack.get("/hoard").status
    assert status in (500, 502), f"the answer was {status}"
    until(lambda: before - stack.workers("app"), "its worker is replaced", stack.within)
    until(lambda: is_whole(stack), "it is whole again", stack.within)
    replaced = str(watch)
    until(lambda: says(stack, "[Mm]emory"), "the log names memory", stack.within)
    for survivor in before & stack.workers("app"):
        limit(psutil.Process(survivor), "--as=unlimited:")
    return f"{status}; replaced after {replaced}"


@fault("queue full")
def test_more_visitors_than_the_queue_holds_are_refused_at_once(fresh: Stack) -> str:
    fresh.timeout, fresh.backlog = 30, 32
    fresh.begin()
    go_on = fresh.event("go-on")
    request = f"GET /wait?path={go_on} HTTP/1.0\r\nHost: site\r\n\r\n".encode()
    watch = Watch()
    with contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(socket.create_connection(("127.0.0.1", fresh.port))) for _ in range(500)]
        for each in clients:
            each.sendall(request)
            each.setblocking(False)
        statuses: dict[socket.socket, bytes] = {}

        def refused() -> int:
            for each in clients:
                if each not in statuses:
                    with contextlib.suppress(BlockingIOError):
                        statuses[each] = each.recv(100)[9:12]
            return sum(each in (b"502", b"503") for each in statuses.values())

        until(lambda: refused() >= 300, "most of 500 are refused", fresh.within)
        told = f"{refused()} of 500 refused after {watch}"
    go_on.touch()
    watch = Watch()
    until(lambda: answers(fresh), "normal again", fresh.within)
    return f"{told}; normal after {watch}"


@fault("leaks")
def test_nothing_is_leaked_by_requests_nor_by_deaths(stack: Stack) -> str:
    requests, deaths = (10_000, 8) if THOROUGH else (1_000, 2)

    def family() -> list[psutil.Process]:
        return [psutil.Process(stack.pid(each)) for each in ("app", "nginx")] + [
            psutil.Process(each) for name in ("app", "nginx") for each in sorted(stack.workers(name))
        ]

    def descriptors() -> int:
        return sum(each.num_fds() for each in family())

    def more() -> str:
        told = ", ".join(f"{each.name()} {each.num_fds()}" for each in family())
        return f"no more descriptors than before, {fds}, but {told}"

    def memory() -> int:
        return sum(each.memory_info().rss for each in family())

    def ask(number: int) -> None:
        for _ in range(number // 50):
            with contextlib.closing(HTTPConnection("127.0.0.1", stack.port)) as visitor:
                for _ in range(50):
                    visitor.request("GET", "/")
                    assert visitor.getresponse().read()

    def is_settled() -> bool:
        """Whether each worker has answered, and stays: one that still loads has not opened all of its descriptors."""
        before = stack.workers("app")
        ask(requests // 4)
        with ThreadPoolExecutor(8) as visitors:
            told = set(visitors.map(lambda _: stack.get("/pid").text, range(16)))
        return is_whole(stack) and told >= {str(each) for each in before} and stack.workers("app") == before

    until(is_settled, "what a test before has made leave is replaced", stack.within)
    fds, rss = descriptors(), memory()
    ask(requests)
    grown = memory() / rss - 1
    for _ in range(deaths):
        victim = min(stack.workers("app"))
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: is_replaced(stack, victim), "another worker", stack.within)  # type: ignore[misc]
    until(lambda: answers(stack), "it answers", stack.within)
    ask(requests // 4)
    until(lambda: is_whole(stack) and descriptors() <= fds + 2, more, stack.within)
    zombies = [each for each in stack.processes() if not lives(each)]
    assert not zombies
    assert grown < 0.1, f"memory grew by {100 * grown:.0f} %"
    return f"memory {100 * grown:+.1f} % over {requests} requests; descriptors {descriptors() - fds:+d}, no zombie"


# Visitors.


@fault("slow visitors")
def test_visitors_who_dribble_hold_nobody_up(stack: Stack) -> str:
    heads = [
        b"GET / HTTP/1.1\r\nHost: site\r\nX: ",
        b"POST /echo HTTP/1.1\r\nHost: site\r\nContent-Length: 1000\r\n\r\n",
    ]
    with contextlib.ExitStack() as crowd:
        slow = [crowd.enter_context(socket.create_connection(("127.0.0.1", stack.port))) for _ in range(200)]
        for number, each in enumerate(slow):
            each.sendall(heads[number % 2])
        times = []
        for number in range(100):
            for each in slow[number % 10 :: 10]:
                each.sendall(b"x")
            began = time.monotonic()
            assert stack.get("/").status == 200
            times.append(time.monotonic() - began)
    return f"99 % of the others' answers within {1000 * statistics.quantiles(times, n=100)[98]:.0f} ms"


@fault("visitor gone")
def test_answer_is_closed_when_the_visitor_has_gone(stack: Stack) -> str:
    closed = stack.event(f"closed-{time.monotonic_ns()}")
    with socket.create_connection(("127.0.0.1", stack.port)) as visitor:
        visitor.sendall(f"GET /endless?path={closed} HTTP/1.1\r\nHost: site\r\n\r\n".encode())
        assert visitor.recv(1000).startswith(b"HTTP/1.1 200")
    watch = Watch()
    until(closed.exists, "the answer is closed", stack.within)
    return f"closed after {watch}"


# Around it.


def with_a_clock(stack: Stack) -> Path:
    """Gives a stack that has not begun a clock of its own: the file that says by how many seconds it is wrong."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the clock is moved by a library that is made here: apt install gcc libc6-dev")
    library, clock = stack.place / "clock.so", stack.event("clock")
    source = ROOT / "tests" / "faults" / "clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    clock.write_text("0")
    stack.extra = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(clock)}
    return clock


@fault("clock jumps")
def test_jumping_clock_kills_nobody(fresh: Stack) -> str:
    clock = with_a_clock(fresh)
    fresh.begin()
    workers, at = fresh.workers("app"), 0.0
    for jump in (3600, -86400):
        in_hand = visit(fresh, "/slow?seconds=1.5")
        assert answers(fresh)
        clock.write_text(str(jump))
        at = float(fresh.get("/time").text)
        assert abs(at - time.time() - jump) < 600, "the clock has jumped"
        assert in_hand() == 200, f"a request in hand failed at {jump:+} s"
        assert answers(fresh)
        assert fresh.workers("app") == workers, f"workers were replaced at {jump:+} s"
    return "no request failed, nobody was replaced"


def test_jumping_clock_cuts_nothing_off_that_a_retired_generation_has_in_hand(kept: Kept) -> None:
    clock = with_a_clock(kept)
    kept.timeout = 30
    kept.begin()
    go_on, begun = kept.event("go-on"), kept.event("go-on.begun")
    in_hand = visit(kept, f"/wait?path={go_on}")
    until(begun.exists, "the request is in hand")
    kept.reload()
    clock.write_text("3600")
    assert kept.get("/slow?seconds=1").status == 200, "time enough to look at the clock"
    go_on.touch()
    assert in_hand() == 200


@fault("started without stdin, stdout, stderr")
def test_started_without_its_first_descriptors_it_serves(fresh: Stack) -> str:
    closing = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    if isinstance(fresh, Peer):
        fresh.before = closing
    else:
        fresh.command = (*closing, *STACKCTL)
    fresh.begin()
    assert answers(fresh)
    assert fresh.post("/echo", b"x" * 100_000).body == b"x" * 100_000
    if isinstance(fresh, Kept):
        fresh.command = STACKCTL
        fresh.reload()
        assert answers(fresh)
    return "serves"


@fault("app raises what ends a process")
def test_what_ends_a_process_is_one_failed_request(stack: Stack) -> str:
    workers = stack.workers("app")
    for path in (*(f"/fail?name={each}" for each in ("SystemExit", "KeyboardInterrupt")), "/recurse"):
        status = stack.get(path).status
        assert status == 500, f"{path}: {status}"
        assert stack.workers("app") == workers, f"{path} has cost a worker"
    assert stack.get("/fail?name=MemoryError").status == 500, "MemoryError"
    until(lambda: is_whole(stack), "it is whole", stack.within)
    return "500 each; the workers stay"


@fault("socket removed")
def test_removed_socket_is_named_by_health_and_put_right_by_a_reload(stack: Stack) -> str:
    link = stack.link()
    removed = link.resolve()
    removed.unlink()
    told = ""
    if isinstance(stack, Kept):
        watch = Watch()
        assert f"{removed.name}, which is gone" in stack.run("health", code=4).out
        told = f"named after {watch}; "
    watch = Watch()
    stack.reload()
    until(lambda: answers(stack), "it answers again", stack.within)
    return f"{told}right after {watch}"
