"""An S3 server on this machine, for tests of artifacts on remote storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

BUCKET = "shared"
SECRET = "not-for-anybodys-eyes"


@pytest.fixture(scope="session")
def s3_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server with an empty bucket, and the variables that lead to AWS's files about it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    folder = tmp_path_factory.mktemp("aws")
    (folder / "config").write_text(
        f"[default]\nregion = us-east-1\nendpoint_url = http://{host}:{port}\n"
    )
    (folder / "credentials").write_text(
        f"[default]\naws_access_key_id = test\naws_secret_access_key = {SECRET}\n"
    )
    boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key=SECRET,
    ).create_bucket(Bucket=BUCKET)
    yield {
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server.stop()


@pytest.fixture
def s3(s3_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the bucket, which this process can use; emptied at the end."""
    for name, value in s3_settings.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    files = fsspec.get_filesystem_class("s3")
    files.clear_instance_cache()
    yield f"s3://{BUCKET}"
    objects = fsspec.filesystem("s3", use_listings_cache=False)
    if found := objects.find(BUCKET):
        objects.rm(found)
    files.clear_instance_cache()


def contents(folder: Path) -> dict[str, bytes]:
    """Name → bytes of all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
