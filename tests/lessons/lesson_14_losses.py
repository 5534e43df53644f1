"""Lesson 14: losses and activations, each beside its formula written out. In float64."""

import math

import numpy as np

import minidl as torch
import minidl.nn as nn
import minidl.nn.functional as F

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(14)


def compare(name, value, by_hand):
    """Prints a loss, and whether the formula gives the same."""
    same = torch.allclose(value, by_hand, rtol=1e-10, atol=1e-12)
    print(f"{name:28s} {value.sum().item():.12f}  {'=' if same else 'differs from'} formula")


# --- regression ---
prediction = torch.tensor(rng.normal(size=(5, 3)), requires_grad=True)
target = torch.tensor(rng.normal(size=(5, 3)))
difference = prediction - target
compare("MSELoss", nn.MSELoss()(prediction, target), difference.pow(2).mean())
compare("MSELoss sum", nn.MSELoss(reduction="sum")(prediction, target), (difference * difference).sum())
compare("mse_loss none", F.mse_loss(prediction, target, reduction="none"), difference ** 2)
compare("L1Loss", nn.L1Loss()(prediction, target), difference.abs().mean())
d = difference.abs()
compare("SmoothL1Loss", nn.SmoothL1Loss()(prediction, target), torch.where(d < 1, 0.5 * d ** 2, d - 0.5).mean())
compare("HuberLoss", nn.HuberLoss(delta=0.7)(prediction, target),
        torch.where(d <= 0.7, 0.5 * d ** 2, 0.7 * (d - 0.35)).mean())
compare("PoissonNLLLoss", nn.PoissonNLLLoss()(prediction, target.abs()),
        (prediction.exp() - target.abs() * prediction).mean())
variance = torch.full((5, 3), 0.5)
compare("GaussianNLLLoss", nn.GaussianNLLLoss()(prediction, target, variance),
        (0.5 * (variance.log() + difference ** 2 / variance)).mean())
(F.smooth_l1_loss(prediction, target) + F.l1_loss(prediction, target) + F.huber_loss(prediction, target)).backward()
print("gradients", prediction.grad.norm().item(), prediction.grad[0].tolist())

# --- classes ---
logits = torch.tensor(rng.normal(size=(6, 4)) * 2, requires_grad=True)
labels = torch.tensor([0, 3, 1, 1, 2, 0])
log_p = logits - logits.exp().sum(dim=1, keepdim=True).log()
picked = log_p[torch.arange(6), labels]
class_weight = torch.tensor([1.0, 2.0, 0.5, 0.25])
compare("CrossEntropyLoss", nn.CrossEntropyLoss()(logits, labels), -picked.mean())
compare("NLLLoss", nn.NLLLoss()(F.log_softmax(logits, dim=1), labels), -picked.mean())
compare("CrossEntropyLoss weight", nn.CrossEntropyLoss(weight=class_weight)(logits, labels),
        -(class_weight[labels] * picked).sum() / class_weight[labels].sum())
compare("CrossEntropyLoss smoothing", nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels),
        (-0.9 * picked - 0.1 * log_p.mean(1)).mean())
ignored = torch.tensor([0, -100, 1, -100, 2, 0])
compare("cross_entropy ignore_index", F.cross_entropy(logits, ignored), -picked[ignored != -100].mean())
soft = F.softmax(torch.tensor(rng.normal(size=(6, 4))), dim=1)
compare("cross_entropy probabilities", F.cross_entropy(logits, soft), -(soft * log_p).sum(1).mean())
compare("KLDivLoss", nn.KLDivLoss(reduction="batchmean")(log_p, soft), (soft * (soft.log() - log_p)).sum() / 6)
F.cross_entropy(logits, labels, weight=class_weight, reduction="sum").backward()
print("gradients", logits.grad.norm().item(), logits.grad[1].sum().abs().item() < 1e-12)

# --- yes or no ---
score = torch.tensor(rng.normal(size=8) * 3)
answer = (torch.tensor(rng.random(8)) > 0.5).double()
p = torch.sigmoid(score)
by_hand = -(answer * p.log() + (1 - answer) * (1 - p).log())
compare("BCELoss", nn.BCELoss()(p, answer), by_hand.mean())
compare("BCEWithLogitsLoss", nn.BCEWithLogitsLoss()(score, answer), by_hand.mean())
compare("BCEWithLogits pos_weight", F.binary_cross_entropy_with_logits(score, answer, pos_weight=torch.tensor(3.0)),
        -(3 * answer * p.log() + (1 - answer) * (1 - p).log()).mean())
compare("SoftMarginLoss", nn.SoftMarginLoss()(score, 2 * answer - 1), torch.log1p(torch.exp(-(2 * answer - 1) * score)).mean())
print(F.binary_cross_entropy_with_logits(torch.tensor([1000.0, -1000.0]), torch.tensor([1.0, 1.0])).item())

# --- distances ---
u, v, w = (torch.tensor(rng.normal(size=(4, 6))) for _ in range(3))
sign = torch.tensor([1.0, -1.0, 1.0, -1.0])
cosine = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
compare("cosine_similarity", F.cosine_similarity(u, v), cosine)
compare("CosineEmbeddingLoss", nn.CosineEmbeddingLoss(margin=0.1)(u, v, sign),
        torch.where(sign > 0, 1 - cosine, F.relu(cosine - 0.1)).mean())
compare("MarginRankingLoss", nn.MarginRankingLoss(margin=0.3)(u[:, 0], v[:, 0], sign),
        (-sign * (u[:, 0] - v[:, 0]) + 0.3).clamp_min(0).mean())
compare("HingeEmbeddingLoss", nn.HingeEmbeddingLoss()(cosine, sign),
        torch.where(sign == 1, cosine, (1 - cosine).relu()).mean())
near, far = (u - v + 1e-6).pow(2).sum(1).sqrt(), (u - w + 1e-6).pow(2).sum(1).sqrt()
compare("TripletMarginLoss", nn.TripletMarginLoss(margin=0.8)(u, v, w), (near - far + 0.8).relu().mean())
compare("cdist", torch.cdist(u, w), (u[:, None] - w[None]).square().sum(-1).sqrt())

# --- activations and their slopes ---
formulas = {
    "ReLU": (nn.ReLU(), lambda z: z * (z > 0)),
    "LeakyReLU": (nn.LeakyReLU(0.2), lambda z: torch.where(z > 0, z, 0.2 * z)),
    "PReLU": (nn.PReLU(init=0.3), lambda z: z.clamp(min=0) + 0.3 * z.clamp(max=0)),
    "ELU": (nn.ELU(alpha=0.5), lambda z: torch.where(z > 0, z, 0.5 * (z.exp() - 1))),
    "SELU": (nn.SELU(), lambda z: 1.0507009873554805 * torch.where(z > 0, z, 1.6732632423543772 * torch.expm1(z))),
    "GELU": (nn.GELU(), lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2)))),
    "GELU tanh": (nn.GELU(approximate="tanh"),
                  lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z ** 3)))),
    "SiLU": (nn.SiLU(), lambda z: z / (1 + (-z).exp())),
    "Mish": (nn.Mish(), lambda z: z * torch.tanh(F.softplus(z))),
    "Softplus": (nn.Softplus(beta=2), lambda z: (1 + (2 * z).exp()).log() / 2),
    "Softsign": (nn.Softsign(), lambda z: z / (1 + z.abs())),
    "Hardtanh": (nn.Hardtanh(), lambda z: z.clip(-1, 1)),
    "ReLU6": (nn.ReLU6(), lambda z: z.clamp(0, 6)),
    "Hardswish": (nn.Hardswish(), lambda z: z * F.relu6(z + 3) / 6),
    "LogSigmoid": (nn.LogSigmoid(), lambda z: torch.log(torch.sigmoid(z))),
    "Tanhshrink": (nn.Tanhshrink(), lambda z: z - z.tanh()),
    "Threshold": (nn.Threshold(0.5, -1.0), lambda z: torch.where(z > 0.5, z, torch.full_like(z, -1.0))),
    "Softmin": (nn.Softmin(dim=0), lambda z: (-z).softmax(0)),
    "GLU": (nn.GLU(dim=0), lambda z: z[:4] * torch.sigmoid(z[4:])),
}
z = torch.linspace(-3.3, 3.1, 8, requires_grad=True)
for name, (module, formula) in formulas.items():
    compare(name, module(z), formula(z))
    slope, = torch.autograd.grad(module(z).sum() + (module(z) ** 2).sum(), z)
    expected, = torch.autograd.grad(formula(z).sum() + (formula(z) ** 2).sum(), z)
    print(f"{module!r:38s} slope {slope.abs().sum().item():.12f} {torch.allclose(slope, expected, rtol=1e-9)}")
