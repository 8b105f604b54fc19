"""Non-negative matrix factorization A ≈ W H of matrices that do not fit in memory."""

from typing import TYPE_CHECKING, Any

from pipeline.factors import Factors, open_factors
from pipeline.job import Result, factorize

if TYPE_CHECKING:
    from pipeline.estimator import NMF

__all__ = ["NMF", "Factors", "Result", "factorize", "open_factors"]


def __getattr__(name: str) -> Any:
    """Import the estimator when it is asked for: scikit-learn is an extra, and takes a second to load."""
    if name != "NMF":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from pipeline.estimator import NMF
    except ImportError as error:
        raise ImportError("NMF needs scikit-learn, which is not installed: pip install 'nmf-batch[sklearn]'") from error
    return NMF
