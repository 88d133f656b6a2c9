"""Published architectures, as their package has them, on every backend: `python -m benchmarks.models`."""
