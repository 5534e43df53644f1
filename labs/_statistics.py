"""What several labs count with."""

from __future__ import annotations

import numpy as np


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the first axis and its standard error, s/√n; nan where there are too few."""
    count, unknown = len(values), np.full(values.shape[1:], np.nan)[()]
    mean = values.mean(0) if count else unknown
    return mean, values.std(0, ddof=1) / count ** 0.5 if count > 1 else unknown
