"""The processes that handle orders, and who keeps them running."""
