"""Whether a person looks at a notebook, and the bar that it shows."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from tqdm import TqdmExperimentalWarning


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def notebook_bar() -> Any:
    """tqdm's class for notebooks: widgets where they are installed, else text that redraws itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmExperimentalWarning)
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm

    return tqdm
