"""One thread for every test: small networks are slower on two."""

import pytest
import torch

from zoo.testing import Killed, weights

torch.set_num_threads(1)


@pytest.fixture
def resumed(tmp_path):
    """A fit that is killed at a step of a stage and goes on: the weights that it ends with."""

    def fit(learner, pool, stage, step):
        def kill(*moment):
            if moment[:2] == (stage, step):
                raise Killed

        path = tmp_path / "fit.snapshot"
        with pytest.raises(Killed):
            learner.fit(pool, progress=kill, snapshot=path, snapshot_seconds=0)
        return weights(learner.fit(pool, snapshot=path))

    return fit
