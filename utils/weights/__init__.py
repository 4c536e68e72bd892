"""Weight files and the networks made of them."""
