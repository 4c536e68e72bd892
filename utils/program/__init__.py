"""The life of a program: its start, signals, failures and their messages."""
