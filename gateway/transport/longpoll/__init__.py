"""The long-poll transport: sessions whose clients poll, on whichever replica they ask."""
