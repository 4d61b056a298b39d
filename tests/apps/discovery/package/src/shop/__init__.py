"""A package in a directory of its own."""
