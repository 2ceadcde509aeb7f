"""An S3 bucket that only its own key opens: moto's server, which checks signatures and policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
NAME = "private"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


@dataclass(frozen=True)
class PrivateBucket:
    """Where it is, and its key."""

    url: str
    key_id: str
    secret: str

    def uri(self, folder: str) -> str:
        """`s3://` of what was put under that name."""
        return f"s3://{NAME}/{folder}"


@contextmanager
def private_bucket(folders: dict[str, Path], address: str = "127.0.0.1") -> Iterator[PrivateBucket]:
    """One with the files of `folders`, each under its name; it is there within the context."""
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    url = f"http://{address}:{port}"
    try:
        _fill(url, folders)
        bucket = PrivateBucket(url, *_make_key(url))
        _ask_for_keys(url, "0")
        yield bucket
    finally:
        _ask_for_keys(url, "inf")  # it is a setting of the process, for every such server in it
        server.stop()


def _client(service: str, url: str) -> Any:
    keys = {"aws_access_key_id": "anybody", "aws_secret_access_key": "anybody"}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)


def _fill(url: str, folders: dict[str, Path]) -> None:
    client = _client("s3", url)
    client.create_bucket(Bucket=NAME)
    for name, folder in folders.items():
        for path in folder.iterdir():
            client.upload_file(str(path), NAME, f"{name}/{path.name}")
    client.close()


def _make_key(url: str) -> tuple[str, str]:
    client = _client("iam", url)
    client.create_user(UserName="reader")
    client.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=json.dumps(POLICY))
    key = client.create_access_key(UserName="reader")["AccessKey"]
    client.close()
    return key["AccessKeyId"], key["SecretAccessKey"]


def _ask_for_keys(url: str, after: str) -> None:
    """From how many requests on it asks who they are from."""
    httpx.post(f"{url}/moto-api/reset-auth", content=after, trust_env=False).raise_for_status()
