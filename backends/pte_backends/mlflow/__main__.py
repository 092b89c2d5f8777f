"""``python -m pte_backends.mlflow STORE URI FOLDER`` downloads a checkpoint and prints the name of its file."""

from __future__ import annotations

import sys
from pathlib import Path

from pte_backends.mlflow import _client, _tracking_uri
from pte_backends.mlflow._fetch import NOT_FOUND_EXIT_CODE


def main() -> int:
    """Fetch."""
    tracking_uri, uri, directory = sys.argv[1:]
    _client.configure()
    # These import MLflow, which has to be prepared before.
    from pte_backends.mlflow._download import download
    from pte_backends.mlflow._errors import translate_auth_errors

    try:
        with translate_auth_errors(tracking_uri):
            print(download(_tracking_uri.restore_credentials(tracking_uri), uri, Path(directory)))
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return NOT_FOUND_EXIT_CODE
    except PermissionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
