"""Two Ray nodes on this machine, whose processes can be killed one by one."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nshot

_MEMORY = 100 * 2**20  # bytes of each node's object store: summaries are small


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Nodes:
    """A cluster of two nodes with a CPU each.

    Attributes:
        address: host:port, for --ray.
        client: ray://host:port, for a driver that is no part of the cluster.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        from ray.cluster_utils import Cluster

        self._environment = environment
        (port,) = free_ports(1)
        head = self._arguments() | {"ray_client_server_port": port}
        with warnings.catch_warnings():  # Ray leaves the logs of its server for ray:// open
            warnings.simplefilter("ignore", ResourceWarning)
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
            gc.collect()
        self.address: str = self._cluster.address
        self.client = f"ray://127.0.0.1:{port}"
        self.second: Any = None
        self.add()

    def _arguments(self) -> dict[str, Any]:
        # Fixed ports: an agent that is slow to say its own, on a busy machine, ends its raylet.
        metrics, listen, environment, agent = free_ports(4)
        return {
            "num_cpus": 1,
            "object_store_memory": _MEMORY,
            "include_dashboard": False,
            "metrics_export_port": metrics,
            "dashboard_agent_listen_port": listen,
            "runtime_env_agent_port": environment,
            "metrics_agent_port": agent,
        }

    def add(self) -> None:
        """A second node."""
        self.second = self._cluster.add_node(**self._arguments())

    @contextmanager
    def with_gpus(self, gpus: int) -> Iterator[None]:
        """For a while a third node, which says that it has so many GPUs, and as many cores."""
        third = self._cluster.add_node(**(self._arguments() | {"num_cpus": gpus, "num_gpus": gpus}))
        try:
            yield
        finally:
            self._cluster.remove_node(third, allow_graceful=False)
            self._cluster.wait_for_nodes(60)  # else the next driver may still see it

    def kill_second(self) -> None:
        """SIGKILL to the raylet of the second node."""
        (raylet,) = self.second.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)

    def kill_worker(self) -> bool:
        """SIGKILL to a worker that makes shards; whether there was one."""
        for process in workers():
            os.kill(process, signal.SIGKILL)
            return True
        return False

    def settle(self) -> None:
        """Two nodes again, after one was killed."""
        self._cluster.remove_node(self.second, allow_graceful=False)
        self.add()

    def stop(self) -> None:
        self._cluster.shutdown()


def workers() -> list[int]:
    """Processes of our workers, by the name that Ray gives them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::_Worker"):
                found.append(int(entry.name))
    return sorted(found)


def environment(home: Path) -> dict[str, str]:
    """What keeps Ray's files and our own out of the person's home."""
    return {
        "HOME": str(home),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # what else fills the memory here is not to end workers
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "10",  # on a busy machine a node may be silent for seconds
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120",
        "NSHOT_CACHE": str(home / "cache"),
        "PYTHONPATH": os.pathsep.join([str(Path(nshot.__file__).parents[1]), str(Path(__file__).parent)]),
    }


def seen(*, folder: str, workers: int, cores: int) -> Callable[[Sequence[int]], list[Any]]:
    """A job that tells what its worker was given: GPUs by Ray and by CUDA, and cores.

    Args:
        folder: where each worker leaves a file, for the others.
        workers: how many there are to be before any does its work: one that is quick would do it all.
        cores: of the worker.
    """
    import ray

    given = (ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"), cores)
    Path(folder, str(os.getpid())).touch()
    for _ in range(1000):
        if len(list(Path(folder).iterdir())) >= workers:
            break
        time.sleep(0.1)
    return lambda numbers: [given for _ in numbers]


@contextmanager
def driver(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "nshot", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
