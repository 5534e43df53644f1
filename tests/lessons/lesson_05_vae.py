"""Lesson 5: a variational autoencoder for digits. Kingma & Welling 2013, arXiv:1312.6114."""

import numpy as np
from sklearn.datasets import load_digits

import minidl as torch
from minidl import nn
from minidl.data import DataLoader, TensorDataset
from minidl.nn import functional as F

rng = np.random.default_rng(5)
images = torch.from_numpy(load_digits().images[:512].astype("float32") / 16).unsqueeze(1)
loader = DataLoader(TensorDataset(images), batch_size=64, drop_last=True)
print(images.shape, images.min().item(), images.max().item(), len(loader))


class VAE(nn.Module):
    """x (N, 1, 8, 8) -> μ, log σ² (N, Z) -> z -> the logits of an image (N, 1, 8, 8)."""

    def __init__(self, latent=4):
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
        )
        self.mu = nn.Linear(64, latent)
        self.logvar = nn.Linear(64, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 64),
            nn.ELU(),
            nn.Unflatten(1, (16, 2, 2)),
            nn.ConvTranspose2d(16, 8, kernel_size=3, stride=2, padding=1, output_padding=1),
            nn.ELU(),
            nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1),
        )

    def posterior(self, x):
        h = self.encoder(x)
        return self.mu(h), self.logvar(h)

    def forward(self, x):
        mu, logvar = self.posterior(x)
        noise = torch.from_numpy(rng.standard_normal(tuple(mu.shape)).astype(np.float32))
        z = mu + noise * torch.exp(0.5 * logvar)            # the random numbers have no parameters: the gradient passes
        return self.decoder(z), mu, logvar


def negative_elbo(logits, x, mu, logvar, beta=1.0):
    """Reconstruction plus KL(N(μ, σ²) ‖ N(0, 1)), summed over the batch."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = 0.5 * (mu.pow(2) + logvar.exp() - logvar - 1).sum()
    return reconstruction + beta * divergence, reconstruction, divergence


def init_weights(m):
    if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        bound = 1 / np.sqrt(m.weight[0].numel())
        m.weight.data.copy_(torch.from_numpy(rng.uniform(-bound, bound, size=tuple(m.weight.shape))))
        m.bias.data.zero_()


vae = VAE().apply(init_weights)
print(vae)
print({name: list(p.shape) for name, p in vae.named_parameters() if "weight" in name})
logits, mu, logvar = vae(images[:2])
print(logits.shape, mu, logvar)

# The sum of the binary cross-entropy, three ways.
x = images[:2]
probabilities = logits.sigmoid()
by_hand = -(x * probabilities.log() + (1 - x) * (1 - probabilities).log()).sum()
print(F.binary_cross_entropy(probabilities, x, reduction="sum"), negative_elbo(logits, x, mu, logvar)[1], by_hand)

optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
for epoch in range(6):
    vae.train()
    totals = np.zeros(3)
    for (batch,) in loader:
        optimizer.zero_grad()
        reconstruction, mu, logvar = vae(batch)
        loss, bce, kld = negative_elbo(reconstruction, batch, mu, logvar, beta=0.05 * epoch)
        loss.backward()
        optimizer.step()
        totals += [loss.item(), bce.item(), kld.item()]
    loss, bce, kld = totals / (len(loader) * 64)
    print(f"epoch {epoch}: loss {loss:.6f} = reconstruction {bce:.6f} + {0.05 * epoch:.2f} * KL {kld:.6f}")

vae.eval()
with torch.no_grad():
    mu, logvar = vae.posterior(images)
    print("mean of μ", mu.mean(dim=0), "mean σ", torch.exp(0.5 * logvar).mean(0))
    error = (torch.sigmoid(vae.decoder(mu)) - images).pow(2).mean(dim=(1, 2, 3))
    best, worst = error.argmin().item(), error.argmax().item()
    print(f"mean square error {error.mean():.5f}; best image {best} {error[best]:.5f}, worst {worst} {error[worst]:.5f}")
    steps = torch.linspace(0, 1, 5).view(-1, 1)
    path = torch.lerp(mu[0].unsqueeze(0), mu[1].unsqueeze(0), steps)
    morph = torch.sigmoid(vae.decoder(path)).squeeze(1)
    print("from one digit to another:", morph.shape, morph.flatten(1).mean(1), (morph[:, 4] > 0.5).int())
