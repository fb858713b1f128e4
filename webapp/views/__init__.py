"""One blueprint a page: parse, call one thing, render. No Redis command in here."""
