"""Read runs into pandas, and compare them: python results.py"""

from __future__ import annotations

from pathlib import Path

import pandas

import pte_tracking as pte


def main() -> None:
    if not Path("runs").exists():  # two runs
        for lr in (0.1, 0.01):
            with pte.Run(f"runs/lr-{lr}", params={"lr": lr}) as run:
                for step in range(1, 11):
                    run.log_metrics({"train/loss": (1 - lr) ** step}, step)

    runs = pte.open_runs("runs")
    table = pandas.DataFrame(
        {
            "name": run.directory.name,
            "lr": run.params["lr"],
            "status": run.status,
            "loss": run.frame()["train/loss"].min(),
        }
        for run in runs
    )
    print(table.sort_values("loss").to_string(index=False))


if __name__ == "__main__":
    main()
