"""Principal components of images: the best linear code of so many numbers, which autoencoders are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

import minidl
from minidl import Tensor


@dataclass(frozen=True)
class Components:
    """z = V (x − μ),  x̂ = Vᵀ z + μ,  with the directions of the largest variance as the rows of V.

    mean: μ, (C·H·W,). directions: V, (count, C·H·W). variances: the share of all variance along each, (count,).
    """

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray

    def codes(self, images: Tensor, count: int) -> np.ndarray:
        """(N, C, H, W) -> float32 (N, count), along the first `count` directions, or all if there are fewer."""
        return (images.flatten(1).numpy() - self.mean) @ self.directions[:count].T

    def decoded(self, codes: np.ndarray, image_shape: tuple[int, ...]) -> Tensor:
        """(N, count) -> (N, C, H, W)."""
        return minidl.from_numpy(codes @ self.directions[:codes.shape[1]] + self.mean).reshape(-1, *image_shape)

    def reconstructed(self, images: Tensor, count: int) -> Tensor:
        """Images (N, C, H, W) from their first `count` components alone."""
        return self.decoded(self.codes(images, count), images.shape[1:])


def components_of(images: Tensor, count: int) -> Components:
    """The first principal components of images (N, C, H, W), so many as there can be of that count."""
    flat = images.flatten(1).numpy()
    pca = PCA(min(count, *flat.shape), svd_solver="covariance_eigh").fit(flat)
    return Components(pca.mean_.astype(np.float32), pca.components_.astype(np.float32), pca.explained_variance_ratio_)
