"""How a running stack becomes another one: a new plan, whole or not at all, and back to what is parked."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from stack import hop
from stack.desired import Plan, Service
from stack.fleet import Refusal
from stack.supervisor import place, sockets
from stack.supervisor.generations import Generations
from stack.supervisor.hints import telling
from stack.supervisor.log import Log
from stack.supervisor.outcome import Outcome

__all__ = ["Changes"]

LOADED_WITHIN = 1.0  # seconds between two looks whether somebody else's web server has loaded the site


class Changes:
    """`plan` is what the stack is now. Whoever asks for a change holds `one_at_a_time` meanwhile."""

    def __init__(self, plan: Plan, generations: Generations, log: Log) -> None:
        """`generations` are those of the plan."""
        self.plan = plan
        self.one_at_a_time = asyncio.Lock()
        self._generations = generations
        self._log = log
        self._left: dict[str, set[str]] = {}  # links by service that a web server may still look for, though they moved
        self._looking: set[int] = set()  # its workers that may

    async def apply(self, plan: Plan, *, fresh: bool) -> Outcome:
        """Brings the running stack to another plan: apps first, then web servers, then what is gone.

        Whole or not at all: what has been brought so far goes back if something later is refused.
        """
        generations, before = self._generations, self.plan
        if before.user != plan.user:  # who may not make sockets where those of the other are
            return Outcome(
                f"the app would run as {plan.user or 'root'}, and not as {before.user or 'root'} as before",
                hint="`stackctl down`, then `stackctl up`: another user takes a new start.",
                exit_code=1,
            )
        try:
            added = {
                each.address: sockets.listen(each.address, each.backlog)
                for each in plan.listeners
                if each.address not in generations.listeners
            }
        except OSError as error:
            return Outcome(f"cannot listen on a new address: {error}", exit_code=1)
        generations.listeners |= added
        facts, workers = generations.rollouts, generations.workers()
        brought: list[Service] = []
        changes = []
        for service in sorted(plan.services, key=lambda each: each.tier):
            refusal, change = await self._bring(before.service(service.name), service, fresh=fresh)
            if refusal is not None:
                outcome = self.refused(service.name, refusal)
                for each in reversed(brought):
                    await generations.undo(each, facts.get(each.name))
                    old = before.service(each.name)
                    if each.link and (old is None or old.link != each.link):
                        place.unlink(each.link)
                generations.close(set(added))
                return outcome
            brought += [service] if change else []
            changes += [f"{service.name}: {change}"] if change else []
        for name in {each.name for each in before.services} - {each.name for each in plan.services}:
            generations.drop(name)
            changes.append(f"{name}: stopped")
        self.plan = plan
        self._log.kept = plan.logs
        place.remember(plan)
        await self._leave(before, plan, workers)
        generations.close(set(generations.listeners) - {each.address for each in plan.listeners})
        return Outcome(changes=tuple(changes))

    async def _bring(self, old: Service | None, new: Service, *, fresh: bool) -> tuple[Refusal | None, str]:
        """One service to what it shall be; returns why it was refused, or what was done."""
        as_before = old is not None and _lasting(replace(old, keep_previous=new.keep_previous)) == _lasting(new)
        if old is None or (fresh and new.link) or not as_before:
            refusal = await self._generations.replace(old, new)
            return refusal, f"generation {self._generations.rollouts[new.name].current} serves"
        if old.reads != new.reads:
            return await self._generations.reread(new), "read its changed files"
        return None, ""

    async def _leave(self, before: Plan, plan: Plan, workers: set[int]) -> None:
        """Retires what served before. Where a link has got another name, once no web server looks for the old one."""
        for each in plan.services:
            old = before.service(each.name)
            if old is not None and old.link:
                self._looking |= workers if old.link != each.link else set()
                self._left.setdefault(each.name, set()).add(old.link)
                self._left[each.name].discard(each.link)
        self._left = {name: links for name, links in self._left.items() if links and plan.service(name)}
        services = [each for each in plan.services if each.link]
        await self._generations.retire([each for each in services if each.name not in self._left])
        if self._left:
            self._generations.begin(self._leave_later(plan))

    async def _leave_later(self, plan: Plan) -> None:
        """The same, once the web server's workers of before are gone; nobody waits for what they have in hand.

        Of somebody else's it can only be seen that it has loaded the site with the new links.
        """
        at_most = max(each.stop_within for each in plan.services if each.link)  # so long it goes on with that
        if all(each.ours for each in plan.probes):
            await self._generations.until_gone(self._looking, at_most)
        else:
            for probe in plan.probes:
                while probe.hop == "web" and self.plan is plan and not (await hop.check_async(probe)).passed:  # noqa: ASYNC110
                    await asyncio.sleep(LOADED_WITHIN)
            await asyncio.sleep(at_most)
        async with self.one_at_a_time:  # what lingers is not let go under a reload that may want it back
            if self.plan is plan:
                await self._retire_left(plan)

    async def _retire_left(self, plan: Plan) -> None:
        left, self._left, self._looking = self._left, {}, set()
        await self._generations.retire([each for each in plan.services if each.name in left], for_good=True)
        for links in left.values():
            for link in links:
                place.unlink(link)

    async def roll_back(self) -> Outcome:
        """Every app to the generation that served before: it is parked, so that nothing has to start."""
        rollouts = self._generations.rollouts
        apps = [each for each in self.plan.services if each.link]
        parked = {name for name, each in rollouts.items() if each.keeps and each.parked} - set(self._left)
        if without := [each.name for each in apps if each.name not in parked]:
            return Outcome(
                f"nothing to roll back to: no generation of {', '.join(without)} is parked",
                hint="With [server] keep_previous = true a reload parks what served before it; but not across a\n"
                "change of protocol, as no web server would look for it any more.",
                exit_code=1,
            )
        changes, services = [], {}
        for each in apps:
            service = await self._generations.roll_back(each.name)
            services[each.name] = service or each
            changes.append(f"{each.name}: generation {self._generations.rollouts[each.name].current} serves again")
        self.plan = replace(self.plan, services=tuple(services.get(each.name, each) for each in self.plan.services))
        place.remember(self.plan)
        return Outcome(changes=tuple(changes))

    def refused(self, name: str, refusal: Refusal) -> Outcome:
        """Why a service did not come up, and what it said."""
        said = "\n".join(telling(self._generations.words(name, refusal.number)))
        service = self._generations.service(name, refusal.serial)
        answered = service.probe is not None and refusal.reason.startswith("answered")
        hint = service.probe.hint if service.probe and answered else f"`stackctl logs {name}` has all that it said."
        return Outcome(f"{name} did not start: {refusal.reason}", said, hint, 1)


def _lasting(service: Service) -> Service:
    """What cannot change under a running process: its files can, if it reads them again."""
    return replace(service, reads="") if service.reload_signal else service
