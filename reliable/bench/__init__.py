"""What ``reliable bench`` measures with. Only the command line and the project's own benchmarks import it."""
