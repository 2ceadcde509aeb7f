"""One constraint through vLLM's steps, with stand-ins for its classes; the real ones: integration/engine."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tradewind.engine.vllm_grammars import attempt_with


@dataclass
class Constraint:
    text: str
    backend: str = ""


class Params:
    """vLLM's validation names a backend on the parameters, and changes them."""

    def __init__(self, structured_outputs: Constraint) -> None:
        self.structured_outputs = structured_outputs

    def _validate_structured_outputs(self, model: str, config: Any, tokenizer: str) -> None:
        assert (model.startswith("model"), tokenizer) == (True, "tokenizer")
        if self.structured_outputs.text == "invalid":
            raise ValueError("invalid")
        self.structured_outputs.text += "!"


class Model(str):
    __slots__ = ()

    def get_vocab_size(self) -> int:
        return 7


class Mask(list[int]):
    def any(self) -> bool:
        return any(self)


class Compiler:
    def __init__(
        self, tokenizer_info: str = "info", *, max_threads: int = 8, cache_enabled: bool = True
    ) -> None:
        self.tokenizer_info = tokenizer_info
        self.cached = cache_enabled


class Backend:
    made: list[Backend]

    def __init__(self, config: Any, *, tokenizer: str, vocab_size: int) -> None:
        assert (tokenizer, vocab_size) == ("tokenizer", 7)
        self.compiler = Compiler()
        self.compiled: list[tuple[str, str]] = []
        type(self).made.append(self)

    def compile_grammar(self, kind: str, text: str) -> Any:
        self.compiled.append((kind, text))
        return SimpleNamespace(fill_bitmask=lambda mask, row: mask.append(int(text != "empty!")))

    def allocate_token_bitmask(self, rows: int) -> Mask:
        return Mask()


def prepared(chosen: str = "auto") -> tuple[Any, type[Backend], type[Backend]]:
    class Xgrammar(Backend):
        made: list[Backend] = []  # noqa: RUF012 - what this test made

    class Guidance(Backend):
        made: list[Backend] = []  # noqa: RUF012 - what this test made

    names = SimpleNamespace(
        XgrammarBackend=Xgrammar,
        GuidanceBackend=Guidance,
        SamplingParams=Params,
        structured_output_key=lambda constraint: ("json", constraint.text),
    )
    config = SimpleNamespace(structured_outputs_config=SimpleNamespace(backend=chosen))
    engine = SimpleNamespace(
        vllm_config=config, model_config=Model("model"), renderer=SimpleNamespace(tokenizer="tokenizer")
    )
    return attempt_with(names, engine), Xgrammar, Guidance


def test_a_constraint_is_validated_compiled_and_begun_and_stays_as_it_was() -> None:
    attempt, xgrammar, guidance = prepared()
    constraint = Constraint("good")
    attempt(constraint)
    attempt(constraint)
    (backend,) = xgrammar.made
    assert backend.compiled == [("json", "good!")] * 2
    assert constraint == Constraint("good")
    assert not backend.compiler.cached
    assert guidance.made == []


def test_what_validation_refuses_is_not_compiled() -> None:
    attempt, xgrammar, _ = prepared()
    with pytest.raises(ValueError, match="invalid"):
        attempt(Constraint("invalid"))
    assert xgrammar.made == []


def test_one_that_allows_no_first_token_is_refused() -> None:
    attempt, _, _ = prepared()
    with pytest.raises(ValueError, match="no answer"):
        attempt(Constraint("empty"))


def test_the_deployments_own_backend_compiles() -> None:
    attempt, xgrammar, guidance = prepared("guidance")
    attempt(Constraint("good"))
    assert (len(xgrammar.made), len(guidance.made)) == (0, 1)


def test_a_backend_that_is_not_known_here_validates_only() -> None:
    attempt, xgrammar, guidance = prepared("outlines")
    attempt(Constraint("good"))
    with pytest.raises(ValueError, match="invalid"):
        attempt(Constraint("invalid"))
    assert xgrammar.made == guidance.made == []
