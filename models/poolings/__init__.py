"""Poolings: modules that turn a feature map into one vector and one weight per region."""
