"""Measurements of Gateway beside other servers: ``python -m bench``."""
