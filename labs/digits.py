"""A small convolutional network learns to read handwritten digits: the first lab, a page long.

    python -m labs.digits

Data: the 1,797 digits, 8×8 pixels, that come with scikit-learn (a part of the UCI set of 1998, real handwriting; no
download). A quarter is set aside as the test set and looked at once, at the end. Everything that happens in training
stands in the loop below; to watch one backward pass op by op, replace `loss.backward()` by

    for step in loss.backward_steps():
        print(step)
"""
# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track
from sklearn.linear_model import LogisticRegression

import minidl
import minidl.nn.functional as F
from labs._lab import Lab
from minidl import nn, ops, optim

lab = Lab("digits", __doc__, datasets=["digits"], epochs=40, batch_size=32,
          seconds=lambda args: args.epochs * args.train_size / 10_000)
args = lab.args

# %% The data
train_x, train_y = lab.images(train=True)                           # (1347, 1, 8, 8), (1347,)
test_x, test_y = lab.images(train=False)                            # (450, 1, 8, 8), (450,)

# %% The model: two convolutions that look for strokes, then one dense layer that votes for a digit
model = nn.Sequential(
    nn.Conv2d(1, 16, kernel_size=3, padding=1), nn.ReLU(),          # (N, 1, 8, 8) -> (N, 16, 8, 8)
    nn.MaxPool2d(2),                                                # -> (N, 16, 4, 4)
    nn.Conv2d(16, 32, kernel_size=3, padding=1), nn.ReLU(),         # -> (N, 32, 4, 4)
    nn.MaxPool2d(2),                                                # -> (N, 32, 2, 2)
    nn.Flatten(), nn.Linear(128, 10),                               # -> (N, 128) -> (N, 10), a score for each digit
).to(lab.device)
parameters = sum(p.numel() for p in model.parameters())
lab.section("Training")
lab.say(f"A model of {parameters:,} parameters, all of which change a little after every {args.batch_size} images.")

# %% Training: each epoch sees all training images once, a batch at a time, in a new order
x, y = train_x.to(lab.device), train_y.to(lab.device)
optimizer = optim.Adam(model.parameters(), lr=4e-3)     # rate and epochs: chosen on a part of the training set
start, start_cpu, losses = time.perf_counter(), time.process_time(), []
for _ in track(range(args.epochs), description="training"):
    total = minidl.zeros((), device=lab.device)         # added up on the device: reading it would wait for every step
    for batch in minidl.randperm(len(x), device=lab.device).split(args.batch_size):
        loss = F.cross_entropy(model(x[batch]), y[batch])                   # forward
        optimizer.zero_grad()
        loss.backward()                                                     # dL/dw for every weight w
        optimizer.step()                                                    # w changes a little, against dL/dw
        total += loss.detach() * len(batch)
    losses.append(total.item() / len(x))
seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
lab.say(f"trained in {seconds:.1f} s, mean loss of the last epoch {losses[-1]:.4f}")

# %% Test: once, and beside the simplest thing that could work, a linear classifier on the same pixels
lab.section("The test")
with minidl.no_grad():
    predicted = model(test_x.to(lab.device)).argmax(dim=1).cpu()
accuracy = (predicted == test_y).sum().item() / len(test_y)
linear = LogisticRegression(max_iter=2000).fit(train_x.flatten(1).numpy(), train_y.numpy())
baseline = linear.score(test_x.flatten(1).numpy(), test_y.numpy())
lab.say(f"test accuracy {accuracy:.1%}   (a linear classifier on the same pixels: {baseline:.1%})")

# %% The loss of each epoch; then test images, all mistakes first, each with what the network said
wrong, right = np.flatnonzero(predicted != test_y), np.flatnonzero(predicted == test_y)
figure = plt.figure(figsize=(11, 4.6), layout="constrained")
left, right_side = figure.subfigures(1, 2, width_ratios=[1, 1.3])
axes = left.subplots()
axes.semilogy(range(1, len(losses) + 1), losses, marker="o")
axes.set(title="Training loss", xlabel="epoch", ylabel="mean cross-entropy (log scale)")
axes.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
axes.grid(alpha=0.3)
right_side.suptitle(f"Test images and what the network said: {len(wrong)} of {len(test_y)} wrong, shown first")
for axes, i in zip(right_side.subplots(4, 6).flat, [*wrong, *right], strict=False):
    axes.imshow(test_x[i, 0].numpy(), cmap="gray_r", vmin=0, vmax=1)
    said, truth = int(predicted[i]), int(test_y[i])
    axes.set_title(f"{said}" if said == truth else f"said {said}, is {truth}", fontsize=9,
                   color="black" if said == truth else "crimson")
    axes.axis("off")
lab.figure(figure, "digits", "Left: the mean loss of each epoch. Right: test images, the mistakes first, in red.")

# %%
lab.code(ops.Conv2d)
lab.question("Why look at the test images only once?",
             "Whoever looks, changes something and looks again, chooses what suits these images by luck. The accuracy "
             "would then be that of the best of many tries on them, not that on images still to come.")
lab.question("Why does the linear classifier come so close?",
             "The digits are centred and all of one size, so a weight for each pixel and digit goes far. It cannot see "
             "that a stroke one pixel further left is the same stroke; a convolution can.")
lab.metrics |= {"param_count": parameters, "train_loss": losses, "test_accuracy": accuracy, "test_count": len(test_y),
                "linear_test_accuracy": baseline, "train_seconds": seconds, "train_cpu_seconds": cpu_seconds}
lab.finish()
