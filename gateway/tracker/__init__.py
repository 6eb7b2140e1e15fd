"""Who is there: entries of all replicas on the keys this replica holds."""
