"""Other people's packages on the same work, as they come from the registry: pip install 'alzoo[peers]'.

Each takes a scan and how many to ask for, and gives positions. Imported where it is called, so that a package that is
not installed is missed in its own row only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from zoo.scan import Scan

Ask = Callable[[Scan, int], Tensor]


def installed(package: str) -> bool:
    """Whether a package is there."""
    return find_spec(package) is not None


def skactiveml_kcenter(scan: Scan, n: int) -> Tensor:
    """scikit-activeml's CoreSet."""
    from skactiveml.pool import k_greedy_center

    x = torch.cat([scan.known, scan.features]).numpy()
    y = np.r_[np.zeros(len(scan.known)), np.full(len(scan.features), np.nan)]
    return torch.as_tensor(k_greedy_center(x, y, batch_size=n, random_state=0)[0]) - len(scan.known)


def skactiveml_badge(scan: Scan, n: int) -> Tensor:
    """scikit-activeml's Badge, with a classifier of its own that has seen the labeled images."""
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import Badge
    from sklearn.linear_model import LogisticRegression

    pool, x = scan.pool, torch.cat([scan.known, scan.features]).numpy()
    y = np.r_[pool.labels[pool.labeled].numpy().astype(float), np.full(len(scan.features), np.nan)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in so few steps, and need not
        clf = SklearnClassifier(LogisticRegression(max_iter=2), classes=list(range(pool.classes))).fit(x, y)
    return torch.tensor(Badge(random_state=0).query(x, y, clf, fit_clf=False, batch_size=n)) - len(scan.known)


def redux_batch_bald(scan: Scan, n: int) -> Tensor:
    """The package of BatchBALD's authors, batchbald_redux."""
    from batchbald_redux.batchbald import get_batchbald_batch

    logs = torch.stack(list(scan.draws(100)), 1).double()
    with redirect_stderr(StringIO()):  # its progress
        return torch.tensor(get_batchbald_batch(logs, n, 10_000, dtype=torch.double).indices)


def modal(measure: str) -> Ask:
    """modAL's entropy or margin sampling."""

    def ask(scan: Scan, n: int) -> Tensor:
        from modAL import uncertainty

        probs = scan.probs.numpy()
        classifier = SimpleNamespace(predict_proba=lambda _: probs)
        return torch.as_tensor(getattr(uncertainty, f"{measure}_sampling")(classifier, probs, n_instances=n)[0])

    return ask


def baal(measure: str) -> Ask:
    """baal's entropy or margin."""

    def ask(scan: Scan, n: int) -> Tensor:
        from baal.active import heuristics

        return torch.as_tensor(getattr(heuristics, measure.title())()(scan.probs.numpy())[:n].copy())

    return ask


def skactiveml_uncertainty(measure: str) -> Ask:
    """scikit-activeml's scores, and the largest of them."""

    def ask(scan: Scan, n: int) -> Tensor:
        from skactiveml.pool import uncertainty_scores

        method = {"margin": "margin_sampling"}.get(measure, measure)
        return torch.as_tensor(np.argpartition(-uncertainty_scores(scan.probs.numpy(), method=method), n)[:n])

    return ask
