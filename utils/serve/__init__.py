"""Local web page of an index: search with a photo, an image of the index, or a part of it."""
