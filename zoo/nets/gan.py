"""A generator that makes images out of noise, and a discriminator that tells them from real ones.

"mlp" is ours, linear layers alone, for small images in seconds. GAAL's authors have shown no layers ("a modified
DCGAN"), so the other two are those of re-implementations (third-party), taken to other sizes by us. With 100 latents
and width 64 they are theirs, in the number of parameters too:
"dcgan"  billzhaox/PyTorch-GAAL, 3x32x32: 3,448,576 and 663,296. After Radford, Metz & Chintala, "Unsupervised
         Representation Learning with Deep Convolutional Generative Adversarial Networks", ICLR 2016, whose start
         weights N(0, 0.02^2) it has here. https://arxiv.org/abs/1511.06434
"dense"  shaunntan/GenerativeAdversarialActLearning, 1x28x28: 2,305,472 and 212,865. Where TensorFlow pads by 1 and 2,
         this one pads by 2 and 1.
No discriminator ends in a sigmoid here: losses take logits.
"""

from itertools import pairwise
from math import ceil, prod

from einops.layers.torch import Rearrange
from torch import Tensor, nn

from zoo.nets.common import Full, Shape, roomy, unknown


class Generator(nn.Module):
    """Latents (b z), out of N(0, 1), to images (b c h w) in [-1, 1], float32.

    Sides that are no multiple of the last doubling are rounded up, and the surplus is cropped.
    """

    def __init__(self, shape: Shape, latent: int = 32, width: int = 128, form: str = "mlp") -> None:
        super().__init__()
        check(shape, min(latent, width), form)
        _, self.h, self.w = shape
        self.latent = latent
        self.body = GENERATORS[form](shape, latent, width)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.body(z)
        return image[..., : self.h, : self.w].float().tanh()


class Discriminator(nn.Module):
    """Images (b c h w) in [-1, 1] to a float32 logit (b,): above zero means real."""

    def __init__(self, shape: Shape, width: int = 128, form: str = "mlp") -> None:
        super().__init__()
        check(shape, width, form)
        self.body = CRITICS[form](shape, width)

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.body(x)
        return logit


def check(shape: Shape, least: int, form: str) -> None:
    """Refuse what no network can be made of."""
    roomy(shape, 8, "a GAN", "below 8 pixels there is nothing to double")
    if least < 1:
        raise ValueError(f"latent and width must be at least 1, not {least}.")
    if form not in GENERATORS:
        raise unknown("form of GAN", form, GENERATORS, f"Choose from {', '.join(GENERATORS)}")


def halvings(shape: Shape) -> int:
    """How often an image (c h w) is halved: until 4 to 7 pixels of its shorter side are left."""
    return (min(shape[1:]) // 4).bit_length() - 1


def mlp_generator(shape: Shape, latent: int, width: int) -> nn.Sequential:
    """Two hidden layers of `width`, normalised."""
    c, h, w = shape
    body = nn.Sequential()
    for i in (latent, width):
        body.extend([nn.Linear(i, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()])
    return body.extend([nn.Linear(width, c * h * w), Rearrange("b (c h w) -> b c h w", h=h, w=w)])


def mlp_critic(shape: Shape, width: int) -> nn.Sequential:
    """Two hidden layers, twice as wide and as wide."""
    body, wide = nn.Sequential(nn.Flatten()), (prod(shape), 2 * width, width)
    for i, o in pairwise(wide):
        body.extend([nn.Linear(i, o), nn.LeakyReLU(0.2)])
    return body.extend([Full(nn.Linear(width, 1)), nn.Flatten(0)])


def dcgan_generator(shape: Shape, latent: int, width: int) -> nn.Sequential:
    """A linear layer (a transposed convolution of one pixel), then transposed 4x4 convolutions."""
    n = halvings(shape)
    wide = [width * 2**i for i in range(n, 0, -1)]
    body = nn.Sequential(*begin(shape, latent, wide[0]), nn.BatchNorm2d(wide[0]), nn.ReLU())
    for i, o in pairwise(wide):
        body.extend([nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()])
    return small_start(body.append(nn.ConvTranspose2d(wide[-1], shape[0], 4, 2, 1, bias=False)))


def dcgan_critic(shape: Shape, width: int) -> nn.Sequential:
    """4x4 convolutions of stride 2, all but the first normalised, and one as large as what is left."""
    (c, h, w), n = shape, halvings(shape)
    body = nn.Sequential(nn.Conv2d(c, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2))
    for i, o in pairwise(width * 2**i for i in range(n)):
        body.extend([nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)])
    left = (h >> n) * (w >> n) * width * 2 ** (n - 1)
    return small_start(body.extend([nn.Flatten(), Full(nn.Linear(left, 1, bias=False)), nn.Flatten(0)]))


def small_start(body: nn.Sequential) -> nn.Sequential:
    """The weights of a network that has no biases, drawn from N(0, 0.02^2), those of its normalisations left alone."""
    for layer in body.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
    return body


def dense_generator(shape: Shape, latent: int, width: int) -> nn.Sequential:
    """A linear layer normalised value by value, a transposed 5x5 convolution that keeps the size, then doublings."""
    wide = [width * 2**i for i in range(halvings(shape), -1, -1)]
    linear, fold = begin(shape, latent, wide[0])
    body = nn.Sequential(linear, nn.BatchNorm1d(linear.out_features), nn.LeakyReLU(0.3), fold)
    for n, (i, o) in enumerate(pairwise(wide)):
        stride = 2 if n else 1
        body.append(nn.ConvTranspose2d(i, o, 5, stride, 2, output_padding=stride - 1, bias=False))
        body.extend([nn.BatchNorm2d(o), nn.LeakyReLU(0.3)])
    return body.append(nn.ConvTranspose2d(width, shape[0], 5, 2, 2, output_padding=1, bias=False))


def dense_critic(shape: Shape, width: int) -> nn.Sequential:
    """5x5 convolutions of stride 2 with dropout, none of them normalised, and a linear layer."""
    (c, h, w), n = shape, halvings(shape)
    body = nn.Sequential()
    for i, o in pairwise([c, *(width * 2**i for i in range(n))]):
        body.extend([nn.Conv2d(i, o, 5, 2, 2), nn.LeakyReLU(0.3), nn.Dropout(0.3)])
    left = ceil(h / 2**n) * ceil(w / 2**n) * width * 2 ** (n - 1)
    return body.extend([nn.Flatten(), Full(nn.Linear(left, 1)), nn.Flatten(0)])


def begin(shape: Shape, latent: int, channels: int) -> tuple[nn.Linear, Rearrange]:
    """From latents (b z) to the first maps, still to be doubled: a linear layer, and the fold after it."""
    h, w = (ceil(side / 2 ** halvings(shape)) for side in shape[1:])
    return nn.Linear(latent, channels * h * w, bias=False), Rearrange("b (c h w) -> b c h w", h=h, w=w)


GENERATORS = {"mlp": mlp_generator, "dcgan": dcgan_generator, "dense": dense_generator}
CRITICS = {"mlp": mlp_critic, "dcgan": dcgan_critic, "dense": dense_critic}
