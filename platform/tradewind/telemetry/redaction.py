"""The last resort against secrets in text that is about to be written: what looks like one is cut out.

Code is written so that no secret reaches a log. This is for the day it does, and for other people's code.
"""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "[redacted]"

_PATTERNS: Final = (
    # Authorization values and name=value pairs whose name says what they are: the name stays.
    re.compile(r"(?i)((?:\bbearer|\bbasic)\s+)[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)((?:api[_-]?key|x-api-key|auth[_-]?token|access[_-]?token|secret|password|passwd|authorization"
        r"|x-tradewind-token|\btoken)[\"']?\s*[:=]\s*[bu]?[\"']?)(?!\[redacted\])[^\s\"',;&}]{8,}"
    ),
    re.compile(r"([a-z][a-z0-9+.-]{1,20}://)[^\s/@:]{1,200}:[^\s/@]{1,200}(?=@)"),
    # Keys that are known by their form.
    re.compile(r"()\b(?:sk|pk|tw|hf|ghp|gho|ghs|glpat|xox[abps]|r8)[-_][A-Za-z0-9_-]{16,}"),
    re.compile(r"()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"()\bAIza[A-Za-z0-9_-]{30,}"),
    re.compile(r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    # 256 bits in hex: the internal token and our own keys. Trace and request ids are 128 bits.
    re.compile(r"()\b[0-9a-fA-F]{64,}\b"),
)


def redact(text: str) -> str:
    """`text` with everything that looks like a key, token or password replaced by `[redacted]`."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text
