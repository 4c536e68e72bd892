"""Start and end of a program: signals, standard streams, exit status and error messages."""
