"""Measurements and attacks: nothing here is needed to run the pipeline; each runs by itself."""
