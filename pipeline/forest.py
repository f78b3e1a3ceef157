"""The Isolation Forest: how it is grown, what it sees of a vector, how it scores."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from sklearn.tree._criterion import MSE
from sklearn.tree._splitter import RandomSplitter
from sklearn.tree._tree import DepthFirstTreeBuilder, Tree
from sklearn.utils.random import sample_without_replacement

from pipeline.bands import GATED, outside
from pipeline.features import HOUR_COS, HOUR_SIN, Floats

# scikit-learn's own defaults.
TREES, SAMPLES_PER_TREE = 100, 256
# The forest sees a feature so many usual deviations out at the middle of its range (squeeze).
HALF_WAY = 6.0
# And in so many steps: most readings are usual, look the same, and are scored once.
STEPS = 128
# Share of synthetic rows in training, usual ones with one feature anywhere in its range: they show
# the forest what is out where nothing has been out yet.
BACKGROUND_SHARE = 0.5
_MAX_SEED = np.iinfo(np.int32).max
_EULER = 0.5772156649015329


class Forest:
    """An Isolation Forest, grown by scikit-learn's tree builder without its checks of every tree.

    The trees, and so the scores, are those of ``sklearn.ensemble.IsolationForest(n_estimators=100,
    random_state=seed)`` (``score_samples``, but for last bits; a test holds this). Its ``fit``
    spends most of its time on copying and validating parameters tree by tree.
    """

    def __init__(self, rows: Floats, seed: int) -> None:
        narrow = rows.astype(np.float32)
        samples, features = min(SAMPLES_PER_TREE, len(narrow)), narrow.shape[1]
        depth = math.ceil(math.log2(max(samples, 2)))
        # Seeding one again costs a tenth of making one, and there would be three a tree.
        chance, of_tree = np.random.RandomState(seed), np.random.RandomState(seed)
        target = chance.uniform(size=(len(narrow), 1))
        self._trees = []
        for tree_seed in of_tree.randint(_MAX_SEED, size=TREES).tolist():
            chance.seed(tree_seed)
            of_tree.seed(chance.randint(_MAX_SEED))
            chance.seed(tree_seed)
            sample_without_replacement(features, features, random_state=chance)
            drawn = sample_without_replacement(len(narrow), samples, random_state=chance)
            drawn.sort()
            splitter = RandomSplitter(MSE(1, samples), 1, 1, 0.0, of_tree, None)
            tree = Tree(features, np.ones(1, dtype=np.intp), 1)
            builder = DepthFirstTreeBuilder(splitter, 2, 1, 0.0, depth, 0.0)
            builder.build(tree, narrow[drawn], target[drawn])
            self._trees.append(tree)
        # Depth is counted in nodes, wanted in edges.
        edges = np.concatenate([tree.compute_node_depths() for tree in self._trees]) - 1.0
        paths = edges + _average_path(np.concatenate([t.n_node_samples for t in self._trees]))
        self._paths = np.split(paths, np.cumsum([t.node_count for t in self._trees])[:-1])
        self._normal = TREES * _average_path(np.array([samples]))[0]

    def scores(self, rows: Floats) -> Floats:
        """Return the score of each row, -1..0, lower = more anomalous."""
        narrow = rows.astype(np.float32)
        whole = narrow.view(np.dtype((np.void, narrow.strides[0]))).ravel()
        _, first, of_row = np.unique(whole, return_index=True, return_inverse=True)
        different = narrow[first]
        depth = np.zeros(len(different))
        for tree, paths in zip(self._trees, self._paths, strict=True):
            depth += paths[tree.apply(different)]
        scores: Floats = -np.exp2(-depth / self._normal)
        return scores[of_row]


def _average_path(samples: npt.NDArray[np.int64]) -> Floats:
    """Return the mean path length of an unsuccessful search in a binary tree of so many samples."""
    n = samples.astype(np.float64)
    path = np.zeros(len(n))
    path[n == 2] = 1.0
    many = n > 2
    path[many] = 2.0 * (np.log(n[many] - 1.0) + _EULER) - 2.0 * (n[many] - 1.0) / n[many]
    return path


def squeeze(vectors: Floats, hour: float) -> Floats:
    """Return vectors as the forest sees them: how far out each feature is, 0..1; the hour.

    A forest cuts its range evenly, so what is usual is pressed together near 0 and what is out
    spread over the rest: then one feature out is enough to be cut off early.
    """
    fourth = (outside(vectors) / HALF_WAY) ** 4
    squeezed = np.rint(fourth / (1.0 + fourth) * STEPS) / STEPS
    squeezed[:, [HOUR_SIN, HOUR_COS]] = vectors[:, [HOUR_SIN, HOUR_COS]] * hour
    return squeezed


def grow(vectors: Floats, hour: float, rng: np.random.Generator) -> Forest:
    """Return a forest trained on vectors, and on synthetic ones made of them."""
    usual = squeeze(vectors, hour)
    count = math.ceil(BACKGROUND_SHARE * len(usual))
    background = usual[rng.integers(len(usual), size=count)]
    background[np.arange(count), rng.choice(GATED, count)] = rng.uniform(0, 1, count)
    return Forest(np.concatenate([usual, background]), int(rng.integers(2**31)))
