"""A session in the words of other control programs; each is imported only where it is used.

`ctuq.design.adapters.bluesky`: a plan for its RunEngine, and an optimizer for bluesky-adaptive. `ctuq.design.adapters.asktell`:
dictionaries as gpCAM's.
"""
