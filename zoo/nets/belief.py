"""What a classifier believes of itself.

Wang et al., "Cost-Effective Active Learning for Deep Image Classification", TCSVT 2017. https://arxiv.org/abs/1701.03551
"""

import torch
from torch import Tensor, nn

from zoo.nets.common import fp32


class Belief(nn.Module):
    """Logits (u k) to what is believed: sure (u,) bool, and the guess (u,) int64.

    Sure is an entropy strictly below `delta`, in nats; at 0 nothing is. The threshold is no weight: a loop sets it
    for its round, and it is saved with the networks, so that a fitted learner knows what it believes.
    """

    delta: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("delta", torch.zeros(()))

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        with fp32(logits):
            log = logits.float().log_softmax(1)  # never log(p): 0 log 0 is no number
            entropy = -(log.exp() * log).sum(1)
        return entropy < self.delta, log.argmax(1)
