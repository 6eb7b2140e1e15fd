"""How many examples a property is tried with."""

from hypothesis import settings


def examples(share: float) -> int:
    """So many times what the profile says, for ``@settings(max_examples=…)``.

    A number of its own would hold in every profile, and `make quick` would not be quick.
    """
    return round(settings().max_examples * share)
