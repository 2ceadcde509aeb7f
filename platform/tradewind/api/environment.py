"""Environment variables that resources may not name: the platform's own, and secrets."""

from __future__ import annotations

from typing import Final

FORBIDDEN_ENV: Final = ("TRADEWIND_", "RAY_", "OTEL_", "LD_", "DYLD_", "PYTHON")
"""Prefixes of the platform's own, and of what would load other code than the image's."""
SECRET_ENV: Final = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS")
"""Last words of names whose values look like secrets."""
UNSAFE_ENV: Final = (
    "VLLM_SERVER_DEV_MODE",
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_PLUGINS",
    "PATH",
    "HOME",
)
"""What opens vLLM to anybody, and what the images set."""
POD_ENV_PREFIXES: Final = (*FORBIDDEN_ENV, "KUBERAY_", "KUBERNETES_", "FQ_RAY_", "REDIS_", "BASH_")
"""The same for whole pods: KubeRay, Kubernetes and the shell that starts Ray have some more."""
POD_ENV_NAMES: Final = (
    *UNSAFE_ENV,
    "USER",
    "LOGNAME",
    "ENV",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ONEAPI_DEVICE_SELECTOR",
    "HABANA_VISIBLE_MODULES",
    "HABANA_VISIBLE_DEVICES",
    "TPU_VISIBLE_CHIPS",
)
"""Set by the platform, by Ray, or by what hands out accelerators to pods."""
WEIGHTS_ENV: Final = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
"""Credentials for weights, which would be there for every model of the pool."""
