"""Non-negative matrix factorization A ≈ W H of matrices that do not fit in memory."""

from pipeline.factors import Factors, open_factors
from pipeline.job import Result, factorize

__all__ = ["Factors", "Result", "factorize", "open_factors"]
