"""The fleet's decisions, told as histories: what happened at which moment, and what was to be done then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stack.child import Act, Child, Policy, State, pause
from stack.fleet import Action, Fleet, Generation, Refusal, Rollout

POLICY = Policy(
    start_within=30.0, stop_within=10.0, kill_again_after=1.0, pause_first=0.5, pause_most=15.0, stable_after=10.0
)


class Story:
    """A stack whose runner does at once whatever is due, and writes it down as `moment act service number`."""

    def __init__(self, **tiers: int) -> None:
        """The services by name, each with its tier; one called `app` unless told otherwise."""
        self.fleet = Fleet({name: Rollout(POLICY, tier=tier) for name, tier in (tiers or {"app": 0}).items()})
        self.now = 0.0
        self.done: list[str] = []
        self.reasons: list[str] = []
        self._act()

    def play(self, *script: tuple[float, str]) -> list[str]:
        """Let each event happen at its moment, and all that falls due before it; what was done in the meantime.

        Events are `stop`, `wait`, `SERVICE joins TIER`, `SERVICE leaves`, `SERVICE wishes SERIAL` and
        `SERVICE NUMBER ready | failed | fenced | ended`. Those with a comma between are told before anything is done.
        """
        already = len(self.done)
        for moment, event in script:
            while (wake_at := self.fleet.wake_at()) is not None and wake_at < moment:
                assert wake_at > self.now, f"woken at {wake_at} although nothing is due"
                self.now = wake_at
                self._act()
            self.now = moment
            for each in event.split(", "):
                self.fleet = self._told(each)
            self._act()
        return self.done[already:]

    @property
    def app(self) -> Rollout:
        return self.fleet.rollouts["app"]

    @property
    def spawned_at(self) -> list[float]:
        return [float(line.split()[0]) for line in self.done if " spawn " in line]

    def _act(self) -> None:
        for _ in range(10):
            actions = self.fleet.actions(self.now)
            if not actions:
                return
            for action in actions:
                self.done.append(f"{self.now:g} {action.act.value} {action.service} {action.number}")
                self.reasons.append(action.reason)
                self.fleet = self.fleet.with_rollout(action.service, self._obeyed(action))
        raise AssertionError(f"at {self.now} the work never ends: {self.done[-5:]}")

    def _obeyed(self, action: Action) -> Rollout:
        rollout = self.fleet.rollouts[action.service]
        match action.act:
            case Act.SPAWN:
                return rollout.spawned(action.number, 1000 + action.number, self.now)
            case Act.LINK:
                return rollout.became_current(action.number)
            case Act.FENCE:
                return rollout.began_fence(action.number)
            case _:
                return rollout.after(action.act, action.number, self.now)

    def _told(self, event: str) -> Fleet:
        match event.split():
            case ["stop"]:
                return self.fleet.stopped()
            case ["wait"]:
                return self.fleet
            case [name, "joins", tier]:
                return self.fleet.with_rollout(name, Rollout(POLICY, tier=int(tier)))
            case [name, *news]:
                return self.fleet.with_rollout(name, self._heard(self.fleet.rollouts[name], news))
        raise AssertionError(f"not an event: {event}")

    def _heard(self, rollout: Rollout, news: list[str]) -> Rollout:
        match news:
            case ["leaves"]:
                return replace(rollout, stopping=True)
            case ["wishes", serial]:
                return rollout.wishes(int(serial))
            case [number, "ready"]:
                return rollout.became_ready(int(number), self.now)
            case [number, "failed"]:
                return rollout.failed(int(number), "it answers 500", self.now)
            case [number, "fenced"]:
                return rollout.ended_fence(int(number))
            case [number, "ended"]:
                return rollout.ended(int(number), "exited with 3", self.now)
        raise AssertionError(f"not news of a service: {news}")


def serving() -> Story:
    """A stack of one app whose first generation serves since the moment 1."""
    story = Story()
    story.play((1, "app 1 ready"))
    return story


def reloading() -> Story:
    """The same, whose second generation was spawned at the moment 5 and is starting."""
    story = serving()
    story.play((5, "app wishes 2"))
    return story


def crashing(until: float) -> Story:
    """A stack of one app whose every generation becomes ready at once, and dies at once."""
    story = Story()
    while story.now < until and story.app.count < 100:
        number = story.app.count
        if story.app.generation(number) is None:
            story.play((min(until, story.app.retry_at), "wait"))
        else:
            story.play((story.now, f"app {number} ready"), (story.now, f"app {number} ended"))
    return story


# A child.


@pytest.mark.parametrize(
    ("child", "state"),
    [
        (Child(), State.ABSENT),
        (Child(pid=7, spawned_at=1.0), State.STARTING),
        (Child(pid=7, spawned_at=1.0, ready_at=2.0), State.READY),
        (Child(pid=7, spawned_at=1.0, asked_at=3.0), State.STOPPING),
        (Child(pid=7, spawned_at=1.0, ready_at=2.0, asked_at=3.0), State.STOPPING),
        (Child(pid=7, spawned_at=1.0, killed_at=4.0), State.KILLED),
        (Child(pid=7, spawned_at=1.0, ready_at=2.0, asked_at=3.0, killed_at=4.0), State.KILLED),
    ],
)
def test_the_latest_fact_decides_the_state(child: Child, state: State) -> None:
    assert child.state is state


CHILDREN = {
    State.ABSENT: Child(),
    State.STARTING: Child(pid=7, spawned_at=100.0),
    State.READY: Child(pid=7, spawned_at=100.0, ready_at=101.0),
    State.STOPPING: Child(pid=7, spawned_at=100.0, ready_at=101.0, asked_at=102.0),
    State.KILLED: Child(pid=7, spawned_at=100.0, ready_at=101.0, asked_at=102.0, killed_at=112.0),
}


@pytest.mark.parametrize(
    ("state", "wanted", "deadline"),
    [
        (State.ABSENT, True, None),
        (State.ABSENT, False, None),
        (State.STARTING, True, (130.0, Act.KILL)),
        (State.STARTING, False, (100.0, Act.ASK)),
        (State.READY, True, None),
        (State.READY, False, (100.0, Act.ASK)),
        (State.STOPPING, True, (112.0, Act.KILL)),
        (State.STOPPING, False, (112.0, Act.KILL)),
        (State.KILLED, True, (113.0, Act.KILL)),
        (State.KILLED, False, (113.0, Act.KILL)),
    ],
    ids=lambda value: value.value if isinstance(value, State) else None,
)
def test_the_table_of_a_child(state: State, wanted: bool, deadline: tuple[float, Act] | None) -> None:  # noqa: FBT001
    child = CHILDREN[state]
    assert child.state is state
    assert child.deadline(POLICY, wanted=wanted) == deadline
    if deadline is None:
        assert child.due(POLICY, float("inf"), wanted=wanted) is None
    else:
        moment, act = deadline
        assert child.due(POLICY, moment - 0.001, wanted=wanted) is None
        assert child.due(POLICY, moment, wanted=wanted) is act


def test_a_child_remembers_when_it_was_asked_and_when_it_was_killed() -> None:
    asked = CHILDREN[State.READY].after(Act.ASK, 102.0)
    assert asked == CHILDREN[State.STOPPING]
    assert asked.after(Act.KILL, 112.0) == CHILDREN[State.KILLED]


@pytest.mark.parametrize("act", [Act.SPAWN, Act.LINK, Act.FENCE])
def test_a_child_is_asked_or_killed_and_nothing_else(act: Act) -> None:
    with pytest.raises(ValueError, match=act.value):
        CHILDREN[State.READY].after(act, 102.0)


def test_a_child_is_stable_once_it_was_ready_for_long_enough() -> None:
    child = CHILDREN[State.READY]
    assert not child.was_stable(POLICY, 110.9)
    assert child.was_stable(POLICY, 111.0)
    assert not CHILDREN[State.STARTING].was_stable(POLICY, 1000.0)


def test_the_pause_is_nothing_at_first_and_then_doubles_up_to_a_limit() -> None:
    assert [pause(POLICY, failures) for failures in range(10)] == [0, 0, 0.5, 1, 2, 4, 8, 15, 15, 15]
    assert pause(POLICY, 1_000_000) == 15


# A rollout.


def test_the_first_generation_is_spawned_and_gets_the_link_once_it_is_ready() -> None:
    story = Story()
    assert story.done == ["0 spawn app 1"]
    assert story.play((3, "app 1 ready")) == ["3 move the link to app 1"]
    assert (story.app.current, story.app.proven) == (1, 1)


def test_link_moves_only_to_a_ready_generation() -> None:
    story = reloading()
    assert story.play((34, "wait")) == []
    assert story.app.current == 1
    assert story.play((34.5, "app 2 ready")) == ["34.5 move the link to app 2", "34.5 fence app 1"]
    assert story.app.current == 2


def test_fence_comes_before_asking_the_old_to_stop() -> None:
    story = reloading()
    script = ((7, "app 2 ready"), (9, "app 1 fenced"), (12, "app 1 ended"), (100, "wait"))
    assert story.play(*script) == ["7 move the link to app 2", "7 fence app 1", "9 ask to stop app 1"]
    assert [each.number for each in story.app.generations] == [2]


def test_an_old_generation_is_left_alone_as_long_as_its_fence_is_not_answered() -> None:
    story = reloading()
    story.play((7, "app 2 ready"))
    assert story.play((1000, "wait")) == []


def test_an_old_generation_that_dies_behind_its_fence_is_forgotten() -> None:
    story = reloading()
    story.play((7, "app 2 ready"))
    assert story.play((8, "app 1 ended"), (9, "app 1 fenced"), (100, "wait")) == []
    assert (story.app.current, story.app.failures, story.app.restarts) == (2, 0, 0)


def test_an_old_generation_that_does_not_stop_is_killed_until_it_is_gone() -> None:
    story = reloading()
    story.play((7, "app 2 ready"), (8, "app 1 fenced"))
    assert story.play((20.5, "app 1 ended"), (100, "wait")) == ["18 kill app 1", "19 kill app 1", "20 kill app 1"]


def test_failed_successor_leaves_the_old_serving() -> None:
    story = reloading()
    assert story.play((6, "app 2 ended"), (100, "wait")) == []
    assert (story.app.current, story.app.serial) == (1, 1)
    assert story.app.refusal == Refusal(2, 2, "exited with 3")
    assert story.fleet.gave_up is None


def test_a_successor_whose_probe_fails_is_asked_to_stop_at_once() -> None:
    story = reloading()
    assert story.play((6, "app 2 failed"), (7, "app 2 ended"), (100, "wait")) == ["6 ask to stop app 2"]
    assert story.app.refusal == Refusal(2, 2, "it answers 500")
    assert (story.app.current, story.app.serial, story.app.failures) == (1, 1, 1)


def test_not_ready_in_time_is_killed_and_refused() -> None:
    story = reloading()
    assert story.play((35.5, "app 2 ended"), (100, "wait")) == ["35 kill app 2"]
    assert story.reasons[-1] == "not ready within 30 s"
    assert story.app.current == 1
    assert story.app.refusal == Refusal(2, 2, "exited with 3")


def test_ready_told_too_late_changes_nothing() -> None:
    story = reloading()
    story.play((35, "wait"))
    assert story.play((35.5, "app 2 ready")) == []
    assert story.app.current == 1


def test_a_successor_that_dies_ready_but_not_yet_linked_is_refused() -> None:
    story = reloading()
    assert story.play((7, "app 2 ready, app 2 ended"), (100, "wait")) == []
    assert story.app.refusal == Refusal(2, 2, "exited with 3")
    assert (story.app.current, story.app.serial) == (1, 1)


def test_second_wish_supersedes_the_first() -> None:
    story = reloading()
    script = ((6, "app wishes 3"), (8, "app 2 ended"), (10, "app 3 ready"))
    assert story.play(*script) == [
        "6 ask to stop app 2",
        "8 spawn app 3",
        "10 move the link to app 3",
        "10 fence app 1",
    ]
    assert (story.app.proven, story.app.refusal) == (3, None)


def test_a_generation_that_became_ready_as_another_was_wished_is_not_linked() -> None:
    story = reloading()
    assert story.play((6, "app 2 ready, app wishes 3")) == ["6 ask to stop app 2"]


def test_a_superseded_generation_that_fails_does_not_take_the_newer_wish_along() -> None:
    story = reloading()
    script = ((6, "app wishes 3, app 2 failed"), (7, "app 2 ended"))
    assert story.play(*script) == ["6 ask to stop app 2", "7 spawn app 3"]
    assert (story.app.serial, story.app.refusal) == (3, None)


def test_a_wish_for_what_serves_already_only_gives_up_the_successor() -> None:
    story = reloading()
    assert story.play((6, "app wishes 1"), (7, "app 2 ended"), (100, "wait")) == ["6 ask to stop app 2"]
    assert (story.app.current, story.app.refusal) == (1, None)


def test_a_wish_that_is_taken_back_and_made_again_is_tried_again() -> None:
    story = reloading()
    script = ((6, "app wishes 1"), (7, "app wishes 2"), (8, "app 2 ended"))
    assert story.play(*script) == ["6 ask to stop app 2", "8 spawn app 3"]
    assert (story.app.serial, story.app.refusal) == (2, None)


def test_a_refused_wish_may_be_made_again_while_its_first_attempt_is_still_stopping() -> None:
    story = reloading()
    script = ((6, "app 2 failed"), (7, "app wishes 2"), (8, "app 2 ended"))
    assert story.play(*script) == ["6 ask to stop app 2", "8 spawn app 3"]
    assert (story.app.serial, story.app.refusal) == (2, None)


def test_a_refused_wish_made_again_at_the_same_moment_is_not_served_by_the_failed_attempt() -> None:
    story = reloading()
    script = ((6, "app 2 failed, app wishes 2, app 2 ready"), (7, "app 2 ended"))
    assert story.play(*script) == ["6 ask to stop app 2", "7 spawn app 3"]


def test_a_refusal_is_remembered_until_the_next_wish() -> None:
    story = reloading()
    story.play((6, "app 2 ended"))
    refusal = Refusal(2, 2, "exited with 3")
    assert story.play((20, "app 1 ended"), (21, "app 3 ready")) == ["20 spawn app 3", "21 move the link to app 3"]
    assert story.app.refusal == refusal
    story.play((22, "app 3 ended"), (24, "app 4 ended"))
    assert story.app.refusal == refusal
    story.play((25, "app wishes 5"))
    assert story.app.refusal is None


def test_a_generation_that_dies_is_replaced_at_once_and_then_with_growing_pauses() -> None:
    story = crashing(until=60)
    assert story.spawned_at == [0, 0, 0.5, 1.5, 3.5, 7.5, 15.5, 30.5, 45.5]
    assert story.app.restarts == 9


def test_the_link_of_a_generation_that_died_is_nobodys() -> None:
    story = serving()
    story.play((60, "app 1 ended"))
    assert (story.app.current, story.app.proven) == (None, 1)


def test_a_stable_run_ends_the_series_of_failures() -> None:
    story = serving()
    story.play((2, "app 1 ended"), (3, "app 2 ready"), (4, "app 2 ended"), (6, "app 3 ready"))
    assert story.app.failures == 2
    assert story.play((16, "app 3 ended")) == ["16 spawn app 4"]
    assert story.app.failures == 1


def test_a_wish_ends_the_series_of_failures() -> None:
    story = serving()
    assert story.play((1, "app 1 ended"), (1, "app 2 ended")) == ["1 spawn app 2"]
    assert story.play((1.2, "app wishes 2")) == ["1.2 spawn app 3"]


def test_crash_loop_spawns_at_most_ten_times_in_thirty_seconds() -> None:
    story = crashing(until=30)
    assert len(story.spawned_at) == 7


def test_a_proven_serial_that_does_not_come_up_again_is_tried_on_and_on() -> None:
    story = serving()
    assert story.play((60, "app 1 ended"), (61, "app 2 ended"), (62, "app 3 ended"), (64, "wait")) == [
        "60 spawn app 2",
        "61.5 spawn app 3",
        "63 spawn app 4",
    ]
    assert story.app.refusal is None
    assert story.fleet.gave_up is None


def test_a_proven_serial_whose_probe_fails_is_asked_to_stop_at_once_and_counted_once() -> None:
    story = serving()
    script = ((60, "app 1 ended"), (61, "app 2 failed"), (62, "app 2 ended"))
    assert story.play(*script) == ["60 spawn app 2", "61 ask to stop app 2", "62 spawn app 3"]
    assert (story.app.failures, story.app.restarts) == (2, 2)


def test_a_successor_goes_on_starting_when_the_old_dies() -> None:
    story = reloading()
    assert story.play((6, "app 1 ended"), (8, "app 2 ready")) == ["8 move the link to app 2"]
    assert (story.app.current, story.app.proven) == (2, 2)


def test_when_old_and_successor_both_die_the_proven_one_comes_back() -> None:
    story = reloading()
    script = ((6, "app 1 ended"), (8, "app 2 ended"), (9, "app 3 ready"))
    assert story.play(*script) == ["8.5 spawn app 3", "9 move the link to app 3"]
    assert (story.app.serial, story.app.proven, story.app.refusal) == (1, 1, Refusal(2, 2, "exited with 3"))


def test_a_successor_that_was_given_up_holds_the_next_one_back_while_it_lives() -> None:
    story = reloading()
    assert story.play((6, "app wishes 3"), (17.5, "app 2 ended")) == [
        "6 ask to stop app 2",
        "16 kill app 2",
        "17 kill app 2",
        "17.5 spawn app 3",
    ]


def test_a_new_generation_that_dies_while_the_old_retires_is_replaced_without_the_old_being_kept() -> None:
    story = reloading()
    script = ((7, "app 2 ready"), (8, "app 2 ended"), (9, "app 1 fenced"), (10, "app 3 ready"))
    assert story.play(*script) == [
        "7 move the link to app 2",
        "7 fence app 1",
        "8 spawn app 3",
        "9 ask to stop app 1",
        "10 move the link to app 3",
    ]


def test_news_of_a_generation_that_is_gone_changes_nothing() -> None:
    app = serving().app
    assert app.became_ready(9, 5.0) is app
    assert app.became_current(9) is app
    assert app.began_fence(9) is app
    assert app.ended_fence(9) is app
    assert app.after(Act.KILL, 9, 5.0) is app
    assert app.failed(9, "it answers 500", 5.0) is app
    assert app.ended(9, "exited with 3", 5.0) is app


def test_a_probe_that_fails_after_the_generation_was_ready_changes_nothing() -> None:
    app = serving().app
    assert app.failed(1, "it answers 500", 5.0) is app


def test_the_next_moment_is_the_earliest_of_all_that_come() -> None:
    story = reloading()
    assert story.fleet.wake_at() == 35, "the successor is not ready in time"
    story.play((7, "app 2 ready"), (8, "app 1 fenced"), (9, "app wishes 3"))
    assert story.fleet.wake_at() == 18, "the old does not stop in time, before the successor is not ready in time"
    story.play((10, "app 1 ended"))
    assert story.fleet.wake_at() == 39


def test_actions_name_the_serial_that_they_are_about() -> None:
    rollout = serving().app.wishes(7)
    assert rollout.actions("app", 2.0) == (Action(Act.SPAWN, "app", 2, 7),)
    assert rollout.spawned(2, 1002, 2.0).generation(2) == Generation(2, 7, Child(pid=1002, spawned_at=2.0))


# A fleet.


def test_the_web_tier_starts_once_every_app_is_proven() -> None:
    story = Story(app=0, api=0, web=1)
    assert story.done == ["0 spawn app 1", "0 spawn api 1"]
    assert story.play((1, "app 1 ready")) == ["1 move the link to app 1"]
    assert story.play((2, "api 1 ready")) == ["2 move the link to api 1", "2 spawn web 1"]


def test_first_start_that_fails_gives_up() -> None:
    story = Story(app=0, web=1)
    assert story.play((1, "app 1 ended"), (1000, "wait")) == []
    assert story.fleet.gave_up == ("app", Refusal(1, 1, "exited with 3"))
    assert story.fleet.empty
    assert story.fleet.wake_at() is None


def test_first_start_whose_probe_fails_gives_up_and_is_asked_to_stop_at_once() -> None:
    story = Story()
    assert story.play((1, "app 1 failed"), (2, "app 1 ended"), (1000, "wait")) == ["1 ask to stop app 1"]
    assert story.fleet.gave_up == ("app", Refusal(1, 1, "it answers 500"))
    assert story.app.failures == 1


def test_a_wish_after_giving_up_starts_again() -> None:
    story = Story()
    assert story.play((1, "app 1 ended"), (5, "app wishes 2")) == ["5 spawn app 2"]
    assert story.fleet.gave_up is None


def test_an_app_that_dies_while_the_web_tier_starts_is_restarted_and_the_web_tier_left_alone() -> None:
    story = Story(app=0, web=1)
    script = ((1, "app 1 ready"), (2, "app 1 ended"), (3, "web 1 ready"))
    assert story.play(*script) == [
        "1 move the link to app 1",
        "1 spawn web 1",
        "2 spawn app 2",
        "3 move the link to web 1",
    ]


def test_full_stop_stops_the_web_tier_before_the_apps() -> None:
    story = Story(app=0, web=1)
    story.play((1, "app 1 ready"), (2, "web 1 ready"))
    script = ((10, "stop"), (12, "web 1 ended"), (13, "app 1 ended"), (100, "wait"))
    assert story.play(*script) == ["10 ask to stop web 1", "12 ask to stop app 1"]
    assert story.fleet.empty
    assert story.fleet.wake_at() is None


def test_full_stop_kills_what_does_not_stop_in_time() -> None:
    story = Story(app=0, web=1)
    story.play((1, "app 1 ready"), (2, "web 1 ready"))
    script = ((10, "stop"), (20.5, "web 1 ended"), (31.6, "app 1 ended"))
    assert story.play(*script) == [
        "10 ask to stop web 1",
        "20 kill web 1",
        "20.5 ask to stop app 1",
        "30.5 kill app 1",
        "31.5 kill app 1",
    ]
    assert story.fleet.empty


def test_full_stop_does_not_wait_for_a_fence() -> None:
    story = reloading()
    story.play((7, "app 2 ready"))
    assert story.play((8, "stop")) == ["8 ask to stop app 1", "8 ask to stop app 2"]


def test_stop_during_start_asks_what_is_starting_and_blames_nobody() -> None:
    story = Story(app=0, web=1)
    assert story.play((1, "stop"), (2, "app 1 ended"), (100, "wait")) == ["1 ask to stop app 1"]
    assert story.fleet.empty
    assert story.fleet.gave_up is None


def test_stop_during_a_reload_stops_both_generations_and_refuses_nothing() -> None:
    story = reloading()
    script = ((6, "stop"), (7, "app 2 ended"), (8, "app 1 ended"), (100, "wait"))
    assert story.play(*script) == ["6 ask to stop app 1", "6 ask to stop app 2"]
    assert (story.app.refusal, story.app.failures, story.app.restarts) == (None, 0, 0)


def test_stop_during_a_pause_spawns_nothing() -> None:
    story = serving()
    story.play((1, "app 1 ended"), (1, "app 2 ended"))
    assert story.play((1.2, "stop"), (100, "wait")) == []
    assert story.fleet.wake_at() is None


def test_during_a_full_stop_nothing_is_spawned_and_nobody_is_woken_for_it() -> None:
    story = Story(app=0, web=1)
    story.play((1, "app 1 ready"), (2, "web 1 ready"), (10, "stop"))
    assert story.play((11, "app wishes 2"), (19, "wait")) == []
    assert story.fleet.wake_at() == 20, "the next thing is to kill the web tier"
    assert story.play((19, "app 1 ended"), (19, "web 1 ended"), (100, "wait")) == []
    assert story.fleet.empty


def test_an_app_goes_on_until_its_tier_is_told_to_stop() -> None:
    story = Story(app=0, web=1)
    story.play((1, "app 1 ready"), (2, "web 1 ready"), (5, "app wishes 2"), (6, "stop"))
    assert story.play((7, "app 2 ready"), (8, "app 1 fenced")) == [
        "7 move the link to app 2",
        "7 fence app 1",
        "8 ask to stop app 1",
    ]


def test_a_web_tier_that_may_not_start_yet_wakes_nobody() -> None:
    story = Story(web=1)
    assert story.play((1, "web 1 ready"), (2, "app joins 0")) == ["1 move the link to web 1", "2 spawn app 1"]
    assert story.play((3, "web wishes 2")) == []
    assert story.fleet.wake_at() == 32, "the next thing is to kill an app that is not ready in time"
    assert story.play((4, "app 1 ready")) == ["4 move the link to app 1", "4 spawn web 2"]


def test_a_service_that_leaves_is_stopped_alone_and_not_spawned_again() -> None:
    story = Story(app=0, web=1)
    story.play((1, "app 1 ready"), (2, "web 1 ready"))
    assert story.play((5, "app leaves"), (6, "app 1 ended"), (100, "wait")) == ["5 ask to stop app 1"]
    assert list(story.fleet.without("app").rollouts) == ["web"]


def test_a_service_that_leaves_as_the_full_stop_begins_does_not_wait_for_its_tier() -> None:
    story = Story(app=0, web=1)
    story.play((1, "app 1 ready"), (2, "web 1 ready"))
    assert story.play((5, "app leaves, stop")) == ["5 ask to stop app 1", "5 ask to stop web 1"]


def test_a_fleet_that_was_changed_is_another_one() -> None:
    fleet = Story().fleet
    stopped = fleet.stopped()
    assert (fleet.stopping, stopped.stopping) == (False, True)
    assert stopped == replace(fleet, stopping=True)
