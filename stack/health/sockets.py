"""Whether the web server can get to an app's socket: the link, what it leads to, every directory on the way."""

from __future__ import annotations

import stat
from pathlib import Path

from stack.desired import Plan, Service
from stack.facts.access import hindrance, of_group, of_user
from stack.health.finding import Finding, found

__all__ = ["socket"]

RELOAD = "`stackctl reload` starts a new generation on a socket of its own, and moves the link there."


def socket(service: Service, plan: Plan) -> Finding:
    """Looks at the link of one app's service."""

    def look() -> tuple[str, str, str]:
        link = Path(service.link)
        if not link.is_symlink():
            return "", "the link is gone", RELOAD
        target = link.readlink().name
        if not link.exists():
            return "", f"the link leads to {target}, which is gone", RELOAD
        if not stat.S_ISSOCK(link.stat().st_mode):
            return "", f"{target} is not a socket", RELOAD
        who = of_group(plan.group) if plan.group else of_user(plan.user)
        problem = hindrance(service.link, who, stat.S_IWOTH)
        return (
            f"{target}, open to {who.name}",
            problem,
            f"Let it pass there: the directories want x, the socket w. {RELOAD}",
        )

    return found("socket", f"socket of {service.name}", service.link, look)
