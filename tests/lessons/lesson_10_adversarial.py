"""Lesson 10: what a network looks at: input gradients, adversarial examples, feature maps by hooks.

Goodfellow et al. 2014, arXiv:1412.6572; Madry et al. 2017, arXiv:1706.06083; Zhou et al. 2015, arXiv:1512.04150.
In float64.
"""

from collections import OrderedDict

import numpy as np
from sklearn.datasets import load_digits

import minidl as torch
from minidl import nn
from minidl.nn import functional as F
from minidl.optim import RMSprop

torch.set_default_dtype(torch.float64)          # the sign of a gradient near zero is no matter of rounding then
digits = load_digits()
X = torch.tensor(digits.images / 16).unsqueeze(1)
Y = torch.LongTensor(digits.target)
train_x, train_y, test_x, test_y = X[:700], Y[:700], X[700:900], Y[700:900]
print(X.shape, X.dtype, Y.dtype, torch.bincount(test_y))

model = nn.Sequential(OrderedDict([
    ("conv1", nn.Conv2d(1, 8, 3, padding=1)),
    ("relu1", nn.ReLU()),
    ("pool1", nn.MaxPool2d(kernel_size=2, stride=2)),
    ("conv2", nn.Conv2d(8, 16, 3, padding=1)),
    ("relu2", nn.ReLU()),
    ("pool2", nn.MaxPool2d(2)),
    ("flatten", nn.Flatten()),
    ("fc", nn.Linear(64, 10)),
]))
generator = np.random.default_rng(10)
state = model.state_dict()
for key, value in state.items():
    state[key] = torch.from_numpy(generator.normal(0, 0.2, size=tuple(value.size()))).to(value.dtype)
model.load_state_dict(state)
print(model, model.conv1.weight.sum().item())

optimizer = RMSprop(model.parameters(), lr=5e-3, alpha=0.9)
for epoch in range(6):
    for i in range(0, len(train_x), 70):
        loss = F.cross_entropy(model(train_x[i:i + 70]), train_y[i:i + 70])
        model.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: {loss.item():.10f}")
model.eval()
for parameter in model.parameters():
    parameter.requires_grad_(False)

# --- which pixels matter: the gradient of the winning score ---
image = test_x[3:4].clone().requires_grad_(True)
scores = model(image)
score, winner = scores.max(dim=1)
score.backward()
saliency = image.grad.abs().squeeze()
print("digit", test_y[3].item(), "read as", winner.item(), "saliency", saliency.shape, f"{saliency.max().item():.10f}")
print("the row and column that matter most:", divmod(saliency.argmax().item(), 8), saliency.sum(0).argmax())
print(model.conv1.weight.grad is None or model.conv1.weight.requires_grad)


# --- the fast gradient sign method: one step uphill for the loss ---
def fgsm(x, labels, epsilon):
    x = x.clone().detach()
    x.requires_grad = True
    F.nll_loss(F.log_softmax(model(x), dim=1), labels).backward()
    return torch.clamp(x.data + epsilon * x.grad.data.sign(), 0, 1)


def several_steps(x, labels, epsilon, steps):
    """Projected gradient descent: small steps, each followed by a return into the box of half width epsilon."""
    low, high = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    attacked = x
    for _ in range(steps):
        attacked = attacked.detach().requires_grad_()
        slope, = torch.autograd.grad(F.cross_entropy(model(attacked), labels), attacked)
        attacked = torch.max(torch.min(attacked + 2 * epsilon / steps * slope.sign(), high), low)
    return attacked.detach()


def accuracy(images):
    with torch.no_grad():
        return (model(images).argmax(dim=-1) == test_y).float().mean().item()


print(f"clean accuracy {accuracy(test_x):.3f}")
for epsilon in (0.05, 0.1, 0.2):
    fast = fgsm(test_x, test_y, epsilon)
    slow = several_steps(test_x, test_y, epsilon, steps=5)
    print(f"epsilon {epsilon}: fgsm {accuracy(fast):.3f}, pgd {accuracy(slow):.3f}, largest change "
          f"{(fast - test_x).abs().max():.3f}, range [{slow.min():.1f}, {slow.max():.1f}]")

# --- hooks see what flows through a layer ---
activations, gradients = {}, {}


def keep(name):
    def after_forward(module, inputs, output):
        activations[name] = output.detach()
    return after_forward


def keep_gradient(module, inputs, output):
    output.register_hook(lambda grad: gradients.update({module: grad.detach()}))


handles = [module.register_forward_hook(keep(name)) for name, module in model.named_children()]
handles.append(model.conv2.register_forward_hook(keep_gradient))
x = test_x[:1].clone().requires_grad_()
x.register_hook(lambda grad: print("gradient of the image:", tuple(grad.shape), f"{grad.norm():.10f}"))
model(x)[0, test_y[0]].backward()
for name, activation in activations.items():
    print(f"{name:8s} {list(activation.shape)!s:15s} mean {activation.mean():13.10f}  "
          f"active {(activation > 0).float().mean():.3f}")

# class activation map: feature maps weighted by their mean gradients
weights = gradients[model.conv2].mean(dim=(2, 3), keepdim=True)
cam = F.relu((weights * activations["conv2"]).sum(dim=1, keepdim=True))
cam = F.interpolate(cam, scale_factor=2, mode="nearest")
print("CAM", cam.shape, (cam / (cam.max() + 1e-8))[0, 0, ::2, ::2])
for handle in handles:
    handle.remove()
activations.clear()
model(test_x[:1])
print("hooks removed:", len(activations) == 0)

# --- the image that a filter likes best, by gradient ascent ---
dream = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
for _ in range(10):
    activation = model[:2](dream)[0, 5].mean()
    activation.backward()
    dream.data += 0.2 * dream.grad / (dream.grad.std() + 1e-8)
    dream.data.clamp_(0, 1)
    dream.grad.zero_()
print(f"the filter's answer {activation.item():.10f}", dream.detach()[0, 0, 3])
