"""Command that downloads a checkpoint and prints the name of its file.

Usage: ``python -m pte_backends.mlflow TRACKING_URI CHECKPOINT_URI DIRECTORY``
"""

from __future__ import annotations

import sys
from pathlib import Path

from pte_backends.mlflow import _client, _tracking_uri
from pte_backends.mlflow._fetch import NOT_FOUND_EXIT_CODE


def main() -> int:
    """Download the checkpoint named on the command line.

    Returns:
        The exit code: 0 on success, 3 if there is no complete checkpoint, 1 if access is denied.
    """
    tracking_uri, uri, directory = sys.argv[1:]
    _client.configure()
    # These modules import MLflow, which must be configured first.
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
