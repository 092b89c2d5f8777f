"""What the engine, extensions, and triggers share: the extension interface and the progress counters."""
