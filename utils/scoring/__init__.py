"""Scores of rankings, comparison of poolings, and the report of an evaluation."""
