"""Asks a model one question through the endpoint; what `helm test` runs, with the operator image's Python.

    python first_token.py

Settings come from the environment: ENDPOINT, MODEL, API_KEY (may be missing), KEY_IN (where the key should
be), DEADLINE_SECONDS. A model that is still starting is waited for. Exit code 0: it answered. 1: it did not;
the last lines say why. The key is never printed.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request

PAUSE_S = 5.0
TRY_S = 60.0
MAX_ANSWER = 1 << 20
QUESTION = "What is the capital of France? Answer in one word."


class Failed(Exception):
    """An answer that trying again will not change."""


class NotYet(Exception):
    """No answer yet: the endpoint or the model is still starting."""


def ask(endpoint: str, model: str, key: str) -> tuple[str, int]:
    """The answer's text and its tokens. Raises NotYet or Failed."""
    question = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": QUESTION}]}
    request = urllib.request.Request(  # noqa: S310 - the endpoint is the chart's own
        f"{endpoint}/v1/chat/completions",
        data=json.dumps(question).encode(),
        headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=TRY_S) as answer:  # noqa: S310
            body = json.loads(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            raise problem(error.code, error.read(MAX_ANSWER)) from None
    except (OSError, ValueError) as error:
        raise NotYet(f"no answer from {endpoint}: {error}") from None
    try:
        return str(body["choices"][0]["message"]["content"]), int(body["usage"]["completion_tokens"])
    except (KeyError, IndexError, TypeError):
        raise Failed("the answer is not a chat completion") from None


def problem(status: int, body: bytes) -> Exception:
    """What an error means: keys take a moment to reach the gateways, models start; the rest stays."""
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = "no explanation"
    text = f"status {status}: {said}"
    return NotYet(text) if status in (401, 403, 404, 408, 429) or status >= 500 else Failed(text)


def main(environment: dict[str, str]) -> int:
    """Ask until there is an answer or the deadline is over; the exit code."""
    endpoint, model = environment["ENDPOINT"], environment["MODEL"]
    key, deadline_s = environment.get("API_KEY", ""), float(environment.get("DEADLINE_SECONDS", "600"))
    if not key:
        print(f"no key in {environment.get('KEY_IN', 'API_KEY')}: asking without one", flush=True)
    begin, last = time.monotonic(), ""
    while True:
        try:
            text, tokens = ask(endpoint, model, key)
        except Failed as reason:
            print(f"FAILED: {model} at {endpoint}: {reason}", flush=True)
            return 1
        except NotYet as reason:
            if time.monotonic() - begin >= deadline_s:
                print(
                    f"FAILED: {model} at {endpoint} did not answer in {deadline_s:g} s: {reason}", flush=True
                )
                print("look at: kubectl get scl,md,mr,tn", flush=True)
                return 1
            if str(reason) != last:
                last = str(reason)
                print(f"waiting: {last}", flush=True)
            time.sleep(PAUSE_S)
        else:
            took = time.monotonic() - begin
            print(f"OK: {model} answered {text.strip()!r} ({tokens} tokens) after {took:.1f} s", flush=True)
            return 0


if __name__ == "__main__":
    sys.exit(main(dict(os.environ)))
