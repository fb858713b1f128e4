"""From a URL to a client that records, keeps deadlines and opens a breaker."""
