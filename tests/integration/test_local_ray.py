"""A Ray that a run starts on this machine cannot be reached from another one."""

import os

import psutil
import ray

from orchestration.cli import compose
from orchestration.cluster.guard import TOKEN_VARIABLE
from orchestration.cluster.session import LOCAL_VARIABLES, ray_session
from orchestration.inputs.machine import build_config


@ray.remote
class Listener:
    def address(self) -> str:
        return str(ray.util.get_node_ip_address())


def listening(pid: int) -> set[str]:
    """Addresses on which a process listens, in their short form."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {found.laddr.ip.removeprefix("::ffff:") for found in connections if found.status == "LISTEN"}


def test_a_local_ray_and_its_actors_listen_on_loopback_alone(tmp_path) -> None:
    config = build_config(compose([f"run_dir={tmp_path}", f"cache_dir={tmp_path}"]))
    before = dict(os.environ)
    with ray_session(config.cluster, 3, tmp_path / "logs"):
        actor = Listener.remote()
        assert ray.get(actor.address.remote()) == "127.0.0.1"
        family = {child.pid for child in psutil.Process().children(recursive=True)}
        addresses = {pid: found for pid in family if (found := listening(pid))}
    assert len(addresses) >= 3  # at least the store of the cluster, the node, and the actor
    assert set().union(*addresses.values()) == {"127.0.0.1"}
    ours = {*LOCAL_VARIABLES, TOKEN_VARIABLE, "PYTHONPATH", "PYTHONSAFEPATH", "RAY_AUTH_TOKEN", "VLLM_RPC_BASE_PATH"}
    assert {name: os.environ.get(name) for name in ours} == {name: before.get(name) for name in ours}
