"""Training of the attention head."""
