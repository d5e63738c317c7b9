"""Fused operators, one folder each: a readable reference and a GPU implementation.

This folder is the import package ``kernels`` of Foretide. Hugging Face publishes a distribution of the same
name; the two cannot share an environment, so importing this one beside it is an error rather than a lottery.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    version("kernels")
except PackageNotFoundError:
    pass
else:
    raise ImportError(
        "the distribution 'kernels' (Hugging Face) is installed in this environment and hides Foretide's own "
        "'kernels' package; give Foretide an environment of its own, or run: pip uninstall kernels"
    )
