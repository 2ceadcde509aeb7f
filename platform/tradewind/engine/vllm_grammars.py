"""Tries one constraint as vLLM will: validated as at its front, compiled and begun as in its engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

FIRST_BACKEND = "xgrammar"
"""Which vLLM tries first where the deployment names none. Its engine keeps the one that it used first."""


def attempt_with(names: Any, engine: Any) -> Callable[[Any], None]:
    """A function that raises what vLLM would for a constraint, its `StructuredOutputsParams`.

    `names` are the adapter's, `engine` is vLLM's front. The compiler is made when it is first needed: for a
    large vocabulary that takes a second.
    """
    config = engine.vllm_config
    chosen = config.structured_outputs_config.backend
    backends = {"xgrammar": names.XgrammarBackend, "guidance": names.GuidanceBackend}
    make = backends.get(FIRST_BACKEND if chosen == "auto" else chosen)
    made = SimpleNamespace(backend=None)
    lock = threading.Lock()

    def backend() -> Any:
        with lock:
            if made.backend is None and make is not None:
                made.backend = make(
                    config,
                    tokenizer=engine.renderer.tokenizer,
                    vocab_size=engine.model_config.get_vocab_size(),
                )
                _without_cache(made.backend)
            return made.backend

    def attempt(constraint: Any) -> None:
        params = names.SamplingParams(structured_outputs=replace(constraint))
        params._validate_structured_outputs(
            engine.model_config, config.structured_outputs_config, engine.renderer.tokenizer
        )
        compiler = backend()
        if compiler is None:
            return
        grammar = compiler.compile_grammar(*names.structured_output_key(params.structured_outputs))
        allowed = compiler.allocate_token_bitmask(1)
        grammar.fill_bitmask(allowed, 0)
        if not allowed.any():
            # A schema that is only itself compiles, and then fails the engine's request at its first token.
            raise ValueError("no answer can ever satisfy it.")

    return attempt


def _without_cache(backend: Any) -> None:
    """Keep nothing of what is compiled: the engine's process has a cache of its own, of up to 512 MB."""
    compiler = getattr(backend, "compiler", None)
    if compiler is not None:
        backend.compiler = type(compiler)(compiler.tokenizer_info, max_threads=1, cache_enabled=False)
