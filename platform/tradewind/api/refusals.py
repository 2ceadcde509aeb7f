"""How an engine's refusals begin that the gateway has codes for: an engine's error has no room for a code.

vLLM's error bodies carry a message and a status, and Anthropic's form of them nothing else.
"""

from __future__ import annotations

from typing import Final

GRAMMAR: Final = "Structured output cannot be compiled: "
"""Regex, grammar, choice list, JSON schema, or a schema of a tool that must be called."""
TOOLS: Final = "Tools cannot be called: "
"""The deployment lacks what reads tool calls."""
