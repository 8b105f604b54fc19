"""Pictures of a factorization."""
