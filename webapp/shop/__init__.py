"""The database behind the cache: a shop with products, ratings and orders."""
