"""The composition root: the one part that builds the others and connects them."""
