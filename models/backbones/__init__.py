"""Frozen networks from pixels to feature maps, each with the preprocessing that its weights expect."""
