"""Flask glue that is no page: errors, headers, tape delivery, the web server."""
