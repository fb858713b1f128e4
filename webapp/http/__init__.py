"""Flask glue that is no page: errors, headers, metrics, tape delivery, the web server."""
