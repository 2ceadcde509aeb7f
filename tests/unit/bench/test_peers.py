"""The bench's peers without their programs: configurations, start and end, arithmetic, what is shown."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
import yaml
from rich.console import Console

from tests.bench import report
from tests.bench.gateway_cost import Series, line_through, quantile
from tests.bench.load import thinned
from tests.bench.peers import install, measure, plot, results
from tests.bench.peers.known import ELSEWHERE, PEERS
from tests.bench.peers.measure import Effort
from tests.bench.peers.peer import GoProgram, Peer, Place, Wheels, start_of
from tests.bench.peers.results import Row
from tests.bench.peers.running import NotStarted, Running, environment, free_ports
from tests.bench.peers.way import Way

ROOT = Path(__file__).resolve().parents[3]
PLACE = Place(Path("/env"), Path("/work"), 4000, 4001, (5001, 5002), (3, 11))


def peer(command: tuple[str, ...], ready_s: float = 20.0) -> Peer:
    return Peer("one", "1.0", "a peer", Wheels(("one==1.0",)), command, ready_s=ready_s)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code.replace("$", "$$"))


@pytest.mark.parametrize("known", PEERS, ids=lambda known: known.name)
def test_every_peer_is_pinned_and_stays_on_loopback(known: Peer) -> None:
    start = start_of(known, PLACE)
    texts = [*start.command, *start.files.values(), *start.environ.values()]
    assert not any("$" in text for text in texts)
    assert any("4000" in text for text in texts), "it is told its port"
    assert any("5001" in text for text in texts), "it is told where the engine is"
    hosts = {host for text in texts for host in re.findall(r"https?://([^:/\"]+)", text)}
    assert hosts <= {"127.0.0.1"}
    assert known.version in known.install.pins
    if isinstance(known.install, Wheels):
        assert all("==" in requirement for requirement in known.install.requirements)


@pytest.mark.parametrize("known", PEERS, ids=lambda known: known.name)
def test_every_configuration_can_be_read(known: Peer) -> None:
    for name, text in start_of(known, PLACE).files.items():
        if name.endswith(".json"):
            assert json.loads(text)
        if name.endswith(".yaml"):
            assert yaml.safe_load(text)


def test_a_template_that_names_no_place_is_an_error() -> None:
    with pytest.raises(KeyError):
        start_of(peer(("run", "$nowhere")), PLACE)


def test_names_are_distinct() -> None:
    names = [known.name for known in PEERS] + list(ELSEWHERE)
    assert len(set(names)) == len(names)


def test_other_pins_have_another_environment(tmp_path: Path) -> None:
    other = Peer("one", "1.1", "", Wheels(("one==1.1",)), ())
    homes = {install.home_of(each, tmp_path) for each in (peer(()), other)}
    assert len(homes) == 2
    assert {home.parent for home in homes} == {tmp_path / "peers"}


def test_peers_of_one_package_share_an_environment(tmp_path: Path) -> None:
    homes = [install.home_of(known, tmp_path) for known in PEERS if known.name.startswith("vllm-router")]
    assert len(homes) == 2
    assert len(set(homes)) == 1


def test_a_program_that_cannot_be_built_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = Peer("go", "1.0", "", GoProgram("example.test/program", "v1.0"), ())
    with pytest.raises(install.NotInstalled, match="no Go on PATH"):
        install.obtain(program, tmp_path)
    assert not (install.home_of(program, tmp_path) / "ready").exists()


def test_a_reason_names_no_registry() -> None:
    said = "a\nb\n\ngo: reading https://registry.test/x: 403\n  gone  \n"
    assert install.reason(said) == "b go: reading (a registry) 403 gone"


def test_little_of_the_environment_reaches_a_peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test")
    given = environment({"OWN": "1"}, tmp_path)
    assert given["HOME"] == str(tmp_path)
    assert given["OWN"] == "1"
    assert not {"OPENAI_API_KEY", "HTTPS_PROXY", "PYTHONPATH"} & given.keys()


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(5))) == 5


ANSWERS = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"choices": []}')
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_peer_is_ready_when_it_answers_and_ends_with_its_children(tmp_path: Path) -> None:
    running = Running(peer((*python(ANSWERS), "$port")), tmp_path, tmp_path, (1, 2))
    try:
        running.until_ready()
        found = running.pids()
        assert len(found) == 2
    finally:
        running.end()
    assert running.pids() == []
    assert not any(psutil.pid_exists(pid) for pid in found)


def test_a_peer_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    running = Running(peer(python("raise SystemExit('no such option')")), tmp_path, tmp_path, (1, 2))
    with pytest.raises(NotStarted, match=r"ended with 1: no such option"):
        running.until_ready()
    running.end()


def test_a_peer_that_never_answers_is_bounded(tmp_path: Path) -> None:
    running = Running(peer(python("import time; time.sleep(60)"), 0.3), tmp_path, tmp_path, (1, 2))
    try:
        with pytest.raises(NotStarted, match="no answer within"):
            running.until_ready()
    finally:
        running.end()


def test_every_way_gets_the_same_requests() -> None:
    plain = Way("a", 1, list).plan(tokens=16, stream=True, connections=2)
    keyed = Way("b", 2, list, [("authorization", "Bearer k")], "openai/bench").plan(tokens=16, stream=True)
    for one, other in zip(plain.bodies, keyed.bodies, strict=True):
        assert json.loads(one) | {"model": "openai/bench"} == json.loads(other)
    assert keyed.headers == [*plain.headers, ("authorization", "Bearer k")]
    assert plain.users == keyed.users


def test_the_cost_of_a_token_comes_from_two_lengths() -> None:
    token, request = line_through((16, 128), (100 + 16 * 3, 100 + 128 * 3))
    assert (token, request) == pytest.approx((3, 100))


@pytest.mark.parametrize(("share", "found"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_quantiles(share: float, found: float) -> None:
    assert quantile([float(value) for value in range(100, 0, -1)], share) == found


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (2000, 2000), (2001, 1001), (48_000, 2000)])
def test_times_fit_into_a_pipe(count: int, kept: int) -> None:
    times = thinned([100 + number / 1e6 for number in range(count)])
    assert len(times) == kept
    assert len(json.dumps([times, times])) < 65_536
    assert times == sorted(times)


def test_a_short_effort_still_asks_once() -> None:
    assert Effort(seconds=0.1).answers(128) == 1
    assert Effort(seconds=6.4).answers(16) == 20


ROWS = [
    Row("bare engine", "", "nothing in the way", {measure.WHOLE: Series("ms", [1.0])}),
    Row("ours", "1.0", "a gateway", {measure.REQUEST: Series("us", [90.0, 110.0, 300.0])}),
    Row("theirs", "2.0", "a router", {}, "cannot be installed: gone"),
]
DOCUMENT = results.document(ROWS, Effort(), report.machine(), 12.0)


def test_the_document_keeps_every_round_and_every_reason() -> None:
    ways = json.loads(json.dumps(DOCUMENT))["ways"]
    assert ways[1]["figures"][measure.REQUEST]["rounds"] == [90.0, 110.0, 300.0]
    assert [way["failed"] for way in ways] == [None, None, "cannot be installed: gone"]


def test_the_page_has_a_row_for_each_way_and_a_reason_for_each_missing_one() -> None:
    page = results.page(ROWS, DOCUMENT, "peers.svg")
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert "| ours 1.0 | 110 |" in page
    assert "- theirs 2.0: cannot be installed: gone" in page
    assert "](peers.svg)" in page


@pytest.mark.parametrize(("load", "warned"), [(0.2, False), (3.0, True)])
def test_the_page_warns_of_a_busy_machine(load: float, warned: bool) -> None:
    machine = report.machine() | {"cpus": 2, "load_average": (load, load, load)}
    page = results.page(ROWS, results.document(ROWS, Effort(), machine, 12.0), "peers.svg")
    assert ("other things to do" in page) is warned


def test_the_terminal_shows_the_same() -> None:
    console = Console(file=io.StringIO(), width=results.WIDTH)
    results.show(ROWS, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert re.search(r"ours 1\.0 +110 ", said)
    assert "theirs 2.0: not measured" in said


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (12.34, "12.3"), (1.234, "1.23"), (-0.5, "-0.50")]
)
def test_three_digits(value: float, text: str) -> None:
    assert results.number(value) == text


def test_the_plot_is_svg_with_a_bar_for_each_value_on_one_scale() -> None:
    charts = [plot.Chart("per request <µs>", {"ours": 10.0, "theirs": 100.0, "far": 1000.0, "none": 0.0})]
    root = ElementTree.fromstring(plot.render(charts, "ours"))
    bars = [each for each in root.iter() if each.tag.endswith("rect")][1:]
    lengths = [float(bar.get("width", "")) for bar in bars]
    assert lengths[0] == 0.0
    assert lengths[1] * 2 == pytest.approx(lengths[2], rel=0.01)
    assert lengths[3] == 0.0
    assert bars[0].get("fill") != bars[1].get("fill")


@pytest.mark.parametrize(
    ("values", "found"), [([13.0, 240.0], (1, 3)), ([5.0], (0, 1)), ([10.0], (1, 2)), ([], (0, 1))]
)
def test_decades_hold_all_values(values: list[float], found: tuple[int, int]) -> None:
    assert plot.decades(values) == found
