"""Images in, a chunked Zarr matrix out."""
