"""The patterns themselves: Redis and nothing else. One short file a room; lift them."""
