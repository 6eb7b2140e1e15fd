"""The part ``cluster``: what a replica spends on there being others."""
