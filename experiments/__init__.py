"""Scripts over the public API: what the figures and tables of the documentation are made with."""
