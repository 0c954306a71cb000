"""An engine told by its events does exactly what one does that is followed token by token."""

import random
from dataclasses import dataclass, field, replace

import pytest

from tests.benchmarks.simulation.batch_server import BatchServer, GroupRequest
from tests.benchmarks.simulation.settings import EngineCosts

COSTS = EngineCosts(max_num_seqs=5, step_s=0.01, step_s_per_sequence=0.003, prefill_s_per_token=0.0004)


@dataclass
class Script:
    """What happens to an engine: (time, group) and (time of the pause, time of the resumption)."""

    groups: list[tuple[float, GroupRequest]] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)


def make_script(seed: int) -> Script:
    generator = random.Random(seed)
    script = Script()
    for _ in range(40):
        lengths = [min(60, 1 + int(generator.expovariate(0.08))) for _ in range(generator.randint(1, 4))]
        group = GroupRequest(lengths=lengths, prompt_tokens=generator.randint(1, 100))
        script.groups.append((generator.choice([0.0, generator.uniform(0.0, 12.0)]), group))
    script.groups.sort(key=lambda item: item[0])
    start = 0.0
    for _ in range(6):
        start += generator.uniform(0.5, 3.0)
        end = start + generator.uniform(0.02, 1.0)
        script.pauses.append((start, end))
        start = end
    return script


def token_by_token(script: Script, keeps_cache: bool) -> tuple[list[float], float, int]:
    """Give the time at which each group ends, busy seconds and tokens, by walking through every step."""
    now, busy, tokens = 0.0, 0.0, 0
    waiting: list[list[int]] = []  # [group, tokens left]
    running: list[list[int]] = []  # [group, tokens left, tokens so far]
    is_lost = False
    ends = [0.0] * len(script.groups)
    arrived, admitted = 0, set()
    while arrived < len(script.groups) or waiting or running:
        while arrived < len(script.groups) and script.groups[arrived][0] <= now + 1e-12:
            waiting += [[arrived, length] for length in script.groups[arrived][1].lengths]
            arrived += 1
        pause = next((end for start, end in script.pauses if start <= now + 1e-12 < end), None)
        if pause is not None:
            now, is_lost = pause, not keeps_cache
            continue
        num_lost = sum(sequence[2] for sequence in running)
        num_lost += sum(script.groups[index][1].prompt_tokens for index in {sequence[0] for sequence in running})
        seconds = COSTS.prefill_s_per_token * num_lost if is_lost else 0.0
        is_lost = False
        while waiting and len(running) < COSTS.max_num_seqs:
            sequence = waiting.pop(0)
            if sequence[0] not in admitted:
                admitted.add(sequence[0])
                seconds += COSTS.prefill_s_per_token * script.groups[sequence[0]][1].prompt_tokens
            running.append([*sequence, 0])
        if not running:
            now = script.groups[arrived][0]
            continue
        seconds += COSTS.step_s + COSTS.step_s_per_sequence * len(running)
        now, busy, tokens = now + seconds, busy + seconds, tokens + len(running)
        for sequence in running:
            sequence[1] -= 1
            sequence[2] += 1
            ends[sequence[0]] = max(ends[sequence[0]], now if sequence[1] == 0 else 0.0)
        running = [sequence for sequence in running if sequence[1]]
    return ends, busy, tokens


def by_events(script: Script, keeps_cache: bool) -> tuple[list[float], float, int]:
    server = BatchServer(replace(COSTS, keeps_cache=keeps_cache))
    indices = {id(group): index for index, (_, group) in enumerate(script.groups)}
    ends = [0.0] * len(script.groups)
    happenings = [(when, 0, group) for when, group in script.groups]
    happenings += [(start, 1, None) for start, _ in script.pauses] + [(end, 2, None) for _, end in script.pauses]
    happenings.sort(key=lambda item: item[:2])
    now = 0.0
    while happenings or server.next_event() is not None:
        event = server.next_event()
        if happenings and (event is None or happenings[0][0] <= event):
            now, kind, group = happenings.pop(0)
            if kind == 0:
                server.submit(now, group)
            elif kind == 1:
                assert server.pause(now) >= now
            else:
                server.resume(now)
        else:
            now = event
            for group in server.advance(now):
                ends[indices[id(group)]] = now
    return ends, server.busy(now)[0], server.tokens


@pytest.mark.parametrize("keeps_cache", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_events_give_the_times_of_the_token_by_token_simulation(seed: int, keeps_cache: bool) -> None:
    exact, exact_busy, exact_tokens = token_by_token(make_script(seed), keeps_cache)
    ends, busy, tokens = by_events(make_script(seed), keeps_cache)
    assert ends == pytest.approx(exact, abs=1e-7)
    assert busy == pytest.approx(exact_busy, abs=1e-7)
    assert tokens == exact_tokens == sum(sum(group.lengths) for _, group in make_script(seed).groups)


def test_one_group_alone_takes_its_prefill_and_then_its_steps() -> None:
    server = BatchServer(COSTS)
    server.submit(2.0, GroupRequest(lengths=(3, 5), prompt_tokens=100))
    assert server.next_event() == 2.0
    assert server.advance(2.0) == []
    assert server.next_event() == pytest.approx(2.0 + 0.04 + 3 * 0.016)
    assert server.advance(server.next_event()) == []
    assert server.next_event() == pytest.approx(2.0 + 0.04 + 3 * 0.016 + 2 * 0.013)
    assert len(server.advance(server.next_event())) == 1
    assert server.next_event() is None


@pytest.mark.parametrize("keeps_cache", [False, True])
def test_after_a_pause_at_the_end_of_a_step_a_sequence_goes_on_where_it_was(keeps_cache: bool) -> None:
    server = BatchServer(replace(COSTS, keeps_cache=keeps_cache))
    server.submit(0.0, GroupRequest(lengths=(10,), prompt_tokens=100))
    server.advance(0.0)
    stands = server.pause(0.07)
    assert stands == pytest.approx(0.04 + 3 * 0.013)
    server.advance(stands)
    assert server.next_event() is None
    server.resume(100.0)
    server.advance(server.next_event())
    computed_again_s = 0.0 if keeps_cache else 103 * COSTS.prefill_s_per_token
    assert server.next_event() == pytest.approx(100.0 + computed_again_s + 7 * 0.013)
