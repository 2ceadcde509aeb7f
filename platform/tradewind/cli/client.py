"""A small streaming client of the platform's own endpoint, for the commands that ask questions.

It measures what a user feels: time to the first token and tokens per second after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tradewind.api import headers

CONNECT_S = 10.0


class EndpointError(Exception):
    """The endpoint answered with an error, broke off, or is not there; the message is for people.

    `status` is the HTTP status, 0 where there was none. Never holds the key.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Answer:
    """One answer and how it came."""

    text: str = ""
    request_id: str = ""
    route: str = ""
    variant: str = ""
    ttft_s: float = 0.0
    """Until the first token, be it of a thought that is not shown."""
    duration_s: float = 0.0
    output_tokens: int = 0
    finish_reason: str = ""

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first, per second after the first; 0 for a single token."""
        span = self.duration_s - self.ttft_s
        return (self.output_tokens - 1) / span if self.output_tokens > 1 and span > 0 else 0.0

    def read_head(self, response: httpx.Response) -> None:
        """Who answered."""
        self.request_id = response.headers.get(headers.REQUEST_ID, "")
        self.route = response.headers.get(headers.ROUTE, "")
        self.variant = response.headers.get(headers.VARIANT, "")


class Client:
    """Asks one endpoint. `base` is without `/v1`; `key` may be empty."""

    def __init__(self, base: str, key: str, *, timeout_s: float = 120.0) -> None:
        self.base = base
        self.has_key = bool(key)
        self._http = httpx.Client(
            base_url=base,
            headers=_authorization(key),
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            trust_env=False,
        )

    def models(self) -> list[dict[str, Any]]:
        """The `/v1/models` list; each entry has an `id`. Raises EndpointError."""
        response = self._ask("GET", "/v1/models")
        try:
            return [{**entry, "id": str(entry["id"])} for entry in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise EndpointError(f"{self.base} does not speak the OpenAI API") from None

    def ready(self) -> dict[str, Any] | None:
        """What `/readyz` says, or None when it is not (yet) reachable."""
        try:
            response = self._http.get("/readyz", timeout=5.0)
            return dict(response.json()) | {"status_code": response.status_code}
        except (httpx.HTTPError, ValueError, TypeError):
            return None

    def post(
        self, path: str, body: Mapping[str, Any], answer: Answer, extra: Mapping[str, str] | None = None
    ) -> Any:
        """The JSON answer to one request that is not streamed. Raises EndpointError."""
        started = time.perf_counter()
        response = self._ask("POST", path, json=dict(body), headers=dict(extra or {}))
        answer.read_head(response)
        answer.ttft_s = answer.duration_s = time.perf_counter() - started
        try:
            return response.json()
        except ValueError:
            raise EndpointError(f"the answer of {path} is not JSON") from None

    def chat(
        self,
        model: str,
        messages: list[dict[str, str]],
        answer: Answer,
        extra: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Generator[str, None, None]:
        """Stream an answer, yielding pieces of text and filling `answer`; `extra` are headers.

        Raises:
            EndpointError: an error status, an error event, or no proper end.
        """
        request = {"model": model, "messages": messages, "stream": True, **body}
        request["stream_options"] = {"include_usage": True}
        started = time.perf_counter()
        try:
            with self._http.stream(
                "POST", "/v1/chat/completions", json=request, headers=dict(extra or {})
            ) as response:
                if response.status_code != 200:
                    response.read()
                _raise_for_error(response)
                answer.read_head(response)
                yield from _read_events(response.iter_lines(), answer, started)
        except httpx.HTTPError as error:
            raise EndpointError(_explain(error, self.base)) from error
        finally:
            answer.duration_s = time.perf_counter() - started

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise EndpointError(_explain(error, self.base)) from error
        _raise_for_error(response)
        return response


def _authorization(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def with_key(key: str) -> dict[str, str]:
    """Headers for a request with another key than the client's."""
    return _authorization(key)


def _read_events(lines: Iterator[str], answer: Answer, started: float) -> Iterator[str]:
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        for delta in _read_event(data, answer):
            if any(delta.get(name) for name in ("content", "reasoning", "reasoning_content")):
                answer.ttft_s = answer.ttft_s or time.perf_counter() - started
            if isinstance(piece := delta.get("content"), str) and piece:
                answer.text += piece
                yield piece
    raise EndpointError("the stream ended before the answer was complete")


def _read_event(data: str, answer: Answer) -> list[dict[str, Any]]:
    """The deltas of one event; usage and the reason to finish go to `answer`."""
    try:
        event = json.loads(data)
        if error := event.get("error"):
            message = error.get("message") if isinstance(error, dict) else error
            raise EndpointError(str(message or "the stream ended with an error"))
        if usage := event.get("usage"):
            answer.output_tokens = int(usage.get("completion_tokens") or 0)
        choices = event.get("choices") or []
        for choice in choices:
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        return [choice.get("delta") or {} for choice in choices]
    except (ValueError, TypeError, AttributeError):
        raise EndpointError("the stream holds an event that is not a chat completion") from None


def _raise_for_error(response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    try:
        error = response.json()["error"]
        code = f" {error['code']}" if error.get("code") else ""
        raise EndpointError(f"{error['message']} ({status}{code})", status)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EndpointError(f"the endpoint answered {status}", status) from None


def _explain(error: httpx.HTTPError, base: str) -> str:
    """What went wrong between us and the endpoint. Not the exception's text, which may quote a header."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"{base} cannot be reached within {CONNECT_S:.0f} s"
    if isinstance(error, httpx.ConnectError):
        return f"{base} cannot be reached: nothing listens there, or the name is unknown"
    if isinstance(error, httpx.TimeoutException):
        return f"{base} went silent"
    return f"{base} broke off ({type(error).__name__})"
