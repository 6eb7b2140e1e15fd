"""Metrics whose figures a test can read."""

from gateway.metrics import Metrics


class Counted(Metrics):
    """The metrics of a replica under test."""

    def value(self, name: str, **labels: str) -> float:
        """What a scrape shows of a metric, named without ``gateway_``; 0 where it shows nothing."""
        return self.registry.get_sample_value(f"gateway_{name}", labels) or 0.0
