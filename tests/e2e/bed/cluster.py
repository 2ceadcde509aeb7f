"""The cluster as a whole: up, down, and what tests do to it.

    cluster = up()
    cluster.kubectl("get", "nodes")
    cluster.lose("node-b")     # the node is gone as if its power were cut
    down()

One cluster at a time on a machine. A run that died leaves processes that the next `up` or `down` ends: they
are named in a file that is current at every moment.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.e2e.bed import cgroups, network, plan
from tests.e2e.bed.access import Access, grant
from tests.e2e.bed.addons import install_addons, wait_until_ready
from tests.e2e.bed.control_plane import START_S, ready, start_control_plane
from tests.e2e.bed.images import Builder, say
from tests.e2e.bed.kubectl import Kubectl
from tests.e2e.bed.machines import Machine, MachineError, start_machine
from tests.e2e.bed.node import start_node
from tests.e2e.bed.plan import CONTROL_PLANE, NODES, Home, Node
from tests.e2e.bed.programs import Program, Register, start_program
from tests.e2e.bed.requirements import check_machine, programs
from tests.e2e.bed.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class BedCluster:
    """A cluster that runs."""

    home: Home
    register: Register
    binaries: Path

    @property
    def kubectl(self) -> Kubectl:
        """As one who may do anything."""
        return Kubectl(self.binaries / "kubectl", self.home.admin)

    def program(self, machine: str, name: str) -> Program:
        """kube-apiserver of "control-plane", kubelet of "node-a", and so on."""
        return self.register.programs[machine, name]

    def lose(self, node: str) -> None:
        """Cut a node's power: its processes, pods and network are gone at once, and nothing is told."""
        self.register.machines[node].kill()

    def bring_back(self, name: str) -> None:
        """Switch on a node that was lost; it has its disk and nothing runs."""
        node = next(node for node in NODES if node.name == name)
        self._start_node(node, self._start_machine(node, outlives_us=True))

    def stop_api(self) -> None:
        """Kill the API server: connections end, new ones are refused."""
        self.program(CONTROL_PLANE, "kube-apiserver").kill()

    def start_api(self) -> None:
        """Start it again with the same data, until ready. Raises ProgramEnded."""
        old = self.program(CONTROL_PLANE, "kube-apiserver")
        if not old.alive:
            machine = self.register.machines[CONTROL_PLANE]
            new = start_program(machine, old.name, old.command, self.home.of(CONTROL_PLANE))
            self.register.add(new)
            new.wait_until(lambda: ready(Access(self.home.certificates)), START_S)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The API server is gone within, and ready again after."""
        self.stop_api()
        try:
            yield
        finally:
            self.start_api()

    @contextmanager
    def paused(self, machine: str, name: str) -> Iterator[None]:
        """A program stands still within: connections stay open and nothing answers."""
        program = self.program(machine, name)
        program.send(signal.SIGSTOP)
        try:
            yield
        finally:
            program.send(signal.SIGCONT)

    def start(self, *, outlives_us: bool) -> None:
        """Start every machine and program, until all is ready. Raises MachineError, ProgramEnded."""
        access = grant(self.home)
        self.home.of(CONTROL_PLANE).mkdir(parents=True, exist_ok=True)
        machine = start_machine(CONTROL_PLANE, self.home.of(CONTROL_PLANE), outlives_us=outlives_us)
        self.register.add(machine)
        network.lay_backbone(machine)
        start_control_plane(self.home, machine, self.binaries, access, self.register)
        # The kernel ends a machine with the thread that started it: all start here, and go on at once.
        machines = [self._start_machine(node, outlives_us=outlives_us) for node in NODES]
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(self._start_node, NODES, machines))
        install_addons(self.kubectl, self.home, self.binaries)
        wait_until_ready(self.kubectl, len(NODES))

    def _start_machine(self, node: Node, *, outlives_us: bool) -> Machine:
        self.home.of(node.name).mkdir(parents=True, exist_ok=True)
        machine = start_machine(node.name, self.home.of(node.name), outlives_us=outlives_us)
        self.register.add(machine)
        return machine

    def _start_node(self, node: Node, machine: Machine) -> None:
        store(self.home).attach(machine, self.home.of(node.name))
        network.connect(self.register.machines[CONTROL_PLANE], node, machine)
        start_node(self.home, node, machine, self.binaries, Access(self.home.certificates), self.register)


def store(home: Home) -> Store:
    """The images of all nodes."""
    return Store(home.path.parent / "store")


def builder(home: Home) -> Builder:
    """What builds them."""
    return Builder(home.path.parent / "images")


def up(*, outlives_us: bool = True) -> BedCluster:
    """Start a cluster with the images of this checkout; one that runs is ended first.

    Raises MachineError, ProgramEnded.
    """
    check_machine()
    home = plan.home()
    with only_us(home):
        _clear(home)
        images = builder(home)
        # One waits for the network while the other compiles.
        with ThreadPoolExecutor(1) as beside:
            bases = beside.submit(images.build_bases)
            binaries = programs()
            bases.result()
        wanted = timed("images", lambda: images.build_all(binaries))
        timed("store", lambda: store(home).fill(images, wanted))
        home.path.mkdir(parents=True, exist_ok=True)
        cluster = BedCluster(home, Register(home.state), binaries)
        timed("cluster", lambda: cluster.start(outlives_us=outlives_us))
        return cluster


def running() -> BedCluster | None:
    """The cluster that runs; None where there is none."""
    home = plan.home()
    register = Register.read(home.state)
    machine = register.machines.get(CONTROL_PLANE)
    return BedCluster(home, register, programs()) if machine and machine.alive else None


def down() -> None:
    """End the cluster, or what a dead run left of one, and remove all but images. Raises MachineError."""
    home = plan.home()
    with only_us(home):
        _clear(home)


def _clear(home: Home) -> None:
    # Nodes first: their API server should not see them leave one by one.
    for machine in reversed(Register.read(home.state).machines.values()):
        machine.kill()
    network.take_away_host_link()
    cgroups.remove()
    shutil.rmtree(home.path, ignore_errors=True)


def timed(what: str, work: Callable[[], T]) -> T:
    """What `work` returns; one line says how long it took."""
    started = time.monotonic()
    done = work()
    say(f"{what} ready in {time.monotonic() - started:.0f} s")
    return done


@contextmanager
def only_us(home: Home) -> Iterator[None]:
    """Hold the lock of the machine's one cluster while it is started or ended. Raises MachineError."""
    home.path.parent.mkdir(parents=True, exist_ok=True)
    with (home.path.parent / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MachineError("Another process is starting or ending the test bed's cluster.") from error
        yield
