"""Reads and bounded changes of the keyspace, for pages that show keys. No Flask."""
