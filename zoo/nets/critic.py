"""A critic that tells from a latent whether an image is labeled.

Sinha, Ebrahimi & Darrell, "Variational Adversarial Active Learning", ICCV 2019. https://arxiv.org/abs/1904.00370
"""

from torch import Tensor, nn

from zoo.nets.common import fp32


class Critic(nn.Module):
    """Latents (b z), any float type, to a float32 logit (b,): above zero means labeled.

    `hidden` hidden layers of `width` with ReLU: 2 in the released code, 4 in the paper. No sigmoid: one saturates,
    and the query ranks. Weights start Kaiming-normal, biases at zero, as released.
    """

    def __init__(self, latent: int, width: int = 512, hidden: int = 2) -> None:
        super().__init__()
        if min(latent, width) < 1 or hidden < 0:
            raise ValueError(f"latent={latent} and width={width} must be at least 1, hidden={hidden} at least 0.")
        layers: list[nn.Module] = []
        for i in range(hidden):
            layers += [nn.Linear(width if i else latent, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width if hidden else latent, 1), nn.Flatten(0))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor) -> Tensor:
        with fp32(z):
            logit: Tensor = self.layers(z.float())
        return logit
