"""What can go wrong with an engine, in words that a user can act on.

    EngineError
    ├── EngineStartError      the engine did not start; the message is the cause, never "see above"
    │   └── SourceError       its weights could not be had
    ├── AdapterError          a LoRA adapter cannot be loaded; the engine goes on without it
    └── EngineUnhealthyError  it started, but is dead or makes no progress now

A message is one short paragraph without a traceback, a token or anything that a request said. The
cause is chained (`__cause__`) for those who debug.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of this package's errors."""


class EngineStartError(EngineError):
    """The engine cannot start with these settings on this machine."""


class SourceError(EngineStartError):
    """The model's weights cannot be had, or are of a kind that is refused."""


class AdapterError(EngineError):
    """A LoRA adapter that the running engine cannot take."""


class EngineUnhealthyError(EngineError):
    """A running engine that should get no more requests and be replaced."""
