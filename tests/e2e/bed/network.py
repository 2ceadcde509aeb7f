"""The cluster's network: a bridge in the control plane, a cable to each node and to this machine, routes."""

from __future__ import annotations

from collections.abc import Iterable

from tests.e2e.bed.machines import Machine, MachineError, run
from tests.e2e.bed.plan import API, HOST, HOST_LINK, NODES, PREFIX, SERVICES, Node

BRIDGE = "nodes"
UPLINK = "eth0"
SETTINGS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
}
BRIDGE_FILTER = "net.bridge.bridge-nf-call-iptables"
"""The control plane's own firewall has no say in what nodes send to each other."""


def lay_backbone(control_plane: Machine) -> None:
    """The bridge with the API server's address, and this machine's cable to it. Raises MachineError."""
    _set_up(control_plane)
    control_plane.run("ip", "link", "add", BRIDGE, "type", "bridge")
    control_plane.run("ip", "address", "add", f"{API}/{PREFIX}", "dev", BRIDGE)
    control_plane.run("ip", "link", "set", BRIDGE, "up")
    control_plane.run("sysctl", "-q", f"{BRIDGE_FILTER}=0")
    _cable(control_plane, HOST_LINK, "host")
    run(["ip", "address", "add", f"{HOST}/{PREFIX}", "dev", HOST_LINK])
    run(["ip", "link", "set", HOST_LINK, "up"])
    run(["ip", "route", "add", SERVICES, "via", API])
    for node in NODES:
        run(["ip", "route", "add", node.pods, "via", node.address])
        control_plane.run("ip", "route", "add", node.pods, "via", node.address)


def connect(control_plane: Machine, node: Node, machine: Machine) -> None:
    """Plug a node in. Raises MachineError."""
    _set_up(machine)
    link = f"e2e-{node.name}"
    _cable(control_plane, link, node.name)
    run(["ip", "link", "set", link, "netns", str(machine.first), "name", UPLINK])
    machine.run("ip", "address", "add", f"{node.address}/{PREFIX}", "dev", UPLINK)
    machine.run("ip", "link", "set", UPLINK, "up")
    machine.run("ip", "route", "add", "default", "via", API)
    for other in _others(node):
        machine.run("ip", "route", "add", other.pods, "via", other.address)


def take_away_host_link() -> None:
    """This machine's end of the cable and its routes, where a killed control plane has not taken them yet."""
    try:
        run(["ip", "link", "delete", HOST_LINK])
    except MachineError as error:
        if "Cannot find device" not in str(error):
            raise


def _set_up(machine: Machine) -> None:
    machine.run("ip", "link", "set", "lo", "up")
    machine.run("sysctl", "-q", "-w", *(f"{key}={value}" for key, value in SETTINGS.items()))


def _cable(control_plane: Machine, here: str, there: str) -> None:
    """A pair of interfaces: `here` on this machine, the other one `there` on the bridge."""
    run(["ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", str(control_plane.first)])
    control_plane.run("ip", "link", "set", there, "master", BRIDGE, "up")


def _others(node: Node) -> Iterable[Node]:
    return (other for other in NODES if other.name != node.name)
