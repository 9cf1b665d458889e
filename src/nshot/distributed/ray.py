"""Shards over the nodes of a Ray cluster: one worker per node, or per GPU, and nothing but summaries back.

Ray starts the workers and says which are gone; that every shard is made, and none twice, is the plan's doing.
A worker takes all of a node's cores, or its share of them where there is one per GPU, and loads the model
once. What it makes it writes itself. When it dies, its shards are given to others and it is started again;
nodes that come later are taken on.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nshot.errors import MissingExtra, NshotError, RequestError

_AHEAD = 2  # pieces of work that each worker has: one in hand, one that waits
_LOOK = 2.0  # seconds between two looks at the nodes
_DEATHS = 5  # of the workers of a node, one after the other, before it is left alone
_NOBODY = 120.0  # seconds without any node before the run is given up
_IDLE = 30.0  # seconds without a worker at work before it is said why

log = logging.getLogger("nshot")


def start(address: str) -> None:
    """Connect to a cluster, or start one on this machine.

    Args:
        address: "local"; "auto", as RAY_ADDRESS or the running cluster says; "ray://head:10001"; "host:port".

    Raises:
        MissingExtra: Ray is not installed.
        RequestError: there is no such cluster.
    """
    ray = _ray()
    if ray.is_initialized():
        return
    _knock(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        raise RequestError(
            f"no Ray cluster at {address}: {said}. Start one with ray start --head, or use --ray local"
        ) from error


def _knock(address: str) -> None:
    """Whether somebody answers at host:port: Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address.startswith("ray://") and not (colon and port.isdecimal()):
        raise RequestError(f"{address} names no port: write {address.rstrip(':')}:10001, which is Ray's own")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"no Ray cluster at {address}: {error}. Start one with ray start --head, or use --ray local"
        ) from error


def stop() -> None:
    """Leave the cluster; one that was started here ends."""
    _ray().shutdown()


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker does.

    Attributes:
        make: called in the worker with ``arguments`` and the cores; what it returns is called with the
            numbers of shards, and returns a result per shard. A function of a module, so that the other
            machines find it.
        arguments: for ``make``.
        at_once: shards in a piece of work.
        gpu: whether each worker needs a GPU; then nodes without one are left out.
    """

    make: Callable[..., Callable[[Sequence[int]], list[Any]]]
    arguments: Mapping[str, Any]
    at_once: int = 1
    gpu: bool = False


@dataclass(slots=True)
class _Seat:
    """A node's place for a worker.

    Attributes:
        node: its id.
        cores: the cores that the worker has.
        worker: it, once it was asked for.
        coming: until it has begun, which waits for free cores, what is answered then. It is given no shards
            before: they would wait as well, for as long as others hold the cores.
        running: the shards that it has, by what will be their results.
        deaths: of its workers, one after the other.
    """

    node: str
    cores: int
    worker: Any = None
    coming: Any = None
    running: dict[Any, list[int]] = field(default_factory=dict)
    deaths: int = 0


class _Worker:
    """Lives on a node."""

    def __init__(self, job: Job, cores: int) -> None:
        self._job, self._cores = job, cores
        self._do: Callable[[Sequence[int]], list[Any]] | None = None

    def begun(self) -> None:
        """Answer, which tells that the worker is there."""

    def do(self, numbers: Sequence[int]) -> list[Any]:
        try:
            if self._do is None:  # here, so that what is wrong with the request is told and not died of
                self._do = self._job.make(**self._job.arguments, cores=self._cores)
            return self._do(numbers)
        except NshotError as error:
            return [_Wrong(f"{error}", type(error).__name__)]


@dataclass(frozen=True, slots=True)
class _Wrong:
    """An error that another try would meet again."""

    message: str
    kind: str


def run(job: Job, numbers: Iterable[int]) -> Iterator[Any]:
    """Do a job for all these shards on the nodes that there are; results come as they are done.

    Args:
        job: what to do.
        numbers: the shards.

    Raises:
        RequestError: a worker found the request wrong (a full disk, another model ...), or no node is left.
    """
    crew = _Crew(job, deque(numbers))
    try:
        yield from crew.run()
    finally:
        crew.dismiss()


class _Crew:
    def __init__(self, job: Job, waiting: deque[int]) -> None:
        self._ray = _ray()
        self._job = job
        self._waiting = waiting
        self._seats: dict[tuple[str, int], _Seat] = {}
        self._looked = 0.0
        self._alone_since: float | None = None
        self._busy = time.monotonic()
        self._last = ""

    def run(self) -> Iterator[Any]:
        while self._waiting or any(seat.running for seat in self._seats.values()):
            self._look()
            self._hand_out()
            owners = {ref: seat for seat in self._seats.values() for ref in seat.running}
            if owners:
                self._busy = time.monotonic()
            self._tell_why_idle()
            owners |= {seat.coming: seat for seat in self._seats.values() if seat.coming is not None}
            if not owners:
                time.sleep(0.2)
                continue
            ready, _ = self._ray.wait(list(owners), timeout=1.0)
            for ref in ready:
                yield from self._taken(owners[ref], ref)

    def _tell_why_idle(self) -> None:
        """A run in which nothing happens says what it waits for, once in a while."""
        if time.monotonic() - self._busy < _IDLE:
            return
        self._busy = time.monotonic()
        wanted = min((seat.cores for seat in self._seats.values() if seat.coming is not None), default=None)
        if wanted is not None:
            what = "a GPU" if self._job.gpu else f"all cores ({wanted}) of a node"
            log.warning("waiting for %s of the Ray cluster: other jobs hold them, or it is starting", what)

    def _taken(self, seat: _Seat, ref: Any) -> Iterator[Any]:
        if ref != seat.coming and ref not in seat.running:
            return  # given back, when the worker died
        errors = self._ray.exceptions
        try:
            results = self._ray.get(ref)
        except (errors.RayTaskError, errors.RaySystemError) as error:
            if isinstance(error, errors.RayActorError):
                self._lost(seat, error)
                return
            raise RequestError(f"a worker failed: {_told(error)}") from error
        except errors.RayError as error:
            self._lost(seat, error)
            return
        if ref == seat.coming:
            seat.coming = None
            return
        del seat.running[ref]
        if results and isinstance(results[0], _Wrong):
            raise RequestError(results[0].message)
        seat.deaths = 0
        yield from results

    def _lost(self, seat: _Seat, error: Exception) -> None:
        """The worker is gone: its shards go to others, and it is started again."""
        self._last = _told(error)
        log.debug("a worker is gone: %s", self._last)
        for numbers in seat.running.values():
            self._waiting.extendleft(reversed(numbers))
        seat.running.clear()
        if seat.worker is not None:
            with suppress(Exception):  # most likely it is dead already
                self._ray.kill(seat.worker)
        seat.worker = seat.coming = None
        seat.deaths += 1
        self._looked = 0.0
        if seat.deaths >= _DEATHS and all(each.deaths >= _DEATHS for each in self._seats.values()):
            raise RequestError(f"no worker stays alive: {self._last}")

    def _look(self) -> None:
        """Take on nodes that are new, and give up those that are gone."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        alive = {}
        for node, cores, gpus in _nodes():
            places = gpus if self._job.gpu else 1
            for place in range(places):
                alive[node, place] = max(1, cores // places)
        for key in [key for key in self._seats if key not in alive]:
            seat = self._seats.pop(key)
            for numbers in seat.running.values():
                self._waiting.extendleft(reversed(numbers))
        for key, cores in alive.items():
            if key not in self._seats:
                self._seats[key] = _Seat(key[0], cores)
        if self._seats:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _NOBODY:
            kind = "GPU" if self._job.gpu else "CPU"
            raise RequestError(f"the Ray cluster has had no node with a {kind} for two minutes")

    def _hand_out(self) -> None:
        for seat in self._seats.values():
            if seat.deaths >= _DEATHS:
                continue
            if self._waiting and seat.worker is None:
                seat.worker = self._hired(seat)
                seat.coming = seat.worker.begun.remote()
            while self._waiting and seat.coming is None and len(seat.running) < _AHEAD:
                numbers = [self._waiting.popleft() for _ in range(self._share())]
                seat.running[seat.worker.do.remote(numbers)] = numbers

    def _share(self) -> int:
        """Shards in the next piece of work: fewer toward the end, so that all are done at about one time."""
        return max(1, min(self._job.at_once, len(self._waiting) // (_AHEAD * max(len(self._seats), 1))))

    def _hired(self, seat: _Seat) -> Any:
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        kind = ray.remote(_Worker).options(
            num_cpus=seat.cores,
            num_gpus=1 if self._job.gpu else 0,
            max_restarts=0,  # started again here, where it is known which shards it had
            scheduling_strategy=NodeAffinitySchedulingStrategy(seat.node, soft=False),
        )
        return kind.remote(self._job, seat.cores)

    def dismiss(self) -> None:
        """End the workers."""
        for seat in self._seats.values():
            if seat.worker is not None:
                with suppress(Exception):
                    self._ray.kill(seat.worker)


def gpus() -> int:
    """The GPUs of the cluster's nodes."""
    return sum(found for _, _, found in _nodes())


def _nodes() -> Iterator[tuple[str, int, int]]:
    """The nodes that can work: the id of each, its cores, its GPUs."""
    for node in _ray().nodes():
        cores, found = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
        if node["Alive"] and cores:
            yield node["NodeID"], cores, found


def _told(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    said = " ".join((lines[-1] if lines else type(error).__name__).split())
    return said[:300]


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingExtra('--ray needs Ray: pip install "nshot[ray]"') from error
    return ray


# What workers do; found by name on the other machines.


def telling(*, model: Mapping[str, Any], cores: int) -> Callable[[Sequence[int]], list[Any]]:
    """Say what the model is on this machine.

    Args:
        model: arguments of ``nshot.load``.
        cores: to be used.
    """
    from nshot.distributed.plan import Maker
    from nshot.model import load

    maker = Maker.of(load(**model, threads=cores))
    return lambda numbers: [maker for _ in numbers]


def embedding(
    *, folder: str, model: Mapping[str, Any], again: bool, cores: int
) -> Callable[[Sequence[int]], list[Any]]:
    """Make shards of vectors.

    Args:
        folder: where the plan is.
        model: arguments of ``nshot.load``.
        again: make shards that hold failures once more.
        cores: to be used.
    """
    from nshot.distributed.plan import Plan
    from nshot.distributed.shards import Work
    from nshot.model import load
    from nshot.objects import open_folder

    plan = Plan.open(open_folder(folder))
    if plan is None:
        raise RequestError(
            f"{folder} is not there for a worker on {socket.gethostname()}: use a shared folder"
        )
    work = Work(plan, load(**model, threads=cores), again=again)
    return lambda numbers: list(work.run(sorted(numbers)))


def asking(
    *,
    vectors: str,
    output: str,
    classifier: tuple[Mapping[str, Any], Mapping[str, Any]],
    top_k: int,
    cores: int,
) -> Callable[[Sequence[int]], list[Any]]:
    """Answer parts of a folder of vectors.

    Args:
        vectors: the folder.
        output: the folder of answers.
        classifier: its arrays, and what ``told`` told of it.
        top_k: how many labels to tell of each image, at most.
        cores: to be used.
    """
    from nshot.classifier.classifier import Classifier
    from nshot.distributed.asking import Asking
    from nshot.embeddings import Parts

    task = Asking(Parts(vectors), output, Classifier.of_told(*classifier), top_k, cores=cores)
    return lambda numbers: list(task.run(sorted(numbers)))
