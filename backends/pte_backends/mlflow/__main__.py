"""``python -m pte_backends.mlflow STORE URI FOLDER`` downloads a checkpoint and prints the name of its file."""

from __future__ import annotations

import sys
from pathlib import Path

from pte_backends.mlflow import _client, _tracking_uri
from pte_backends.mlflow._fetch import NOT_FOUND


def main() -> int:
    """Fetch."""
    tracking_uri, uri, directory = sys.argv[1:]
    _client.prepare()
    # These import MLflow, which has to be prepared before.
    from pte_backends.mlflow._download import download
    from pte_backends.mlflow._errors import told_plainly

    try:
        with told_plainly(tracking_uri):
            print(download(_tracking_uri.with_secrets(tracking_uri), uri, Path(directory)))
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return NOT_FOUND
    except PermissionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
