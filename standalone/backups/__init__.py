"""`make backup` and `make restore`: everything that the product keeps, copied while it runs, and put back while it does not."""
