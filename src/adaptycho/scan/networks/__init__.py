"""Networks that decide, and the files of their weights."""
