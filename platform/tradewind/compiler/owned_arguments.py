"""vLLM arguments that a resource may not set, and why or what to use instead.

Three reasons: another field of the resource sets it; the platform sets it; or it would load code,
open a port, read a path or log a prompt that nobody reviewed.
"""

from __future__ import annotations

from typing import Final

_SERVES: Final = "the platform serves the engine"
_CODE: Final = "it loads code into the engine"
_NETWORK: Final = "it opens connections around the platform"
_LOGS: Final = "the platform writes the logs, and never prompts"
_CLIENT: Final = "it trusts what a client sends"
_SOURCE: Final = "everything of the model comes from spec.source"
_PARALLEL: Final = "use spec.replicas for more replicas; each runs one data-parallel rank on one node"
_LORA: Final = "use spec.adapters"

OWNED: Final[dict[str, str]] = {
    # set by another field
    "model": "use spec.source.uri",
    "model_tag": "use spec.source.uri",
    "tokenizer": _SOURCE,
    "revision": "use spec.source.revision",
    "code_revision": "use spec.source.revision",
    "tokenizer_revision": "use spec.source.revision",
    "hf_config_path": _SOURCE,
    "hf_token": "use spec.source.tokenSecret",
    "download_dir": _SOURCE,
    "ignore_patterns": _SOURCE,
    "trust_remote_code": "use spec.source.trustRemoteCode",
    "dtype": "use spec.source.dtype",
    "served_model_name": "use metadata.name",
    "runner": "use spec.task",
    "tensor_parallel_size": "use spec.resources.tensorParallel",
    "pipeline_parallel_size": "use spec.resources.pipelineParallel",
    "lora_modules": _LORA,
    "enable_lora": _LORA,
    "default_mm_loras": _LORA,
    "shutdown_timeout": "use spec.drain.timeout",
    # set by the platform
    "host": _SERVES,
    "port": _SERVES,
    "uds": _SERVES,
    "root_path": _SERVES,
    "api_key": "use a Tenant",
    "headless": _SERVES,
    "api_server_count": _SERVES,
    "config": "write the arguments here",
    "grpc": _SERVES,
    "grpc_port": _SERVES,
    "ssl_keyfile": _SERVES,
    "ssl_certfile": _SERVES,
    "ssl_ca_certs": _SERVES,
    "ssl_cert_reqs": _SERVES,
    "ssl_ciphers": _SERVES,
    "enable_ssl_refresh": _SERVES,
    "allow_credentials": _SERVES,
    "allowed_origins": _SERVES,
    "allowed_methods": _SERVES,
    "allowed_headers": _SERVES,
    "h11_max_header_count": _SERVES,
    "h11_max_incomplete_event_size": _SERVES,
    "enable_request_id_headers": _SERVES,
    "disable_fastapi_docs": _SERVES,
    "enable_offline_docs": _SERVES,
    "enable_server_load_tracking": _SERVES,
    "sse_keep_alive_interval": _SERVES,
    "enable_tokenizer_info_endpoint": _SERVES,
    "enable_sleep_mode": _SERVES,
    "sleep_mode_offload_cudagraph": _SERVES,
    "sleep_preserve_parameter_names": _SERVES,
    "enable_scale_out": _SERVES,
    "enable_elastic_ep": _SERVES,
    "tokens_only": _SERVES,
    "skip_tokenizer_init": _SERVES,
    "device_ids": "Ray gives each replica its GPUs",
    "otlp_traces_endpoint": "use ServingCluster spec.telemetry.otlpEndpoint",
    "collect_detailed_traces": "use ServingCluster spec.telemetry",
    "disable_log_stats": "the platform reads these statistics",
    # several nodes or several ranks
    "nnodes": _PARALLEL,
    "node_rank": _PARALLEL,
    "master_addr": _PARALLEL,
    "master_port": _PARALLEL,
    "data_parallel_size": _PARALLEL,
    "data_parallel_rank": _PARALLEL,
    "data_parallel_start_rank": _PARALLEL,
    "data_parallel_size_local": _PARALLEL,
    "data_parallel_address": _PARALLEL,
    "data_parallel_rpc_port": _PARALLEL,
    "data_parallel_backend": _PARALLEL,
    "data_parallel_hybrid_lb": _PARALLEL,
    "data_parallel_external_lb": _PARALLEL,
    "data_parallel_multi_port_external_lb": _PARALLEL,
    "data_parallel_supervisor_port": _PARALLEL,
    "dp_supervisor_probe_interval_s": _PARALLEL,
    "dp_supervisor_probe_timeout_s": _PARALLEL,
    "dp_supervisor_probe_failure_threshold": _PARALLEL,
    # code
    "middleware": _CODE,
    "worker_cls": _CODE,
    "worker_extension_cls": _CODE,
    "scheduler_cls": _CODE,
    "logits_processors": _CODE,
    "model_class_overrides": _CODE,
    "tool_parser_plugin": _CODE,
    "reasoning_parser_plugin": _CODE,
    "io_processor_plugin": _CODE,
    "ec_manager_config": _CODE,
    "spec_method": "use speculativeConfig",
    "spec_model": "use speculativeConfig",
    "spec_tokens": "use speculativeConfig",
    # connections and paths
    "kv_transfer_config": _NETWORK,
    "kv_events_config": _NETWORK,
    "ec_transfer_config": _NETWORK,
    "weight_transfer_config": _NETWORK,
    "tool_server": _NETWORK,
    "allowed_media_domains": "clients send media inline",
    "allowed_local_media_path": "it lets clients read files of the node",
    "profiler_config": "it writes files to the node",
    "ray_workers_use_nsight": "it writes files to the node",
    "mm_encoder_fp8_scale_save_path": "it writes files to the node",
    "model_loader_extra_config": _SOURCE,
    "pt_load_map_location": _SOURCE,
    # what clients may do
    "trust_request_chat_template": _CLIENT,
    "trust_request_mm_kwargs": _CLIENT,
    "enable_prompt_embeds": _CLIENT,
    "enable_mm_embeds": _CLIENT,
    # logs
    "enable_log_requests": _LOGS,
    "enable_log_outputs": _LOGS,
    "enable_log_deltas": _LOGS,
    "enable_logging_iteration_details": _LOGS,
    "enable_trace_replay": _LOGS,
    "aux_output_config": _LOGS,
    "max_log_len": _LOGS,
    "log_error_stack": _LOGS,
    "log_level": _LOGS,
    "log_config_file": _LOGS,
    "logging_config": _LOGS,
    "uvicorn_log_level": _LOGS,
    "disable_uvicorn_access_log": _LOGS,
    "disable_access_log_for_endpoints": _LOGS,
    "aggregate_engine_logging": _LOGS,
}

ONLY: Final[dict[str, tuple[str, ...]]] = {
    # "auto", "pt" and "npcache" fall back to pickled weights, and others to loaders of their own.
    "load_format": ("safetensors", "mistral"),
    "distributed_executor_backend": ("mp", "uni"),
    "generation_config": ("auto", "vllm"),
}
"""Values that remain of an argument's choices."""

ONLY_KEYS: Final[dict[str, tuple[str, ...]]] = {
    # A draft model, or a class of the user's own, would come around spec.source.
    "speculative_config": ("method", "num_speculative_tokens", "prompt_lookup_max", "prompt_lookup_min"),
}
"""Keys that remain of a mapping argument."""
SPECULATIVE_METHODS: Final = ("ngram", "mtp", "suffix")
