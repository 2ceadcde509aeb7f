"""A small streaming client of the platform's own endpoint, for the commands that ask questions.

It measures what a user feels: time to the first token and tokens per second after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tradewind.api import headers


class EndpointError(Exception):
    """The endpoint answered with an error or broke off; the message is for people."""


@dataclass(slots=True)
class Answer:
    """One streamed answer and how it came."""

    text: str = ""
    request_id: str = ""
    route: str = ""
    variant: str = ""
    ttft_s: float = 0.0
    duration_s: float = 0.0
    output_tokens: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first, per second after the first; 0 for a single token."""
        span = self.duration_s - self.ttft_s
        return (self.output_tokens - 1) / span if self.output_tokens > 1 and span > 0 else 0.0


class Client:
    """Asks one endpoint. `base` is without `/v1`; `key` may be empty."""

    def __init__(self, base: str, key: str, *, timeout_s: float = 120.0) -> None:
        auth = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=base, headers=auth, timeout=timeout_s, trust_env=False)

    def models(self) -> list[dict[str, Any]]:
        """The `/v1/models` list."""
        response = self._http.get("/v1/models")
        _raise_for_error(response)
        return list(response.json()["data"])

    def ready(self) -> dict[str, Any] | None:
        """What `/readyz` says, or None when it is not (yet) reachable."""
        try:
            response = self._http.get("/readyz", timeout=5.0)
            return dict(response.json()) | {"status_code": response.status_code}
        except (httpx.HTTPError, ValueError):
            return None

    def chat(self, model: str, messages: list[dict[str, str]], answer: Answer, **body: Any) -> Iterator[str]:
        """Stream an answer, yielding pieces of text and filling `answer`.

        Raises:
            EndpointError: an error status, an error event, or no proper end.
        """
        request = {"model": model, "messages": messages, "stream": True, **body}
        request["stream_options"] = {"include_usage": True}
        started = time.perf_counter()
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=request) as response:
                if response.status_code != 200:
                    response.read()
                _raise_for_error(response)
                answer.request_id = response.headers.get(headers.REQUEST_ID, "")
                answer.route = response.headers.get(headers.ROUTE, "")
                answer.variant = response.headers.get(headers.VARIANT, "")
                yield from _read_events(response.iter_lines(), answer, started)
        except httpx.HTTPError as error:
            raise EndpointError(f"the endpoint broke off: {type(error).__name__}") from error
        answer.duration_s = time.perf_counter() - started

    def close(self) -> None:
        self._http.close()


def _read_events(lines: Iterator[str], answer: Answer, started: float) -> Iterator[str]:
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise EndpointError(event["error"].get("message", "the stream ended with an error"))
        if usage := event.get("usage"):
            answer.output_tokens = usage.get("completion_tokens", 0)
        for choice in event.get("choices", []):
            if piece := choice.get("delta", {}).get("content"):
                answer.ttft_s = answer.ttft_s or time.perf_counter() - started
                answer.text += piece
                yield piece
    raise EndpointError("the stream ended before the answer was complete")


def _raise_for_error(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    try:
        error = response.json()["error"]
        raise EndpointError(f"{error['message']} ({response.status_code} {error['code']})")
    except (ValueError, KeyError, TypeError):
        raise EndpointError(f"the endpoint answered {response.status_code}") from None
