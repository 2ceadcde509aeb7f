"""What a person pastes to call the platform: a curl command and an SDK example."""

from __future__ import annotations

import json
import shlex

MAX_TOKENS = 64
"""A small model may go on to the end of its context, which on a CPU takes minutes."""


def how_to_call(endpoint: str, model: str, key_file: str | None) -> str:
    """A curl command, an empty line, and five lines of Python, for any shell and any file name."""
    return f"{curl(endpoint, model, key_file)}\n\n{sdk(endpoint, model, key_file)}"


def curl(endpoint: str, model: str, key_file: str | None) -> str:
    """A command for a POSIX shell. The key is read when it runs, not shown."""
    key = f"$(cat {shlex.quote(key_file)})" if key_file else "none"
    message = {"role": "user", "content": "Hello!"}
    body = {"model": model, "user": "user-1", "max_tokens": MAX_TOKENS, "messages": [message]}
    return f"""curl {shlex.quote(endpoint + "/v1/chat/completions")} \\
  -H "authorization: Bearer {key}" -H "content-type: application/json" \\
  -d {shlex.quote(json.dumps(body))}"""


def sdk(endpoint: str, model: str, key_file: str | None) -> str:
    """Python for the `openai` package."""
    key = f"open({key_file!r}).read().strip()" if key_file else '"none"'
    return f"""from openai import OpenAI
client = OpenAI(base_url={endpoint + "/v1"!r}, api_key={key})
request = dict(model={model!r}, max_tokens={MAX_TOKENS}, messages=[{{"role": "user", "content": "Hello!"}}])
for chunk in client.chat.completions.create(**request, stream=True):
    print(chunk.choices[0].delta.content or "", end="") if chunk.choices else None"""
