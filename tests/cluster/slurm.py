"""A Slurm of one node on this machine, for the time of a test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from two_nodes import free_ports

TOOLS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
_START = 60  # seconds to wait for the node
_DONE = 300  # seconds to wait for a job

# Nobody is told apart (auth/none): it listens on this machine, for as long as the test runs. The node claims
# four cores and much memory, so that four tasks run at once wherever this is.
_SETTINGS = """
ClusterName=nshot
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MailProg=/bin/true
KillWait=2
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here; None: there can."""
    gone = [tool for tool in TOOLS if shutil.which(tool) is None]
    if gone:
        return f"Slurm is not installed ({', '.join(gone)}): apt-get install slurm-wlm"
    if os.getuid() != 0:
        return "Slurm's node is started by root alone"
    return None


class Slurm:
    """A controller and a node.

    Args:
        environment: for jobs.
        home: a folder for state and logs.
    """

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        self._environment = dict(environment) | {"SLURM_CONF": str(home / "slurm.conf")}
        self._home = home

    def tell(self, *command: str) -> str:
        """Run one of Slurm's tools; what it prints."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=self._environment, cwd=self._home, timeout=60
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, script: Path, *options: str) -> str:
        """Its job's number."""
        return self.tell("sbatch", "--parsable", *options, str(script))

    def tasks(self, job: str, state: str = "all") -> list[int]:
        """The tasks of an array that are waiting, running or just ending."""
        told = self.tell("squeue", "--noheader", "--array", "--format=%K", f"--states={state}", "--jobs", job)
        return sorted(int(line) for line in told.split())

    def requeue(self, job: str, task: int) -> None:
        """Stop a task that runs, and have it begin again soon; Slurm by itself waits for two minutes.

        Not at once: its credentials are told apart by the second, and one of the second in which the task
        was stopped is taken for the stopped one's.
        """
        self.tell("scontrol", "requeue", f"{job}_{task}")
        until = time.monotonic() + _START
        while task not in self.tasks(job, "pending"):
            assert time.monotonic() < until, self.logs()
            time.sleep(0.2)
        self.tell("scontrol", "update", f"jobid={job}_{task}", "starttime=now+3")

    def ended(self, job: str) -> dict[int, str]:
        """How each task of an array ended, once all have: task -> such as "COMPLETED" or "CANCELLED"."""
        until = time.monotonic() + _DONE
        while time.monotonic() < until:
            told = self.tell("scontrol", "show", "job", job, "--oneliner")
            found = [dict(word.partition("=")[::2] for word in line.split()) for line in told.splitlines()]
            if all(task["JobState"] not in ("PENDING", "RUNNING", "COMPLETING") for task in found):
                return {int(task["ArrayTaskId"]): task["JobState"] for task in found}
            time.sleep(0.3)
        raise AssertionError(f"job {job} did not end: {told}")

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        files = sorted(self._home.glob("slurm*.log"))
        return "\n".join(file.name + ":\n" + "\n".join(file.read_text().splitlines()[-8:]) for file in files)


@contextmanager
def slurm(home: Path, environment: Mapping[str, str]) -> Iterator[Slurm]:
    """A Slurm whose node waits for work.

    Raises:
        RuntimeError: it does not start here; with what its logs say.
    """
    home.mkdir(parents=True)
    for name in ("state", "spool"):
        (home / name).mkdir()
    controller, node = free_ports(2)
    host = socket.gethostname().partition(".")[0]
    said = _SETTINGS.format(host=host, home=home, controller=controller, node=node)
    (home / "slurm.conf").write_text(said)
    found = Slurm(environment, home)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for name in ("slurmctld", "slurmd"):
            with (home / f"{name}.out").open("wb") as out:
                daemons.append(
                    subprocess.Popen(
                        [name, "-D"],
                        env=found._environment,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )
        until = time.monotonic() + _START
        while time.monotonic() < until and all(daemon.poll() is None for daemon in daemons):
            try:
                if "idle" in found.tell("sinfo", "--noheader", "--format=%T"):
                    break
            except (AssertionError, subprocess.TimeoutExpired):
                pass
            time.sleep(0.3)
        else:
            raise RuntimeError(f"Slurm does not start here: {found.logs()}")
        yield found
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
