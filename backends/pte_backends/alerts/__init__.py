"""Alerts by mail, chat, push notification or webhook, which the delivery process sends with apprise."""

from pte_backends.alerts._sink import AlertSink

__all__ = ["AlertSink"]
