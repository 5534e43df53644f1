"""Lesson 13: schedules, parameter groups, clipping, early stopping, saved states. In float64."""

import copy
from collections import OrderedDict

import numpy as np

import minidl as torch
from minidl import nn, optim
from minidl.data import ConcatDataset, DataLoader, Subset, TensorDataset
from minidl.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector, vector_to_parameters
from minidl.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(13)

# --- a curve with noise, from two sets; the last part is for validation ---
x = torch.linspace(-2, 2, 120).view(-1, 1)
y = torch.sin(2 * x) * torch.exp(-x.abs()) + torch.from_numpy(rng.normal(0, 0.05, size=(120, 1)))
shuffled = rng.permutation(120)
both = ConcatDataset([TensorDataset(x[:60], y[:60]), TensorDataset(x[60:], y[60:])])
train_set, val_set = Subset(both, shuffled[:90].tolist()), Subset(both, shuffled[90:].tolist())
train_loader, val_loader = DataLoader(train_set, batch_size=30), DataLoader(val_set, batch_size=len(val_set))
print(len(both), len(train_set), len(val_set), [tuple(a.shape) for a, _ in train_loader], both[70][0], train_set[0][1])


def make_model():
    generator = np.random.default_rng(130)
    model = nn.Sequential(OrderedDict(
        body=nn.Sequential(nn.Linear(1, 20), nn.SiLU(), nn.Linear(20, 20), nn.Hardtanh()),
        head=nn.Linear(20, 1),
    ))
    for m in model.modules():
        if isinstance(m, nn.Linear):
            m.weight.data = torch.from_numpy(generator.normal(size=m.weight.shape) / np.sqrt(m.in_features))
            nn.init.constant_(m.bias, 0.01)
    return model


# --- what the schedules do with a learning rate of 1 ---
def rates(make, steps=8):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = optim.SGD([parameter], lr=1.0)
    scheduler = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return " ".join(f"{rate:.10f}" for rate in seen)


print("step       ", rates(lambda o: StepLR(o, step_size=3, gamma=0.5)))
print("multistep  ", rates(lambda o: MultiStepLR(o, milestones=[2, 5], gamma=0.1)))
print("exponential", rates(lambda o: ExponentialLR(o, gamma=0.9)))
print("cosine     ", rates(lambda o: CosineAnnealingLR(o, T_max=6, eta_min=0.1)))
print("lambda     ", rates(lambda o: LambdaLR(o, lr_lambda=lambda epoch: 1 / (1 + epoch))))
print("linear     ", rates(lambda o: LinearLR(o, start_factor=0.25, total_iters=4)))
print("one cycle  ", rates(lambda o: OneCycleLR(o, max_lr=2.0, total_steps=10)))
print("sequential ", rates(lambda o: SequentialLR(
    o, [LinearLR(o, start_factor=0.1, total_iters=3), ExponentialLR(o, gamma=0.5)], milestones=[3])))

# --- clipping ---
model = make_model()
nn.functional.mse_loss(100 * model(x), y, reduction="sum").backward()
before = clip_grad_norm_(model.parameters(), max_norm=1.0)
after = torch.sqrt(sum((p.grad ** 2).sum() for p in model.parameters()))
print(f"gradient norm {before.item():.8e} -> {after.item():.8f}")
clip_grad_value_(model.parameters(), 0.01)
print(max(p.grad.abs().max().item() for p in model.parameters()))

# --- parameter groups, a warm start, a plateau, early stopping ---
criterion = nn.MSELoss()
optimizer = optim.Adam([
    {"params": model.body.parameters(), "lr": 0.01},
    {"params": model.head.parameters(), "weight_decay": 1e-4},
], lr=0.03)
scheduler = ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=2)
best, best_state, bad_epochs = float("inf"), None, 0
for epoch in range(40):
    model.train()
    for inputs, targets in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val_loss = sum(criterion(model(a), b).item() * len(a) for a, b in val_loader) / len(val_set)
    scheduler.step(val_loss)
    if val_loss < best:
        best, best_state, bad_epochs = val_loss, copy.deepcopy(model.state_dict()), 0
    else:
        bad_epochs += 1
    if epoch % 8 == 0:
        print(f"epoch {epoch:2d}: {loss.item():.10f} {val_loss:.10f}", [group["lr"] for group in optimizer.param_groups])
    if bad_epochs == 8:
        print("no better for 8 epochs, stopped at", epoch)
        break
model.load_state_dict(best_state)
print(f"best {best:.10f}, on all {criterion(model(x), y).item():.10f}")
print(list(best_state), best_state["head.weight"].dtype)

# --- an optimizer has a state too: a run that stops and goes on ends where one without a stop ends ---
def run(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return criterion(model(x), y).item()


whole = make_model()
full = run(whole, optim.AdamW(whole.parameters(), lr=0.01, amsgrad=False), 20)
first = make_model()
opt1 = optim.AdamW(first.parameters(), lr=0.01)
run(first, opt1, 10)
second = make_model()
opt2 = optim.AdamW(second.parameters(), lr=0.01)
second.load_state_dict(first.state_dict())
opt2.load_state_dict(opt1.state_dict())
print(f"{full:.12f} {run(second, opt2, 10):.12f}")

# --- freezing, counting, the parameters as one vector ---
for p in second.body.parameters():
    p.requires_grad = False
trainable = sum(p.numel() for p in second.parameters() if p.requires_grad)
optimizer = optim.SGD(filter(lambda p: p.requires_grad, second.parameters()), lr=0.1, momentum=0.9, dampening=0.1)
frozen = second.body[0].weight.clone()
print(trainable, f"{run(second, optimizer, 10):.10f}", torch.equal(frozen, second.body[0].weight))
vector = parameters_to_vector(second.parameters())
vector_to_parameters(vector * 0.5, second.parameters())
print(vector.shape, f"{vector.norm().item():.10f} {criterion(second(x), y).item():.10f}")
