"""The scenarios, one per file; ``chaos.running.catalogue`` finds them by name."""
