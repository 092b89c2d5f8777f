"""MLflow server with user authentication."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests import servers
from tests.object_store import BUCKET, ObjectStore
from tests.postgres import Postgres

_SETTINGS = """
[mlflow]
database_uri = {database}
default_permission = READ
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""


class AuthServer(NamedTuple):
    """Address of a server and the credentials of its administrator."""

    uri: str
    user: str
    password: str

    @property
    def uri_with_secrets(self) -> str:
        return f"http://{self.user}:{self.password}@{urlsplit(self.uri).netloc}"


@pytest.fixture(scope="session")
def auth_server(
    database: Postgres, bucket: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AuthServer]:
    """MLflow server with ``--app-name basic-auth``, PostgreSQL and the object store."""
    folder = tmp_path_factory.mktemp("auth-server")
    user, password = f"user-{uuid.uuid4().hex}", f"secret-{uuid.uuid4().hex}"
    (folder / "auth.ini").write_text(_SETTINGS.format(database=database.create("auth_users"), user=user))
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": uuid.uuid4().hex,
        **bucket.environment,
    }
    store = database.create("auth_store")
    with servers.serve(folder, store, f"s3://{BUCKET}/auth", environment, "--app-name", "basic-auth") as uri:
        yield AuthServer(uri, user, password)
