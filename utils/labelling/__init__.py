"""Labels of a user's images, written as a data set in the layout of Oxford5k."""
