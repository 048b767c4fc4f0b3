"""Vectors: similarity search, principal components and least squares with numpy."""
import numpy as np

from poold import worker


@worker.method(idempotent=True)
def nearest(query: list, vectors: list, count: int = 5) -> list:
    """[[index, cosine similarity], ...] of the `count` vectors most like `query`."""
    matrix = np.asarray(vectors, dtype=np.float64)
    target = np.asarray(query, dtype=np.float64)
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(target)
    similarity = np.divide(matrix @ target, norms, out=np.zeros(len(matrix)), where=norms > 0)
    best = np.argsort(-similarity)[:count]
    return [[int(i), round(float(similarity[i]), 6)] for i in best]


@worker.method(idempotent=True)
def principal_components(rows: list, components: int = 2) -> dict:
    """Directions of most variance and the share that each explains."""
    matrix = np.asarray(rows, dtype=np.float64)
    centred = matrix - matrix.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    variance = singular**2
    total = float(variance.sum()) or 1.0
    return {"components": directions[:components].round(6).tolist(), "explained": (variance[:components] / total).round(6).tolist()}


@worker.method(idempotent=True)
def fit(x: list, y: list) -> dict:
    """Least squares of y on x: coefficients, intercept and R squared."""
    features = np.asarray(x, dtype=np.float64)
    if features.ndim == 1:
        features = features[:, None]
    target = np.asarray(y, dtype=np.float64)
    design = np.hstack([features, np.ones((len(features), 1))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = float(((target - design @ solution) ** 2).sum())
    spread = float(((target - target.mean()) ** 2).sum())
    return {"coefficients": solution[:-1].round(9).tolist(), "intercept": round(float(solution[-1]), 9),
            "r_squared": round(1 - residual / spread, 9) if spread else 1.0}


@worker.method(codec="bytes", idempotent=True)
def normalize(body: bytes) -> bytes:
    """A little-endian float32 array, scaled to unit length."""
    values = np.frombuffer(body, dtype="<f4")
    norm = np.linalg.norm(values)
    return (values / norm if norm else values).astype("<f4").tobytes()
