"""Lesson 18: two networks against each other, with a Trainer and manual optimization. In float64."""

import logging
import warnings

import numpy as np

import minidl as torch
import minidl.nn.functional as F
import minidl.train as L
from minidl import nn
from minidl.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(18)
real = torch.from_numpy(np.stack([rng.normal(1, 0.3, 64), rng.normal(-1, 0.5, 64)], axis=1))
noise = torch.from_numpy(rng.normal(size=(64, 3)))


class GAN(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def forward(self, z):
        return self.generator(z)

    def adversarial_loss(self, scores, target):
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))

    def training_step(self, batch, batch_idx):
        points, z = batch
        optimizer_g, optimizer_d = self.optimizers()

        self.toggle_optimizer(optimizer_g)
        g_loss = self.adversarial_loss(self.discriminator(self(z)), 1.0)
        optimizer_g.zero_grad()
        self.manual_backward(g_loss)
        optimizer_g.step()
        self.untoggle_optimizer(optimizer_g)

        self.toggle_optimizer(optimizer_d)
        d_loss = (self.adversarial_loss(self.discriminator(points), 1.0)
                  + self.adversarial_loss(self.discriminator(self(z).detach()), 0.0)) / 2
        optimizer_d.zero_grad()
        self.manual_backward(d_loss)
        optimizer_d.step()
        self.untoggle_optimizer(optimizer_d)
        self.log_dict({"g_loss": g_loss, "d_loss": d_loss}, on_step=False, on_epoch=True)

    def on_train_epoch_end(self):
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def configure_optimizers(self):
        g = torch.optim.Adam(self.generator.parameters(), lr=0.01, betas=(0.5, 0.999))
        d = torch.optim.Adam(self.discriminator.parameters(), lr=0.02, betas=(0.5, 0.999))
        return [g, d], [torch.optim.lr_scheduler.ExponentialLR(g, 0.9), torch.optim.lr_scheduler.ExponentialLR(d, 0.95)]


model = GAN()
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.from_numpy(rng.normal(0, 0.5, size=tuple(p.shape))))


class Printer(L.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        made = pl_module(noise).mean(dim=0)
        print(f"epoch {trainer.current_epoch}: mean {made[0].item():.6f} {made[1].item():.6f}")


trainer = L.Trainer(max_epochs=10, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[Printer()],
                    enable_progress_bar=False, enable_model_summary=False)
trainer.fit(model, DataLoader(TensorDataset(real, noise), 16))
print({name: round(value.item(), 6) for name, value in sorted(trainer.callback_metrics.items())})
print("rates", [f"{o.param_groups[0]['lr']:.6f}" for o in trainer.optimizers], "steps", trainer.global_step)
