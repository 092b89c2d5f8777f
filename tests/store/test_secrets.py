"""Masking of secrets in texts, arguments, parameters, tags, and messages."""

import json
import logging
import time
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._delivery.cursor import describe_error
from pte_tracking._store import provenance
from pte_tracking._store.messages import SafeFormatter
from pte_tracking._store.secrets import mask_arguments, mask_secrets, mask_values

SECRET_TEXTS = [
    "python fit.py --lr 0.1 --hub-token HIDDEN -v",
    "python fit.py --db_password='HIDDEN value' x",
    "cannot connect to postgresql+psycopg2://ann:HIDDEN@db.example/runs?sslmode=require",
    "ftp://ann:HIDDEN/with/slash@host/file",
    "https://HIDDEN@git.example/repo.git",
    "https://ann:half@HIDDEN@host/",
    "PUT https://b.example/x?partNumber=1&X-Amz-Signature=HIDDEN&X-Amz-Credential=HIDDEN failed",
    "https://c.example/blob?sv=2024&sig=HIDDEN%3D",
    "https://d.example/cb#access_token=HIDDEN",
    "https://d.example/cb#HIDDEN",
    "Authorization: Bearer HIDDEN.abc",
    '{"password": "HIDDEN"}',
    "secret=HIDDEN",
]
PLAIN_TEXTS = [
    "KeyError: 'loss'",
    "The key: value",
    "sort_key = 3",
    "s3://bucket/key/file.csv",
    "http://localhost:5000/#/experiments/1/runs/abc",
    "https://docs.example/page.html#some-section",
    "http://host:8080/mail@example",
    "sqlite:////data/mlflow.db",
    "--verbose --keys",
]


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_mask_secrets_text_with_secret_hides_it(text: str) -> None:
    masked = mask_secrets(text)
    assert "HIDDEN" not in masked
    assert "***" in masked
    assert mask_secrets(masked) == masked


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_mask_secrets_text_without_secret_returns_it(text: str) -> None:
    assert mask_secrets(text) == text


@pytest.mark.parametrize("unit", ["a.", "a:/", "--", "token", "http://a:", "key=", "?a=&", "@#"])
def test_mask_secrets_long_text_takes_linear_time(unit: str) -> None:
    start_time = time.process_time()
    mask_secrets(unit * (100_000 // len(unit)))
    assert time.process_time() - start_time < 20


def test_mask_arguments_values_of_secret_options_are_hidden() -> None:
    arguments = ["fit.py", "--wandb-key", "HIDDEN", "-password=HIDDEN", "model.secret=HIDDEN", "--token", "--lr", "1"]
    assert mask_arguments(arguments) == [
        *("fit.py", "--wandb-key", "***", "-password=***", "model.secret=***", "--token", "--lr", "1")
    ]
    assert mask_arguments(["fit.py", "--url", "http://a:HIDDEN@h/"])[-1] == "http://***@h/"


def test_mask_values_hides_secrets_and_keeps_hyperparameters() -> None:
    secret = {"api_key": "H", "hf_token": "H", "token": "H", "db/password": "H", "aws_secret_access_key": "H"}
    assert set(mask_values(secret).values()) == {"***"}
    plain = {"pad_token": "<pad>", "sort_key": "x", "tokens": 3, "token": 3, "password": None, "n_keys": "2"}
    assert mask_values(plain) == plain


def fail_after_logging(run: pte.Run) -> None:
    run.log_dataset("d", "1", source="https://h/x?sig=HIDDEN")
    run.log_text("note", "see http://a:HIDDEN@h", 1)
    run.log_metrics({"loss": 1.0}, 1)
    raise RuntimeError("no answer from http://a:HIDDEN@h/")


def test_run_stores_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(provenance.sys, "argv", ["fit.py", "--api-token", "HIDDEN"])
    params, tags = {"password": "HIDDEN", "lr": 0.1}, {"url": "x://a:HIDDEN@h"}
    with pytest.raises(RuntimeError), pte.Run(tmp_path / "run", sinks=["json"], params=params, tags=tags) as run:
        fail_after_logging(run)
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or "HIDDEN" not in path.read_text()
    assert "HIDDEN" not in caplog.text
    assert "params: recorded without their secrets: 'password'." in caplog.text
    assert json.loads((tmp_path / "run/run.json").read_text())["context"]["command"].endswith("fit.py --api-token ***")


def test_messages_contain_no_secret() -> None:
    error = OSError("GET https://h/x?token=HIDDEN")
    assert "HIDDEN" not in describe_error(error)
    record = logging.LogRecord("mlflow", logging.ERROR, "", 0, "%s", (error,), (OSError, error, None))
    assert "HIDDEN" not in SafeFormatter().format(record)
