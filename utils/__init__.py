"""What the scripts share around the method: data, files, ranking, scoring, command lines."""
