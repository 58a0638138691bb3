"""Scans as people bring them: each kind is made, given to ctuq, and what it does is judged."""
