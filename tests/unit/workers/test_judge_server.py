"""A judge's server: it and all that it starts end with the process that started it; its address is in a file."""

import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.cluster.layout import lay_out
from orchestration.cluster.machines import judge_names, needs_of
from orchestration.cluster.process import judge_keys, placements_of
from orchestration.cluster.reservations import bundles_of
from orchestration.settings.cluster import JudgeServerConfig
from orchestration.settings.errors import ConfigError, JudgeLostError
from orchestration.settings.experiment import ExperimentConfig, check_judges
from orchestration.workers.judge_actor import LIFELINE, JudgeServer, free_port, vllm_command
from orchestration.workers.judge_pool import publish_address, served_name, with_places
from rewards.core.judge_config import JudgeConfig
from tests.unit.cluster.machines import gpus_of, machine, run_on_gpus

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
LIMIT_S = 60.0


def is_gone(process: int) -> bool:
    """Whether a process ends within the limit, told by the system itself."""
    return bool(select.select([process], [], [], LIMIT_S)[0])


def test_a_command_and_its_children_end_when_the_pipe_of_their_parent_closes() -> None:
    lifeline = subprocess.Popen(
        [sys.executable, str(LIFELINE), sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert lifeline.stdout is not None
    assert lifeline.stdin is not None
    grandchild = os.pidfd_open(int(lifeline.stdout.readline()))
    lifeline.stdin.close()
    assert is_gone(grandchild)
    assert lifeline.wait() == -signal.SIGKILL
    os.close(grandchild)
    lifeline.stdout.close()


def test_a_lifeline_that_leads_no_group_kills_nobody() -> None:
    done = subprocess.run(
        [sys.executable, str(LIFELINE), "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1
    assert "in a session of its own" in done.stderr


def test_a_server_answers_until_it_is_killed_and_then_counts_as_lost() -> None:
    port = free_port("127.0.0.1")
    server = JudgeServer([sys.executable, "-c", SERVER, "127.0.0.1", str(port)], "127.0.0.1", port, key="k")
    server.wait()
    server.check()
    assert server.address == f"http://127.0.0.1:{port}/v1"
    server.close()
    with pytest.raises(JudgeLostError, match="has ended"):
        server.check()


def test_a_server_that_cannot_start_is_not_waited_for() -> None:
    server = JudgeServer([sys.executable, "-c", "raise SystemExit(3)"], "127.0.0.1", free_port("127.0.0.1"), key="k")
    with pytest.raises(JudgeLostError, match="has ended"):
        server.wait()


def test_the_command_names_the_model_and_what_the_user_adds_comes_last() -> None:
    command = vllm_command(Path("/m"), "m-1", "10.0.0.1", 7, num_gpus=2, arguments=("--max-model-len", "8"))
    text = " ".join(command[1:])
    assert "--model /m --served-model-name m-1 --host 10.0.0.1 --port 7 --tensor-parallel-size 2" in text
    assert "--distributed-executor-backend mp" in text
    assert text.endswith("--max-model-len 8")
    assert "--enforce-eager" in vllm_command(Path("/m"), "m-1", "h", 7, num_gpus=0)


def test_the_address_of_a_server_is_readable_by_its_user_alone(tmp_path: Path) -> None:
    place = tmp_path / "judges" / "wise" / "address"
    for address in ("http://a/v1", "http://b/v1"):
        publish_address(place, address, "key")
    assert place.read_text() == "http://b/v1\nkey\n"
    assert place.stat().st_mode & 0o777 == 0o600


def folder_of_a_model(folder: Path, weights: bytes = b"one") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def with_judges(config: ExperimentConfig, model: Path, **servers: JudgeServerConfig) -> ExperimentConfig:
    """The run with two judges that need servers, one with an address, and one that scores nothing."""
    own = JudgeConfig(model=str(model), prompt="{answer}")
    judges = {"first": own, "second": own, "far": replace(own, address="http://far/v1"), "idle": own}
    routes = {**config.reward.routes, "open": "first", "chart": {"second": 0.5, "far": 0.5}}
    reward = replace(config.reward, judges=judges, routes=routes)
    return replace(config, reward=reward, cluster=replace(config.cluster, judges=servers))


def test_judges_take_what_engines_leave_as_much_as_each_needs(tmp_path: Path) -> None:
    config = with_judges(
        run_on_gpus(tmp_path, ranks=4, engines=1),
        folder_of_a_model(tmp_path / "m"),
        second=JudgeServerConfig(num_gpus=2),
    )
    assert judge_names(config) == ("first", "second")
    layout = lay_out(config, [machine(0)])
    assert gpus_of(layout, "judge") == [(0, (5,)), (0, (6, 7))]
    needs = needs_of(config)
    assert needs.num_actors == 4 + 1 + 2 + 2
    bundles = {bundle.name: bundle.resources for bundle in bundles_of(layout, needs)}
    assert bundles["judge 1"] == ({"CPU": 1, "GPU": 2.0},)
    assert [place.num_gpus for place in placements_of(config, needs, cores=(), max_engines=1)["judge"]] == [1.0, 2.0]


def test_judges_run_where_engines_may_and_with_the_reward_actors(tmp_path: Path) -> None:
    config = with_judges(run_on_gpus(tmp_path, ranks=4, engines=1), folder_of_a_model(tmp_path / "m"))
    machines = [machine(0, roles=("learner", "reward"), resource="a"), machine(1, roles=("engine",), resource="b")]
    assert {actor.machine for actor in lay_out(config, machines).of("judge")} == {1}
    needs = needs_of(config)
    assert len(needs.only("engine", "reward").judges) == 2
    assert needs.only("learner").judges == ()


def test_judges_without_room_are_named_with_the_key(tmp_path: Path) -> None:
    config = with_judges(
        run_on_gpus(tmp_path, ranks=4, engines=3),
        folder_of_a_model(tmp_path / "m"),
        second=JudgeServerConfig(num_gpus=2),
    )
    with pytest.raises(ConfigError, match=r"no room for 1 of 2 judges.*Lower cluster\.judges"):
        lay_out(config, [machine(0)])


@pytest.mark.parametrize(("name", "why"), [("far", "has an address"), ("nobody", "is no judge")])
def test_what_is_reserved_for_a_judge_without_a_server_is_refused(tmp_path: Path, name: str, why: str) -> None:
    servers = {name: JudgeServerConfig(num_gpus=1)}
    config = with_judges(run_on_gpus(tmp_path, ranks=4, engines=1), folder_of_a_model(tmp_path / "m"), **servers)
    with pytest.raises(ConfigError, match=rf"cluster\.judges\.{name}.*{why}.*first, second, idle"):
        check_judges(config)


@pytest.mark.parametrize(
    ("model", "why"), [("models/judge", "must be absolute"), ("/nowhere", "no Hugging Face folder")]
)
def test_a_judge_whose_model_is_no_folder_is_refused_before_a_run(tmp_path: Path, model: str, why: str) -> None:
    config = with_judges(run_on_gpus(tmp_path, ranks=4, engines=1), Path(model))
    with pytest.raises(ConfigError, match=rf"reward\.judges\.first\.model={model} .*{why}"):
        check_judges(config)


def test_a_run_tells_its_judges_where_replies_and_addresses_are(tmp_path: Path) -> None:
    model = folder_of_a_model(tmp_path / "m")
    config = with_judges(run_on_gpus(tmp_path, ranks=4, engines=1), model)
    judges = with_places(config, tmp_path / "logs").judges
    first, far = judges["first"], judges["far"]
    assert first.address == f"file:{tmp_path}/judges/first/address"
    assert first.cache_dir == f"{tmp_path}/judges/first/replies"
    assert first.wait_s >= config.cluster.faults.start_timeout_s
    assert (far.address, far.model) == ("http://far/v1", str(model))
    before = first.model
    folder_of_a_model(model, weights=b"two")
    assert served_name(model) != before


def test_actors_get_the_keys_of_judges_and_no_other_variable(tmp_path: Path) -> None:
    config = with_judges(run_on_gpus(tmp_path, ranks=4, engines=1), folder_of_a_model(tmp_path / "m"))
    far = replace(config.reward.judges["far"], key_variable="FAR_KEY")
    reward = replace(config.reward, judges={**config.reward.judges, "far": far})
    assert judge_keys(reward, {"FAR_KEY": "x", "HOME": "/"}) == {"FAR_KEY": "x"}
    assert judge_keys(reward, {"HOME": "/"}) == {}
