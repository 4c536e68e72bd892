"""Scores of rankings and the report of an evaluation."""
