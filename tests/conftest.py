"""One thread for every test: small networks are slower on two."""

import torch

torch.set_num_threads(1)
