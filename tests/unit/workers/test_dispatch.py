"""Which engine gets which group: held against a search through all of them."""

import json
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.workers.dispatch import MEMORY, Assignment, Dispatcher, LengthEstimates, Work
from rollout.records import Sample
from tests.unit.train.run_records import SUMMARY, ticket


def work(name: str, *, tokens: float = 1.0, urgency: int = 0) -> Work:
    return Work(urgency=urgency, tokens=tokens, payload=name)


def match_all(dispatcher: Dispatcher) -> list[tuple[str, int]]:
    found = []
    while (assignment := dispatcher.match()) is not None:
        found.append((assignment.work.payload, assignment.engine))
    return found


def test_group_goes_to_the_engine_with_the_fewest_expected_tokens() -> None:
    dispatcher = Dispatcher(capacity=4)
    for engine in range(3):
        dispatcher.join(engine)
    for name, tokens in (("a", 5.0), ("b", 4.0), ("c", 3.0), ("d", 2.0), ("e", 1.0)):
        dispatcher.submit(work(name, tokens=tokens))
    assert match_all(dispatcher) == [("a", 0), ("b", 1), ("c", 2), ("d", 2), ("e", 1)]


def test_most_urgent_goes_first_then_the_longest_then_whoever_came_first() -> None:
    dispatcher = Dispatcher(capacity=9)
    dispatcher.join(0)
    for name, urgency, tokens in (("late", 2, 9.0), ("short", 1, 1.0), ("long", 1, 5.0), ("same", 1, 1.0)):
        dispatcher.submit(work(name, urgency=urgency, tokens=tokens))
    assert [name for name, _ in match_all(dispatcher)] == ["long", "short", "same", "late"]


def test_what_is_beyond_the_capacity_waits_until_one_is_finished() -> None:
    dispatcher = Dispatcher(capacity=2)
    dispatcher.join(0)
    for name in "abc":
        dispatcher.submit(work(name))
    first = dispatcher.match()
    assert first is not None
    assert match_all(dispatcher) == [("b", 0)]
    dispatcher.finish(first)
    assert match_all(dispatcher) == [("c", 0)]


def test_withdrawn_group_goes_to_no_engine() -> None:
    dispatcher = Dispatcher(capacity=2)
    groups = [work(name) for name in "abc"]
    for group in groups:
        dispatcher.submit(group)
    dispatcher.withdraw(groups[0])
    dispatcher.withdraw(groups[1])
    dispatcher.join(0)
    assert match_all(dispatcher) == [("c", 0)]


def test_nothing_goes_to_an_engine_that_left() -> None:
    dispatcher = Dispatcher(capacity=2)
    dispatcher.join(0)
    dispatcher.join(1)
    dispatcher.leave(0)
    dispatcher.leave(0)
    dispatcher.submit(work("a"))
    assert dispatcher.engines == [1]
    assert match_all(dispatcher) == [("a", 1)]


def test_what_an_engine_had_before_it_was_built_again_does_not_lighten_its_load() -> None:
    dispatcher = Dispatcher(capacity=2)
    dispatcher.join(0)
    dispatcher.submit(work("old", tokens=8.0))
    old = dispatcher.match()
    assert old is not None
    dispatcher.leave(0)
    dispatcher.join(0)
    dispatcher.join(1)
    dispatcher.submit(work("a", tokens=4.0))
    assert match_all(dispatcher) == [("a", 0)]
    dispatcher.finish(old)
    dispatcher.submit(work("b", tokens=3.0))
    dispatcher.submit(work("c", tokens=2.0))
    dispatcher.submit(work("d", tokens=2.0))
    assert match_all(dispatcher) == [("b", 1), ("c", 1), ("d", 0)]


def test_batch_is_shared_by_length_and_counted_through_on_each_engine() -> None:
    dispatcher = Dispatcher(capacity=1)
    assert dispatcher.assign_batch("b", {7: 1.0}) == {}
    dispatcher.join(0)
    dispatcher.join(1)
    seats = dispatcher.assign_batch("b", {4: 5.0, 5: 3.0, 6: 3.0, 7: 1.0, 8: 1.0})
    assert {p: (s.engine, s.admission.batch, s.admission.index, s.admission.size) for p, s in seats.items()} == {
        4: (0, "b", 0, 3),  # 5 tokens against 3, 6
        7: (0, "b", 1, 3),  # 6 against 6
        8: (0, "b", 2, 3),
        5: (1, "b", 0, 2),
        6: (1, "b", 1, 2),
    }


def test_seated_group_is_held_beyond_the_capacity_and_keeps_others_away() -> None:
    dispatcher = Dispatcher(capacity=1)
    dispatcher.join(0)
    held = [dispatcher.assign(work(name), 0) for name in "ab"]
    assert dispatcher.assign(work("c"), 1) is None
    dispatcher.submit(work("d"))
    for done in held:
        assert dispatcher.match() is None
        assert done is not None
        dispatcher.finish(done)
    assert match_all(dispatcher) == [("d", 0)]


@dataclass
class Naive:
    """The same rules, by a search through everything."""

    capacity: int
    waiting: list[tuple[int, float, int, Work]] = field(default_factory=list)
    held: dict[int, list[Work]] = field(default_factory=dict)
    arrivals: int = 0

    def submit(self, group: Work) -> None:
        self.waiting.append((group.urgency, -group.tokens, self.arrivals, group))
        self.arrivals += 1

    def match(self) -> tuple[Work, int] | None:
        waiting = [entry for entry in self.waiting if not entry[-1].is_withdrawn]
        free = [(sum(w.tokens for w in own), e) for e, own in self.held.items() if len(own) < self.capacity]
        if not waiting or not free:
            return None
        entry = min(waiting, key=lambda entry: entry[:3])
        self.waiting.remove(entry)
        engine = min(free)[1]
        self.held[engine].append(entry[-1])
        return entry[-1], engine


@given(capacity=st.integers(1, 3), num_engines=st.integers(1, 4), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_match_is_that_of_a_search_through_everything(capacity: int, num_engines: int, seed: int) -> None:
    order = Random(seed)
    dispatcher, naive = Dispatcher(capacity=capacity), Naive(capacity)
    running: list[Assignment] = []
    stale: list[Assignment] = []
    submitted: list[Work] = []
    for _ in range(60):
        engine = order.randrange(num_engines)
        match order.choice(["join", "leave", "submit", "submit", "submit", "finish", "finish", "withdraw"]):
            case "join" if engine not in naive.held:
                dispatcher.join(engine)
                naive.held[engine] = []
            case "leave" if engine in naive.held:
                dispatcher.leave(engine)
                del naive.held[engine]
                stale += [done for done in running if done.engine == engine]
                running = [done for done in running if done.engine != engine]
            case "submit":
                submitted.append(work("", tokens=float(order.randint(0, 4)), urgency=order.randint(0, 2)))
                dispatcher.submit(submitted[-1])
                naive.submit(submitted[-1])
            case "finish" if running or stale:
                done = order.choice(running + stale)
                dispatcher.finish(done)
                if done in running:
                    running.remove(done)
                    naive.held[done.engine].remove(done.work)
                else:
                    stale.remove(done)
            case "withdraw" if submitted:
                dispatcher.withdraw(order.choice(submitted))
        if order.random() < 0.6:
            found, expected = dispatcher.match(), naive.match()
            assert (None if found is None else (found.work, found.engine)) == expected
            if found is not None:
                running.append(found)
        assert dispatcher.engines == sorted(naive.held)


SAMPLE = Sample(sample_id="s", source="plots", task="chart", question="?", answer="4", prompt_tokens=100)


def test_unknown_source_is_expected_to_be_as_long_as_the_first_guess() -> None:
    assert LengthEstimates(first_guess=32.0).expected_tokens(SAMPLE, 4) == 100 + 4 * 32.0
    unmeasured = Sample(sample_id="s", source="plots", task="chart", question="?", answer="4")
    assert LengthEstimates(first_guess=32.0).expected_tokens(unmeasured, 4) == 4 * 32.0


def test_estimate_follows_the_mean_of_each_source_slowly_after_its_first_step() -> None:
    lengths = LengthEstimates(first_guess=32.0)
    summary = [ticket(0, num_completion_tokens=20).summary, ticket(1, num_completion_tokens=40).summary]
    lengths.observe(summary)
    assert lengths.expected_tokens(SAMPLE, 1) == 100 + 60 / 4
    lengths.observe([ticket(2, num_completion_tokens=50).summary, ticket(3, source="maps").summary])
    assert lengths.expected_tokens(SAMPLE, 1) == pytest.approx(100 + MEMORY * 15 + (1 - MEMORY) * 25)
    lengths.observe([ticket(4, source="plots", num_completion_tokens=0, reasons=()).summary])
    assert lengths.expected_tokens(SAMPLE, 1) == pytest.approx(100 + MEMORY * 15 + (1 - MEMORY) * 25)


def test_estimates_go_on_where_they_were_saved_and_the_saved_ones_stay_as_they_are() -> None:
    lengths = LengthEstimates(first_guess=32.0)
    lengths.observe([SUMMARY])
    saved = lengths.state_dict()
    restored = LengthEstimates(first_guess=1.0)
    restored.load_state_dict(json.loads(json.dumps(saved)))
    assert restored.expected_tokens(SAMPLE, 3) == lengths.expected_tokens(SAMPLE, 3)
    restored.observe([ticket(0, num_completion_tokens=99).summary])
    assert saved == lengths.state_dict() == {"plots": 8.0}
