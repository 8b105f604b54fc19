"""Ways to a Dask client."""
