"""LoRA adapters in a running vLLM: the `Host` of `engine.adapters`, on objects of `vllm_adapter`."""

from __future__ import annotations

from typing import Any

from tradewind.engine.adapters import Loaded


class VLLMLora:
    """One engine's adapters.

    vLLM's own endpoints for this stay closed: they take any path from whoever asks, and replace an adapter
    under its old name, whose computed prefixes it then goes on using. Here every version has a name of its
    own inside; outside it is called as it was asked for.
    """

    def __init__(self, engine: Any, models: Any, request_type: Any, max_rank: int) -> None:
        """`engine` is an AsyncLLM, `models` its OpenAIServingModels, `request_type` vLLM's LoRARequest."""
        self._engine = engine
        self._models = models
        self._request_type = request_type
        self._max_rank = max_rank
        self._served: dict[str, str] = {}
        """Name inside → name outside."""
        self._base: str = models.base_model_paths[0].name
        models.model_name = self._model_name

    @property
    def max_rank(self) -> int:
        return self._max_rank

    async def load(self, adapter: Loaded) -> None:
        await self._engine.add_lora(self._request(adapter))

    def serve(self, adapter: Loaded) -> None:
        self._served[adapter.label] = adapter.served
        self._models.lora_requests[adapter.served] = self._request(adapter)

    def refuse(self, served: str) -> None:
        self._models.lora_requests.pop(served, None)

    async def unload(self, adapter: Loaded) -> None:
        await self._engine.remove_lora(adapter.number)
        self._served.pop(adapter.label, None)

    def _request(self, adapter: Loaded) -> Any:
        return self._request_type(
            lora_name=adapter.label,
            lora_int_id=adapter.number,
            lora_path=str(adapter.directory),
            base_model_name=self._base,
        )

    def _model_name(self, lora_request: Any = None) -> str:
        """What an answer says as its `model`."""
        if lora_request is None:
            return self._base
        label: str = lora_request.lora_name
        return self._served.get(label, label)
