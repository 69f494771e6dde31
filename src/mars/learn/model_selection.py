"""scikit-learn's `sklearn.model_selection` with tensors and frames.

`train_test_split` takes rows out of tensors and frames where they are. Searches give their
candidates to calls.
"""

from __future__ import annotations

from typing import Any

from mars.learn.facade import names_of
from mars.learn.fetchable import fetchable
from mars.tileables.tileable import Tileable, value_of


def train_test_split(
    *arrays: Any, test_size: object = None, train_size: object = None, random_state: object = None,
    shuffle: bool = True, stratify: object = None, **_: object,
) -> list[Any]:  # fmt: skip
    """Rows for training and rows for testing, of each tensor, frame or array.

    Parameters
    ----------
    *arrays : Tensor, frame or array_like
        All have the same number of rows.
    test_size, train_size, random_state, shuffle, stratify
        As of scikit-learn; the same ``random_state`` gives the same rows.

    Returns
    -------
    list
        Two parts of each.
    """
    import numpy
    from sklearn.model_selection import train_test_split as split

    plain = value_of(stratify)
    if not any(isinstance(one, Tileable) for one in arrays):
        made = split(*arrays, test_size=test_size, train_size=train_size,
                     random_state=random_state, shuffle=shuffle, stratify=plain)  # fmt: skip
        return list(map(fetchable, made))
    counts = {len(one) for one in arrays}
    if len(counts) > 1:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {counts}")
    [count] = counts
    parts = split(
        numpy.arange(count), test_size=test_size, train_size=train_size, random_state=random_state,
        shuffle=shuffle, stratify=plain,
    )  # fmt: skip
    found = []
    for one in arrays:
        for rows in parts:
            made = one.iloc[rows] if hasattr(one, "iloc") else one[rows]
            found.append(made.execute() if isinstance(made, Tileable) else made)
    return found


__getattr__, __dir__ = names_of("sklearn.model_selection", {"train_test_split": train_test_split})
