"""Holds no app."""

ANSWER = 42
