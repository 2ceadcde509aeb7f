"""Ray's GCS on one machine: its state on disk, so that another process can go on with it.

Ray has no public way to start it anew below a driver that lives; these are the functions by which it started
the first. In a cluster Kubernetes does it (`gcsFaultTolerance`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

STORAGE = "rocksdb"


def gcs_environment(folder: Path) -> Mapping[str, str]:
    """Variables by which Ray keeps its state in `folder`, which is emptied: a start begins without any."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {"RAY_gcs_storage": STORAGE, "RAY_gcs_storage_path": str(folder)}


def start_again() -> None:
    """Start a GCS in place of one that has died, at the same address. Ray must have been started here."""
    from ray._private import worker

    node = worker._global_node
    port = int(node.gcs_address.rpartition(":")[2])
    node.kill_gcs_server(check_alive=False)  # forgets the dead one
    node._ray_params.gcs_server_port = port
    node.start_gcs_server()
