"""ModelDeployment → EngineSettings, the arguments of one engine application."""

from __future__ import annotations

from typing import Any

from tradewind.api.deployment import ModelDeployment, ModelDeploymentSpec
from tradewind.api.sources import scheme_of
from tradewind.api.wire import AdapterSettings, EngineSettings, SecretRef, SourceSettings, Task
from tradewind.compiler.arguments import check_arguments
from tradewind.compiler.diagnostics import Diagnostic
from tradewind.compiler.documents import Located
from tradewind.compiler.families import family_of
from tradewind.compiler.secret_names import SecretNames


def engine_settings(
    located: Located, deployment: ModelDeployment, secrets: SecretNames | None
) -> tuple[EngineSettings, list[Diagnostic]]:
    """Settings of one engine, and what is wrong with its arguments.

    Args:
        secrets: collects the Kubernetes Secrets that are read; None on one machine, which has none.
    """
    spec = deployment.spec
    checked, faults = check_arguments(spec.engine.args)
    wrong = [
        located.at(("spec", "engine", "args", *fault.path), fault.message, fault.hint) for fault in faults
    ]
    settings = EngineSettings(
        name=deployment.metadata.name,
        source=_source(spec, secrets),
        family=spec.family or family_of(spec.source.uri, checked),
        task=spec.task,
        args=_arguments(spec, checked),
        adapters=_adapters(spec, secrets),
        env={variable.name: variable.value for variable in sorted(spec.engine.env, key=lambda v: v.name)},
        drain_timeout_s=float(spec.drain.timeout),
    )
    return settings, wrong


def _arguments(spec: ModelDeploymentSpec, checked: dict[str, Any]) -> dict[str, Any]:
    """The resource's own arguments and those that its other fields stand for, by name."""
    args = dict(checked)
    args["runner"] = "generate" if spec.task is Task.GENERATE else "pooling"
    if spec.source.dtype is not None:
        args["dtype"] = spec.source.dtype
    # vLLM's own default, "auto", would load a pickle where there are no safetensors.
    mistral = "mistral" in (args.get("config_format"), args.get("tokenizer_mode"))
    args.setdefault("load_format", "mistral" if mistral else "safetensors")
    if spec.resources.tensor_parallel_size > 1:
        args["tensor_parallel_size"] = spec.resources.tensor_parallel_size
    if spec.resources.pipeline_parallel > 1:
        args["pipeline_parallel_size"] = spec.resources.pipeline_parallel
    return {name: args[name] for name in sorted(args)}


def _source(spec: ModelDeploymentSpec, secrets: SecretNames | None) -> SourceSettings:
    source = spec.source
    return SourceSettings(
        uri=source.uri,
        revision=source.revision,
        token=_token(spec, secrets),
        endpoint=source.endpoint,
        trust_remote_code=source.trust_remote_code,
        dtype=source.dtype,
    )


def _token(spec: ModelDeploymentSpec, secrets: SecretNames | None) -> SecretRef | None:
    token = spec.source.token_secret
    if token is None:
        return None
    if secrets is not None and token.secret is not None:
        return secrets.reference(token.secret.name, token.secret.key)
    return SecretRef(env=token.env, file=token.file)


def _adapters(spec: ModelDeploymentSpec, secrets: SecretNames | None) -> tuple[AdapterSettings, ...]:
    """Adapters; one of the same scheme as the model is read with the model's token and endpoint."""
    scheme = scheme_of(spec.source.uri)
    return tuple(
        AdapterSettings(
            name=adapter.name,
            source=SourceSettings(
                uri=adapter.uri,
                revision=adapter.revision,
                token=_token(spec, secrets) if scheme_of(adapter.uri) == scheme else None,
                endpoint=spec.source.endpoint if scheme_of(adapter.uri) == scheme else None,
            ),
        )
        for adapter in spec.adapters
    )
