"""``gateway serve --workers``: a supervisor, and below it replicas that share two ports."""
