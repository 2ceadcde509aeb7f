"""Every example compiles to its golden file, and the real parsers take it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.golden.rewrite import EXAMPLES, GOLDENS, golden_of, rendered
from tests.unit.api.builders import model
from tests.unit.compiler.worlds import compiled, pools
from tradewind.api.wire import EngineSettings, GatewayConfig
from tradewind.compiler.world import CLUSTER
from tradewind.schema.json_schemas import json_schema

ALL = sorted(EXAMPLES.glob("*.yaml"))


def test_there_is_a_golden_file_for_each_example_and_no_other() -> None:
    assert {path.name for path in GOLDENS.glob("*")} == {golden_of(example).name for example in ALL}


@pytest.mark.parametrize("example", ALL, ids=lambda path: path.stem)
def test_an_example_compiles_to_its_golden_file(example: Path) -> None:
    message = "if this is meant: python -m tests.golden.rewrite"
    assert rendered(example) == golden_of(example).read_text(encoding="utf-8"), message


@pytest.mark.parametrize("example", ALL, ids=lambda path: path.stem)
def test_an_example_fits_the_published_schemas(example: Path) -> None:
    for document in yaml.safe_load_all(example.read_text(encoding="utf-8")):
        jsonschema.validate(document, json_schema(document["kind"]))


@pytest.mark.parametrize("example", ALL, ids=lambda path: path.stem)
def test_the_running_parts_read_a_golden_file(example: Path) -> None:
    gateway, *engines = json.loads(golden_of(example).read_text(encoding="utf-8"))["serve"]["applications"]
    GatewayConfig.model_validate(gateway["deployments"][0]["user_config"])
    for engine in engines:
        EngineSettings.model_validate(engine["args"]["settings"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ray_serve_parses_every_option() -> None:
    schema = pytest.importorskip("ray.serve.schema").ServeDeploySchema
    resources = {"gpus": 4, "memory": "16Gi", "pool": "h100"}
    result = compiled(
        pools(
            {"h100": {"gpus": 8, "cpus": 32, "memory": "512Gi", "maxNodes": 2}},
            gateway={"replicas": 3},
        ),
        model(resources=resources, autoscaling={"minReplicas": 2, "maxReplicas": 5}),
        platform=CLUSTER,
    )
    engine = schema.model_validate(result.serve_config).applications[1].deployments[0]
    options = pytest.importorskip("ray.serve.config").AutoscalingConfig.model_validate(
        engine.autoscaling_config
    )
    assert options.max_replicas == 5
    assert engine.ray_actor_options.label_selector == {"tradewind.dev/pool": "h100"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ray_serve_parses_every_golden_file() -> None:
    schema = pytest.importorskip("ray.serve.schema").ServeDeploySchema
    for example in ALL:
        config = json.loads(golden_of(example).read_text(encoding="utf-8"))["serve"]
        parsed = schema.model_validate(config)
        assert [app.name for app in parsed.applications] == [app["name"] for app in config["applications"]]
