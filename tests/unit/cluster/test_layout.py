"""Every actor gets a machine and GPUs that hold it, in an order that a reader can foresee."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.cli import compose
from orchestration.cluster.layout import lay_out
from orchestration.cluster.machines import needs_of, this_machine
from orchestration.inputs.machine import build_config
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from tests.unit.cluster.machines import colocated, gpus_of, machine, resized, run_on_gpus, sharing


def test_one_machine_gives_its_first_gpus_to_the_learner_and_the_rest_to_engines(tmp_path: Path) -> None:
    layout = lay_out(run_on_gpus(tmp_path, ranks=4, engines=2, width=2), [machine(0)])
    assert gpus_of(layout, "learner") == [(0, (0,)), (0, (1,)), (0, (2,)), (0, (3,))]
    assert gpus_of(layout, "engine") == [(0, (4, 5)), (0, (6, 7))]
    assert gpus_of(layout, "reward") == [(0, ()), (0, ())]


def test_learner_fills_whole_machines_with_ranks_in_order_and_engines_take_the_others(tmp_path: Path) -> None:
    layout = lay_out(run_on_gpus(tmp_path, ranks=16, engines=4, width=4), [machine(i) for i in range(4)])
    assert gpus_of(layout, "learner") == [(rank // 8, (rank % 8,)) for rank in range(16)]
    assert gpus_of(layout, "engine") == [(2, (0, 1, 2, 3)), (2, (4, 5, 6, 7)), (3, (0, 1, 2, 3)), (3, (4, 5, 6, 7))]


def test_ranks_that_fill_no_machine_are_shared_equally(tmp_path: Path) -> None:
    layout = lay_out(run_on_gpus(tmp_path, ranks=12, engines=12), [machine(i) for i in range(3)])
    assert [seat.machine for seat in layout.of("learner")] == [0] * 6 + [1] * 6
    # Engines take the machine without ranks first, then what the ranks leave.
    assert [seat.machine for seat in layout.of("engine")] == [2] * 8 + [0] * 2 + [1] * 2


def test_unequal_shares_are_taken_where_equal_ones_leave_no_room_for_a_wide_engine(tmp_path: Path) -> None:
    layout = lay_out(run_on_gpus(tmp_path, ranks=12, engines=1, width=4), [machine(0), machine(1)])
    assert [seat.machine for seat in layout.of("learner")] == [0] * 8 + [1] * 4
    assert gpus_of(layout, "engine") == [(1, (4, 5, 6, 7))]


def test_learner_takes_the_machine_that_it_fills(tmp_path: Path) -> None:
    layout = lay_out(run_on_gpus(tmp_path, ranks=4, engines=1, width=8), [machine(0), machine(1, gpus=4)])
    assert {seat.machine for seat in layout.of("learner")} == {1}
    assert gpus_of(layout, "engine") == [(0, tuple(range(8)))]


def test_roles_keep_engines_on_their_own_machines_and_rewards_off_the_gpus(tmp_path: Path) -> None:
    machines = [
        machine(0, roles=("engine",), resource="cheap"),
        machine(1, roles=("learner",), resource="fast"),
        machine(2, gpus=0, cpus=8, roles=("reward",), resource="plain"),
    ]
    layout = lay_out(run_on_gpus(tmp_path, ranks=8, engines=8), machines)
    assert [{seat.machine for seat in layout.of(role)} for role in ("engine", "learner", "reward")] == [{0}, {1}, {2}]


def test_learner_prefers_machines_that_are_for_it_alone(tmp_path: Path) -> None:
    machines = [machine(0), machine(1, roles=("learner",), resource="fast")]
    layout = lay_out(run_on_gpus(tmp_path, ranks=8, engines=2), machines)
    assert layout.learner_machines() == (1,)


def test_colocated_engines_stand_on_the_gpus_of_their_ranks(tmp_path: Path) -> None:
    config = colocated(run_on_gpus(tmp_path, ranks=16, engines=4, width=4))
    layout = lay_out(config, [machine(0), machine(1)])
    assert gpus_of(layout, "engine") == [(0, (0, 1, 2, 3)), (0, (4, 5, 6, 7)), (1, (0, 1, 2, 3)), (1, (4, 5, 6, 7))]
    assert [seat.machine for seat in layout.of("learner")] == [0] * 8 + [1] * 8


def test_colocated_ranks_are_shared_so_that_no_engine_crosses_machines(tmp_path: Path) -> None:
    config = colocated(run_on_gpus(tmp_path, ranks=8, engines=2, width=4))
    layout = lay_out(config, [machine(0, gpus=6), machine(1, gpus=6)])
    assert gpus_of(layout, "engine") == [(0, (0, 1, 2, 3)), (1, (0, 1, 2, 3))]


@pytest.mark.parametrize(("engines", "words"), [(1, "set rollout.engines=2"), (4, "set rollout.engines=2")])
def test_colocated_engines_must_cover_the_ranks(tmp_path: Path, engines: int, words: str) -> None:
    config = colocated(run_on_gpus(tmp_path, ranks=8, engines=engines, width=4))
    with pytest.raises(ConfigError, match=words):
        lay_out(config, [machine(0)])


def test_shares_of_a_gpu_are_packed(tmp_path: Path) -> None:
    config = sharing(run_on_gpus(tmp_path, ranks=3, engines=4), rank=0.5, worker=0.25)
    layout = lay_out(config, [machine(0, gpus=3)])
    assert gpus_of(layout, "learner") == [(0, (0,)), (0, (0,)), (0, (1,))]
    assert gpus_of(layout, "engine") == [(0, (1,)), (0, (1,)), (0, (2,)), (0, (2,))]


def test_without_gpus_cores_are_counted_and_engines_go_over_all_machines(tmp_path: Path) -> None:
    sizes = ["rollout.engines=3", "cluster.reward_pool.num_actors=2", f"run_dir={tmp_path}"]
    machines = [machine(0, gpus=0, cpus=3), machine(1, gpus=0, cpus=3)]
    layout = lay_out(build_config(compose(sizes)), machines)
    assert layout.learner_machines() == (0,)
    assert [seat.machine for seat in layout.of("engine")] == [1, 0, 1]
    assert [seat.machine for seat in layout.of("reward")] == [0, 1]


def test_reward_actors_go_where_most_cores_are_free(tmp_path: Path) -> None:
    machines = [machine(0, cpus=16), machine(1, gpus=0, cpus=96)]
    layout = lay_out(run_on_gpus(tmp_path, ranks=4, engines=4), machines)
    assert {seat.machine for seat in layout.of("reward")} == {1}


def test_refusal_says_what_is_needed_what_is_there_and_what_to_change(tmp_path: Path) -> None:
    config = run_on_gpus(tmp_path, ranks=8, engines=3, width=4)
    with pytest.raises(ConfigError) as refused:
        lay_out(config, [machine(0), machine(1)])
    assert str(refused.value) == (
        "no room for 1 of 3 engines. Needed: 8 learner ranks of 1 GPU (together 8); 3 engines of 4 GPUs (together 12, "
        "on one machine each); 2 reward actors; each actor reserves a core as well. There is: node 0, node 1 with 8 "
        "GPUs and 96 cores each. Lower rollout.engines or rollout.engine.tensor_parallel_size, or add machines "
        "(cluster.nodes, or nodes of the Ray cluster)"
    )


def test_learner_without_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no room for the 16 learner ranks.*Lower learner\.num_ranks"):
        lay_out(run_on_gpus(tmp_path, ranks=16, engines=1), [machine(0)])


def test_cores_run_out_before_gpus(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no room for 1 of 2 reward actors"):
        lay_out(run_on_gpus(tmp_path, ranks=4, engines=4), [machine(0, cpus=9)])


def test_engine_wider_than_any_machine_is_refused(tmp_path: Path) -> None:
    config = run_on_gpus(tmp_path, ranks=4, engines=1, width=8)
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=8 does not fit a machine with 4 GPUs"):
        lay_out(config, [machine(0, gpus=4), machine(1, gpus=4)])


def test_role_that_no_machine_takes_is_refused(tmp_path: Path) -> None:
    machines = [machine(0, roles=("learner", "engine"), resource="gpu")]
    with pytest.raises(ConfigError, match=r"no machine may hold reward actors: node 0 .* for learner, engine alone"):
        lay_out(run_on_gpus(tmp_path, ranks=4, engines=1), machines)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cluster.gpus_per_learner_rank=2", r"cluster.gpus_per_learner_rank is 2\.0; use 0\.0001 to 1"),
        ("cluster.gpus_per_engine_worker=0", "cluster.gpus_per_engine_worker is 0"),
        ("cluster.nodes=[{count:1,gpus:8,gpu:null,cpus:8,memory_gib:64,roles:[learner]}]", "ray start --resources"),
        ("cluster.nodes=[{count:0,gpus:8,gpu:null,cpus:8,memory_gib:64}]", r"cluster\.nodes\[0\]\.count is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_on_gpus(tmp_path, ranks=1, engines=1, more=(setting,))


def test_share_of_a_gpu_and_several_workers_exclude_each_other(tmp_path: Path) -> None:
    config = sharing(run_on_gpus(tmp_path, ranks=1, engines=1, width=2), worker=0.5)
    with pytest.raises(ConfigError, match="set one of them to 1"):
        lay_out(config, [machine(0)])


def test_colocated_ranks_take_whole_gpus(tmp_path: Path) -> None:
    config = sharing(run_on_gpus(tmp_path, ranks=1, engines=1), rank=0.5)
    with pytest.raises(ConfigError, match="whole GPUs there"):
        lay_out(colocated(config), [machine(0)])


def test_no_engine_can_join_where_all_stand_on_the_ranks(tmp_path: Path) -> None:
    config = run_on_gpus(tmp_path, ranks=1, engines=1, more=("rollout.max_engines=8",))
    with pytest.raises(ConfigError, match="so none can join"):
        lay_out(colocated(config), [machine(0)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    return run_on_gpus(tmp_path_factory.mktemp("run"), ranks=1, engines=1)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=5),
    ranks=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16]),
    engines=st.integers(1, 8),
    width=st.sampled_from([1, 2, 4]),
)
def test_no_gpu_is_given_twice_and_no_engine_crosses_machines(
    base: ExperimentConfig, sizes: list[int], ranks: int, engines: int, width: int
) -> None:
    machines = [machine(number, gpus=gpus) for number, gpus in enumerate(sizes)]
    try:
        layout = lay_out(resized(base, ranks=ranks, engines=engines, width=width), machines)
    except ConfigError:
        return
    given = [(seat.machine, gpu) for seat in layout.actors for gpu in seat.gpus]
    assert len(given) == len(set(given)) == ranks + engines * width
    assert all(gpu < sizes[number] for number, gpu in given)
    assert [len(seat.gpus) for seat in layout.of("engine")] == [width] * engines
    machines_of_ranks = [seat.machine for seat in layout.of("learner")]
    assert machines_of_ranks == sorted(machines_of_ranks)


def test_more_actors_than_cores_share_them(tmp_path: Path) -> None:
    config = build_config(compose(["rollout.engines=300", f"run_dir={tmp_path}"]))
    machine = this_machine(needs_of(config))
    assert machine.cpus >= 302
    assert machine.memory_bytes > 1 << 28
    assert len(lay_out(config, [machine]).of("engine")) == 300
