"""Speed and memory, each figure beside what it is compared with, in one run."""
