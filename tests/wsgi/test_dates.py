"""Dates on the wire, held against the standard library's."""

from __future__ import annotations

from email.utils import formatdate

from hypothesis import example, given
from hypothesis.strategies import integers

from stack.wsgi.dates import http_date


@given(integers(0, 253402300799))  # to the end of 9999
@example(784111777)  # RFC 9110 5.6.7
@example(951782400)  # 29 February
def test_date_is_that_of_the_standard_library(moment: int) -> None:
    assert http_date(moment) == formatdate(moment, usegmt=True)
