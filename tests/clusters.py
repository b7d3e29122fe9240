"""Clusters that tests of the network use: presets, changed."""

from hwmodels.cluster import CLUSTERS, ClusterSpec
from hwmodels.spec import build, override


def cluster(name="h800-2048-mpft", **changes):
    """Return a preset with values changed; `__` in a key stands for a dot."""
    document = CLUSTERS.document(name)
    for key, value in changes.items():
        override(document, ClusterSpec, key.replace("__", "."), value, "test")
    return build(ClusterSpec, document, name)
