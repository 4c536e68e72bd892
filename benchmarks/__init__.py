"""Benchmarks of speed and memory. Figures that are compared are measured in one run."""
