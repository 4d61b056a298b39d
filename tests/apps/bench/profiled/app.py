"""The least that a WSGI app can be, in a process that is profiled: /profile tells where each thread's CPU time went.

Each thread that is started after this module was imported has a profile of its own, on that thread's CPU clock.
"""

import cProfile
import json
import sys
import threading
import time

SAYS = b"hello\n"

profiles = []
answered = 0


def begin(frame, event, argument):  # noqa: ARG001 - what threading calls as a thread begins
    profile = cProfile.Profile(time.thread_time)
    profiles.append(profile)
    sys.setprofile(None)
    profile.enable()


threading.setprofile(begin)


def app(environ, start_response):
    global answered  # noqa: PLW0603 - one process
    if environ["PATH_INFO"] == "/profile":
        says = json.dumps({"answered": answered, "functions": functions()}).encode()
    else:
        answered += 1
        says = SAYS
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(says)))])
    return [says]


def functions():
    """Where, calls, and seconds without what is called from there; of all threads together."""
    found = {}
    for profile in profiles:
        for each in profile.getstats():
            code = each.code
            where = code if isinstance(code, str) else f"{code.co_filename}:{code.co_firstlineno} {code.co_name}"
            calls, seconds = found.get(where, (0, 0.0))
            found[where] = calls + each.callcount, seconds + each.inlinetime
    return [[where, calls, seconds] for where, (calls, seconds) in found.items()]
