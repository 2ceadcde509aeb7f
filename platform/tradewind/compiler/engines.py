"""ModelDeployment → EngineSettings, the arguments of one engine application, and its LoRA adapters."""

from __future__ import annotations

from typing import Any, Final

from tradewind.api.deployment import ModelDeployment, ModelDeploymentSpec
from tradewind.api.secrets import TokenRef
from tradewind.api.sources import AdapterSource, BucketCredentials, ModelSource, scheme_of
from tradewind.api.wire import AdapterSettings, EngineSettings, S3Key, SecretRef, SourceSettings, Task
from tradewind.compiler.arguments import check_arguments
from tradewind.compiler.diagnostics import Diagnostic
from tradewind.compiler.documents import Located
from tradewind.compiler.families import family_of
from tradewind.compiler.secret_names import SecretNames

_LORA_ARGUMENTS: Final = ("max_loras", "max_lora_rank", "max_cpu_loras")
"""Room for adapters; one of them is enough to have an engine take adapters before there are any."""


def engine_settings(
    located: Located, deployment: ModelDeployment, secrets: SecretNames | None, *, ray_metrics: bool
) -> tuple[EngineSettings, list[Diagnostic]]:
    """Settings of one engine, and what is wrong with its arguments.

    Args:
        secrets: collects the Kubernetes Secrets that are read; None on one machine, which has none.
        ray_metrics: vLLM's metrics go to Ray's.
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
        lora=bool(spec.adapters) or any(checked.get(name) is not None for name in _LORA_ARGUMENTS),
        env={variable.name: variable.value for variable in sorted(spec.engine.env, key=lambda v: v.name)},
        drain_timeout_s=float(spec.drain.timeout),
        ray_metrics=ray_metrics,
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
        token=_optional(source.token_secret, secrets),
        endpoint=source.endpoint,
        s3_key=_s3_key(source.credentials, secrets),
        gcs_key=_gcs_key(source.credentials, secrets),
        region=source.region,
        trust_remote_code=source.trust_remote_code,
        dtype=source.dtype,
    )


def engine_adapters(deployment: ModelDeployment, secrets: SecretNames | None) -> tuple[AdapterSettings, ...]:
    """Adapters; what one does not say is the model's, where both have the same scheme."""
    spec = deployment.spec
    return tuple(
        AdapterSettings(name=adapter.name, source=_adapter_source(adapter, spec.source, secrets))
        for adapter in spec.adapters
    )


def _adapter_source(
    adapter: AdapterSource, model: ModelSource, secrets: SecretNames | None
) -> SourceSettings:
    alike = scheme_of(adapter.uri) == scheme_of(model.uri)
    credentials = adapter.credentials or (model.credentials if alike else None)
    return SourceSettings(
        uri=adapter.uri,
        revision=adapter.revision,
        token=_optional(model.token_secret, secrets) if alike else None,
        endpoint=adapter.endpoint or (model.endpoint if alike else None),
        s3_key=_s3_key(credentials, secrets),
        gcs_key=_gcs_key(credentials, secrets),
        region=adapter.region or (model.region if alike else None),
    )


def _s3_key(credentials: BucketCredentials | None, secrets: SecretNames | None) -> S3Key | None:
    if credentials is None or credentials.s3 is None:
        return None
    return S3Key(
        access_key_id=_reference(credentials.s3.access_key_id, secrets),
        secret_access_key=_reference(credentials.s3.secret_access_key, secrets),
        session_token=_optional(credentials.s3.session_token, secrets),
    )


def _gcs_key(credentials: BucketCredentials | None, secrets: SecretNames | None) -> SecretRef | None:
    if credentials is None or credentials.gcs is None:
        return None
    return _reference(credentials.gcs.service_account_key, secrets)


def _optional(token: TokenRef | None, secrets: SecretNames | None) -> SecretRef | None:
    return None if token is None else _reference(token, secrets)


def _reference(token: TokenRef, secrets: SecretNames | None) -> SecretRef:
    """Where the engine's process reads it: in a cluster a file of a mounted Secret."""
    if secrets is not None and token.secret is not None:
        return secrets.reference(token.secret.name, token.secret.key)
    return SecretRef(env=token.env, file=token.file)
