"""``python -m pte_mlflow STORE URI FOLDER`` fetches a checkpoint and prints its file's name; see ``fetch.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from pte_mlflow import address, product
from pte_mlflow.fetch import NOT_FOUND


def main() -> int:
    """Fetch."""
    tracking_uri, uri, directory = sys.argv[1:]
    product.prepare()
    # These import MLflow, which has to be prepared before.
    from pte_mlflow.access import told_plainly
    from pte_mlflow.download import download

    try:
        with told_plainly(tracking_uri):
            print(download(address.with_secrets(tracking_uri), uri, Path(directory)))
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return NOT_FOUND
    except PermissionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
