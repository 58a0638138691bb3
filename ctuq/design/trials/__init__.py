"""Strategies compared on objects that are known."""
