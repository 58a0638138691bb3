"""X-ray CT that says how sure it is."""
