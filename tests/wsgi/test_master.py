"""What the master decides without a process."""

from __future__ import annotations

import pytest

from stack.wsgi.arguments import settings
from stack.wsgi.master import most_requests

DRAWN = 500  # workers: that one of eleven numbers is not among theirs does not happen


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--max-requests", "100", "--max-requests-jitter", "10"], {*range(100, 111)}),
        (["--max-requests", "100"], {100}),
        (["--max-requests-jitter", "10"], {0}),
    ],
    ids=["by chance", "all the same", "any number"],
)
def test_workers_may_have_so_many_requests(arguments: list[str], found: set[int]) -> None:
    made = settings(["shop:app", "--bind", "127.0.0.1:80", *arguments])
    assert {most_requests(made) for _ in range(DRAWN)} == found
