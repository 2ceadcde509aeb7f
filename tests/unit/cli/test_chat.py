from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.endpoint import REQUEST_ID, FakeEndpoint, Script, deployment
from tests.unit.cli.running import run
from tradewind.api.wire import GatewayConfig, RouteEntry, Task, VariantEntry
from tradewind.cli.chat import describe
from tradewind.cli.client import Answer

ROUTED = GatewayConfig(
    revision="r1",
    deployments=(deployment("embedder", task=Task.EMBED), deployment("llama"), deployment("mistral")),
    routes=(
        RouteEntry(
            model="chat",
            variants=(
                VariantEntry(name="control", deployment="llama"),
                VariantEntry(name="candidate", deployment="mistral"),
            ),
        ),
    ),
)


@pytest.fixture
def routed() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(ROUTED) as running:
        yield running


def test_an_answer_goes_to_standard_output_and_who_gave_it_to_standard_error(routed: FakeEndpoint) -> None:
    result = run("chat", "Capital of France?", "--url", routed.url + "/v1/", "--user", "ada")
    assert (result.exit_code, result.stdout) == (0, "Paris.\n")
    (seen,) = routed.seen
    assert seen.body["messages"] == [{"role": "user", "content": "Capital of France?"}]
    assert seen.body["user"] == "ada"
    assert f"chat → {seen.variant} · " in result.stderr
    assert REQUEST_ID in result.stderr


def test_quiet_leaves_the_answer_alone(routed: FakeEndpoint) -> None:
    result = run("--quiet", "chat", "Hello", "--url", routed.url)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Paris.\n", "")


def test_what_is_piped_in_is_one_question(endpoint: FakeEndpoint) -> None:
    result = run("chat", "--url", endpoint.url, stdin="Summarise:\n\nline one\nline two\n")
    assert (result.exit_code, result.stdout) == (0, "Paris.\n")
    (seen,) = endpoint.seen
    assert seen.body["messages"][0]["content"] == "Summarise:\n\nline one\nline two\n"


@pytest.mark.parametrize(
    ("stdin", "message"), [("", "no question"), (b"\xff\xff", "<stdin>: not UTF-8 text")]
)
def test_nothing_to_ask_is_wrong_input(endpoint: FakeEndpoint, stdin: str | bytes, message: str) -> None:
    result = run("chat", "--url", endpoint.url, stdin=stdin)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"error: {message}")
    assert endpoint.seen == []


def test_an_unknown_model_is_wrong_input_and_the_known_ones_are_named(routed: FakeEndpoint) -> None:
    result = run("chat", "hi", "--url", routed.url, "--model", "gpt-5")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: no model 'gpt-5'",
        "one of: chat, embedder, llama, mistral",
    ]


def test_the_model_without_being_named_is_one_that_can_talk() -> None:
    with FakeEndpoint(GatewayConfig(revision="r", deployments=ROUTED.deployments)) as endpoint:
        run("chat", "hi", "--url", endpoint.url)
        assert endpoint.seen[0].body["model"] == "llama"
    with FakeEndpoint(GatewayConfig(revision="r", deployments=ROUTED.deployments[:1])) as endpoint:
        result = run("chat", "hi", "--url", endpoint.url)
        assert result.exit_code == 1
        assert "no model that generates text" in result.stderr


def test_an_endpoint_that_is_not_there_is_said_in_a_line() -> None:
    result = run("chat", "hi", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: http://127.0.0.1:1 cannot be reached")


@pytest.mark.parametrize(
    "url", ["foo", "localhost:8000", "ftp://h/", "http://", "http://[::1", "http://k:secret@h"]
)
def test_what_is_no_endpoint_is_wrong_input(url: str) -> None:
    result = run("chat", "hi", "--url", url)
    assert result.exit_code == 2
    assert "is no endpoint" in result.stderr
    assert "secret" not in result.stderr


def test_without_a_key_the_hint_says_how_to_give_one() -> None:
    with FakeEndpoint(keys={"tw-good": "acme"}) as endpoint:
        result = run("chat", "hi", "--url", endpoint.url)
        assert result.exit_code == 2
        assert "(401 invalid_api_key)" in result.stderr
        assert "--key or TRADEWIND_API_KEY" in result.stderr


def test_a_wrong_key_is_said_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeEndpoint(keys={"tw-good": "acme"}) as endpoint:
        monkeypatch.setenv("TRADEWIND_API_KEY", "tw-wrong")
        result = run("chat", "hi", "--url", endpoint.url)
        assert result.exit_code == 2
        assert "the key that was sent is none of" in result.stderr
        assert "tw-wrong" not in result.stderr
        monkeypatch.setenv("TRADEWIND_API_KEY", "tw-good\n")
        assert run("chat", "hi", "--url", endpoint.url).exit_code == 0


@pytest.mark.parametrize("key", ["tw-caf\u00e9", "tw-\x00", "tw-a\r\nx-injected: 1"])
def test_a_key_that_http_cannot_carry_is_refused_and_not_shown(endpoint: FakeEndpoint, key: str) -> None:
    result = run("chat", "hi", "--url", endpoint.url, "--key", key)
    assert result.exit_code == 2
    assert "tw-" not in result.stderr


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        (Script(status=503, code="no_capacity"), 1, "Refused with 503. (503 no_capacity)"),
        (Script(status=403, code="model_not_allowed"), 2, "Refused with 403. (403 model_not_allowed)"),
        (Script(status=400), 2, "Refused with 400. (400)"),
        (Script(error_after=2), 1, "the engine died"),
        (Script(breaks_after=2), 1, "the stream ended before the answer was complete"),
        (Script(raw_event="{not json"), 1, "an event that is not a chat completion"),
        (Script(raw_event="[1]"), 1, "an event that is not a chat completion"),
        (Script(raw_event='{"error": "boom"}'), 1, "boom"),
        (Script(raw_event='{"choices": null}'), 1, "the stream ended before"),
    ],
    ids=["503", "403", "400", "error-event", "broken", "no-json", "no-object", "odd-error", "no-choices"],
)
def test_a_failed_answer_is_a_line_and_an_exit_code(
    endpoint: FakeEndpoint, script: Script, code: int, message: str
) -> None:
    endpoint.script = script
    result = run("chat", "hi", "--url", endpoint.url)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_what_came_before_a_break_is_shown_and_the_error_has_its_own_line(endpoint: FakeEndpoint) -> None:
    endpoint.script = Script(breaks_after=2)
    result = run("chat", "hi", "--url", endpoint.url)
    assert result.stdout == "Paris\n"
    assert result.stderr.startswith("error: ")


def test_a_model_cannot_drive_the_terminal(endpoint: FakeEndpoint) -> None:
    endpoint.script = Script(words=("\x1b[2J", "[red]a[/red]", "\x9b1m", " :smile:", "\tb\n", "\x07"))
    result = run("chat", "hi", "--url", endpoint.url)
    assert result.stdout == "[2J[red]a[/red]1m :smile:\tb\n\n"


def test_an_answer_that_was_cut_says_so(endpoint: FakeEndpoint) -> None:
    endpoint.script = Script(finish_reason="length")
    assert "cut at the token limit" in run("chat", "hi", "--url", endpoint.url).stderr


def test_without_a_platform_the_hint_says_how_to_start_one() -> None:
    result = run("chat", "hi")
    assert result.exit_code == 1
    assert "tradewind up FILE starts one" in result.stderr


def test_speed_counts_the_tokens_after_the_first() -> None:
    answer = Answer(ttft_s=0.5, duration_s=2.5, output_tokens=41, request_id="req_1")
    assert answer.tokens_per_s == 20.0
    assert describe(answer) == "500 ms to first token · 20.0 tokens/s · req_1"
    assert Answer(output_tokens=1, duration_s=1).tokens_per_s == 0.0
