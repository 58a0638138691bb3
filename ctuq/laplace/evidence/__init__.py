"""The evidence and its maximisers."""
