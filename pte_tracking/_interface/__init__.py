"""Extension interface and progress counters, shared by the engine, extensions, and triggers."""
