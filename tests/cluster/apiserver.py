"""A real Kubernetes API server for tests: etcd, kube-apiserver and, where found, kube-controller-manager.

Nodes, kubelets and workload controllers there are none: a pod is an object that nothing starts and a
Deployment makes no pods. What a test needs of them it writes itself, through the status subresource.

    with running() as server:
        server.client("system:serviceaccount:ns:operator")   # any user, as RBAC lets him
        server.audit("system:serviceaccount:ns:operator")    # what he asked for
        with server.outage(): ...                            # back on the same port with the same data
"""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import yaml

from tests.cluster import audit
from tests.cluster.authority import Authority, new_key, pem
from tests.cluster.cluster import LOOPBACK, Cluster, write_kubeconfig
from tests.cluster.given import GivenCluster, given_kubeconfig
from tests.cluster.processes import Program, ProgramEnded, Programs
from tools import cluster_binaries

ADMIN = "tradewind-tests"
MASTERS = "system:masters"
START_S = 60.0
ATTEMPTS = 3
"""Another program may take a free port between our finding it and the server's using it."""
IN_USE = "address already in use"


class LocalServer(Cluster):
    """A server of our own with the programs in `binaries`, its data and logs in `home`."""

    def __init__(self, binaries: Path, home: Path) -> None:
        self._binaries, self._home = binaries, home
        self._programs = Programs(home)
        self._authority = Authority(home)
        self._audit = audit.Log(home / "audit.log")
        self._users: dict[tuple[str, tuple[str, ...]], Path] = {}
        self._port, self._etcd_port = free_port(), free_port()
        self._api: Program | None = None
        self.has_gc = (binaries / "kube-controller-manager").exists()

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://{LOOPBACK}:{self._port}"

    def start(self) -> None:
        """Start everything, until ready. Raises ProgramEnded."""
        self._write_files()
        self._start_etcd()
        self._start_first_api()
        if self.has_gc:
            self._programs.start(self._controller_manager())

    def close(self) -> None:
        """Kill everything; what was stored stays in `home`."""
        self._programs.kill_all()

    def kubeconfig(self, user: str | None = None, groups: tuple[str, ...] = ()) -> Path:
        """See Cluster. A certificate is signed for the user: any name will do, at any time."""
        name, of = (ADMIN, (MASTERS,)) if user is None else (user, groups or implied_groups(user))
        if (name, of) not in self._users:
            file = f"user-{len(self._users)}"
            certificate, key = self._authority.user(file, name, of)
            identity = {"client-certificate": str(certificate), "client-key": str(key)}
            place = {"server": self.url, "certificate-authority": str(self._authority.certificate)}
            self._users[name, of] = write_kubeconfig(self._home / f"{file}.yaml", place, identity)
        return self._users[name, of]

    def audit(self, user: str, *, denied: bool = False) -> list[audit.Call]:
        """See Cluster."""
        return self._audit.calls(user, denied=denied)

    def stop_api(self) -> None:
        """See Cluster. The controller manager stays and comes back by itself."""
        if self._api is not None:
            self._api.kill()
            self._api = None

    def start_api(self) -> None:
        """See Cluster. Raises ProgramEnded."""
        if self._api is None or self._api.process.poll() is not None:
            self._api = self._programs.start(self._api_server())
            with self._probe() as probe:
                self._api.wait_until(lambda: answers(probe, "/readyz"), START_S)

    def pause_api(self) -> None:
        """See Cluster."""
        if self._api is not None:
            self._api.pause()

    def resume_api(self) -> None:
        """See Cluster."""
        if self._api is not None:
            self._api.send(signal.SIGCONT)

    def _write_files(self) -> None:
        (self._home / "audit-policy.yaml").write_text(audit.POLICY)
        (self._home / "service-accounts.key").write_bytes(pem(new_key()))

    def _start_etcd(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            etcd = self._programs.start(self._etcd())
            try:
                with httpx.Client(base_url=f"http://{LOOPBACK}:{self._etcd_port}", trust_env=False) as probe:
                    return etcd.wait_until(lambda: answers(probe, "/health"), START_S)
            except ProgramEnded:
                if attempt == ATTEMPTS or IN_USE not in etcd.tail():
                    raise
                self._etcd_port = free_port()
        return None

    def _start_first_api(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self.start_api()
            except ProgramEnded as error:
                if attempt == ATTEMPTS or IN_USE not in str(error):
                    raise
                self._api, self._port = None, free_port()
                self._users.clear()
        return None

    def _probe(self) -> httpx.Client:
        """A client that shows the admin's certificate."""
        context = ssl.create_default_context(cafile=self._authority.certificate)
        user = yaml.safe_load(self.kubeconfig().read_text())["users"][0]["user"]
        context.load_cert_chain(user["client-certificate"], user["client-key"])
        return httpx.Client(base_url=self.url, verify=context, trust_env=False)

    def _etcd(self) -> list[str]:
        client = f"http://{LOOPBACK}:{self._etcd_port}"
        flags = {
            "data-dir": self._home / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
        }
        return [
            *self._command("etcd", flags | {"listen-peer-urls": f"http://{LOOPBACK}:0"}),
            "--unsafe-no-fsync",
        ]

    def _api_server(self) -> list[str]:
        certificate, key = self._authority.serving()
        account_key = self._home / "service-accounts.key"
        flags: dict[str, object] = {
            "etcd-servers": f"http://{LOOPBACK}:{self._etcd_port}",
            "bind-address": LOOPBACK,
            "secure-port": self._port,
            "advertise-address": LOOPBACK,
            # The service "kubernetes" cannot have a loopback address for its endpoint.
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.0.0.0/16",
            "cert-dir": self._home / "certificates",
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self._authority.certificate,
            "authorization-mode": "RBAC",
            # It would refuse pods until a controller has made their namespace's service account and token.
            "disable-admission-plugins": "ServiceAccount",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": account_key,
            "service-account-signing-key-file": account_key,
            "audit-policy-file": self._home / "audit-policy.yaml",
            "audit-log-path": self._audit.path,
            # In megabytes: one file for the whole session.
            "audit-log-maxsize": 4096,
            "allow-privileged": "true",
        }
        return self._command("kube-apiserver", flags)

    def _controller_manager(self) -> list[str]:
        flags: dict[str, object] = {
            "kubeconfig": self.kubeconfig("system:kube-controller-manager", (MASTERS,)),
            "controllers": "garbagecollector,namespace",
            "leader-elect": "false",
            "secure-port": 0,
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }
        return self._command("kube-controller-manager", flags)

    def _command(self, program: str, flags: dict[str, object]) -> list[str]:
        return [str(self._binaries / program), *(f"--{name}={value}" for name, value in flags.items())]


def implied_groups(user: str) -> tuple[str, ...]:
    """The groups in which Kubernetes puts a service account; none for another user."""
    if not user.startswith("system:serviceaccount:"):
        return ()
    return ("system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def answers(probe: httpx.Client, path: str) -> bool:
    """Whether a GET of `path` is answered 200 within a second."""
    with suppress(httpx.TransportError):
        return probe.get(path, timeout=1.0).status_code == httpx.codes.OK
    return False


@contextmanager
def running() -> Iterator[Cluster]:
    """The cluster that the environment names, else a server of our own that ends with the context.

    Raises cluster_binaries.BinariesError when there is none to be had, ProgramEnded when it does not start.
    """
    home = Path(tempfile.mkdtemp(prefix="tradewind-cluster-"))
    try:
        if given := given_kubeconfig():
            yield GivenCluster(given, home)
            return
        server = LocalServer(cluster_binaries.obtain(), home)
        try:
            server.start()
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)
