"""The tracker: replicates between all replicas which sessions are on which topic."""
