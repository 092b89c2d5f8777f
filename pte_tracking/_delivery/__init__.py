"""Delivery of journal events to sinks, in the delivery process or in the foreground. Does not import torch."""
