"""Dates as HTTP and its logs write them, whatever the app's locale.

Not by email.utils, which takes as long to import as half of this server.
"""

from __future__ import annotations

from time import gmtime

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(moment: int) -> str:
    """Seconds since 1970 as RFC 9110 5.6.7 wants them: `Sun, 06 Nov 1994 08:49:37 GMT`."""
    year, month, day, hour, minute, second, weekday = gmtime(moment)[:7]
    return f"{WEEKDAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"
