"""Topics of the whole cluster: which there are, how many are on one, and who is present."""
