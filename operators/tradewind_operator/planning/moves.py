"""On which worker group each application runs, and who moves next. Pure.

Nothing is remembered: on which group an application is placed is read back from Serve. Where the pods of a
pool have changed, its models move to the new generation one by one, each when all that are there already
run. So a generation on which nothing can start stops the move after one model, and the others go on where
they are. Models that do not run anyway move last, together: they have nothing to lose, and might hold up
the others. A moving replica is started before its predecessor stops (`max_surge_percent`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tradewind.compiler.compile import Compiled
from tradewind_operator.desired import names
from tradewind_operator.desired.raycluster import kind_of_group
from tradewind_operator.planning.groups import generation_of

GATEWAY: Final = "gateway"
"""Name of the gateway's application."""
_SURGE: Final = 100
"""Percent of a moving deployment's replicas that are started before others stop."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One application as Serve has it."""

    group: str | None
    """Worker group that it was placed on; None: on any."""
    running: bool
    failed: bool
    surging: bool = False
    """It was placed with a surge, that is, it moves."""
    serves: bool = False
    """It has a replica that runs, there or where it comes from."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Where applications belong in one RayCluster, and how far they are."""

    groups: Mapping[str, str] = field(default_factory=dict)
    """Application → worker group, for those that are placed at all."""
    surging: frozenset[str] = frozenset()
    """Those that are on their way from one group to another."""
    moving: tuple[str, ...] = ()
    """On the new generation of their group, and not running there yet."""
    failed: tuple[str, ...] = ()
    """Those of them that cannot start there: nobody follows them."""
    waiting: tuple[str, ...] = ()
    """On an older generation, until those before them run."""


def kinds_of(compiled: Compiled) -> dict[str, str]:
    """Application → what its worker groups are generations of."""
    pools = {name: names.pool_group(pool) for name, pool in compiled.pools.items()}
    return {GATEWAY: names.GATEWAY_GROUP, **pools}


def plan_moves(
    kinds: Mapping[str, str],
    placed: Mapping[str, Placed],
    there: Sequence[str],
    wanted: Iterable[str],
    is_up: Callable[[str], bool],
) -> Moves:
    """Decide for one RayCluster.

    Args:
        kinds: application → what its groups are generations of.
        placed: what Serve has.
        there: the cluster's worker groups, the older first.
        wanted: groups of now, by name.
        is_up: whether a group has the pods of the gateways, which are not made on demand.
    """
    goals = {kind: generation_of(kind, there, list(wanted)) for kind in set(kinds.values())}
    groups: dict[str, str] = {}
    behind: dict[str, list[str]] = {}
    for app, kind in kinds.items():
        goal, now = goals[kind], placed.get(app)
        if goal is None:
            continue
        groups[app] = goal
        older = now.group if now is not None else None
        if older is not None and older in there and older != goal and kind_of_group(older) == kind:
            behind.setdefault(kind, []).append(app)
            groups[app] = older
    surging = {
        app for app, now in placed.items() if now.surging and not now.running and now.group == groups.get(app)
    }
    return _turns(groups, surging, behind, goals, placed, is_up)


def _turns(
    groups: dict[str, str],
    surging: set[str],
    behind: Mapping[str, list[str]],
    goals: Mapping[str, str | None],
    placed: Mapping[str, Placed],
    is_up: Callable[[str], bool],
) -> Moves:
    """Who of those that are behind moves now. Brings `groups` and `surging` up to date."""
    moving: list[str] = []
    waiting: list[str] = []
    for kind, apps in behind.items():
        goal = goals[kind]
        assert goal is not None
        before = [
            app
            for app, group in groups.items()
            if group == goal and (now := placed.get(app)) and not now.running
        ]
        healthy = [app for app in sorted(apps) if placed[app].running]
        if before or (kind == names.GATEWAY_GROUP and healthy and not is_up(goal)):
            turn: list[str] = []
        else:
            turn = healthy[:1] or apps
        for app in turn:
            groups[app] = goal
        surging.update(turn)
        moving += before + turn
        waiting += [app for app in apps if app not in turn]
    # The last ones, too: nobody waits for them. One that never ran has nothing to move.
    moving += [app for app in surging if app not in moving and (placed[app].serves or not placed[app].failed)]
    failed = [
        app for app in moving if app in placed and placed[app].failed and placed[app].group == groups[app]
    ]
    return Moves(groups, frozenset(surging), *(tuple(sorted(each)) for each in (moving, failed, waiting)))


def placed_apps(configs: Mapping[str, Mapping[str, Any]], apps: Mapping[str, Any]) -> dict[str, Placed]:
    """What Serve has, from its REST API's answer.

    Args:
        configs: `rayapi.app_status.deployed_configs`.
        apps: `rayapi.app_status.parse_status` of the same.
    """
    found: dict[str, Placed] = {}
    for name, config in configs.items():
        deployment = (config.get("deployments") or [{}])[0]
        options = deployment.get("ray_actor_options") or {}
        selector = options.get("label_selector") or {}
        status = apps.get(name)
        found[name] = Placed(
            group=selector.get(names.GROUP_LABEL),
            running=status is not None and status.ready,
            failed=status is not None and status.failed,
            surging=deployment.get("max_surge_percent") == _SURGE,
            serves=status is not None and status.running > 0,
        )
    return found


def placed_config(
    serve_config: Mapping[str, Any], moves: Moves, only: Iterable[str] | None = None
) -> dict[str, Any]:
    """The Serve configuration for one RayCluster.

    Args:
        only: applications that it may have; None: all. One that another has replaced takes no new ones.
    """
    allowed = None if only is None else {*only, GATEWAY}
    applications = [
        _placed(app, moves)
        for app in serve_config["applications"]
        if allowed is None or app["name"] in allowed
    ]
    return {**serve_config, "applications": applications}


def _placed(app: Mapping[str, Any], moves: Moves) -> Mapping[str, Any]:
    name = app["name"]
    group = moves.groups.get(name)
    if group is None:
        return app
    (deployment,) = app["deployments"]
    options = deployment.get("ray_actor_options") or {}
    selector = {**(options.get("label_selector") or {}), names.GROUP_LABEL: group}
    placed = {**deployment, "ray_actor_options": {**options, "label_selector": selector}}
    if name in moves.surging:
        placed["max_surge_percent"] = _SURGE
    return {**app, "deployments": [placed]}
