"""Streams: a bounded log, consumer groups that lose nothing, and dead letters."""
