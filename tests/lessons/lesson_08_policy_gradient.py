"""Lesson 8: REINFORCE finds the way through a small grid. Williams 1992."""

import numpy as np

import minidl as torch
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim
from minidl.distributions import Categorical

rng = np.random.default_rng(8)


class Grid:
    """A 4×4 grid with three walls; start at the upper left, goal at the lower right.

    +1 at the goal, 0.1 for a step closer to it, -0.2 for any other.
    """

    moves = ((-1, 0), (1, 0), (0, -1), (0, 1))
    walls = ((1, 1), (2, 1), (1, 3))
    goal = (3, 3)

    def reset(self):
        self.at, self.time = (0, 0), 0
        return self.observation()

    def observation(self):
        cells = torch.zeros(4, 4)
        cells[self.at] = 1
        return cells.flatten()

    def step(self, action):
        before = sum(self.at)
        row, column = (a + b for a, b in zip(self.at, self.moves[action], strict=True))
        if 0 <= row < 4 and 0 <= column < 4 and (row, column) not in self.walls:
            self.at = (row, column)
        self.time += 1
        done = self.at == self.goal or self.time == 20
        reward = 1.0 if self.at == self.goal else 0.1 if sum(self.at) > before else -0.2
        return self.observation(), reward, done


class Policy(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.see = nn.Linear(16, hidden)
        self.drop = nn.Dropout(p=0.0)
        self.act = nn.Linear(hidden, 4)

    def forward(self, x):
        return F.softmax(self.act(F.relu(self.drop(self.see(x)))), dim=-1)


def play(env, policy):
    """One episode: the logarithms of the probabilities of what was done, the entropies, the rewards.

    The action is drawn from NumPy's random numbers through the cumulative distribution.
    """
    log_probs, entropies, rewards = [], [], []
    state, done = env.reset(), False
    while not done:
        distribution = Categorical(policy(state.unsqueeze(0)).squeeze(0))
        action = (distribution.probs.detach().cumsum(0) < rng.random()).sum().clamp(max=3)
        log_probs.append(distribution.log_prob(action))
        entropies.append(distribution.entropy())
        state, reward, done = env.step(action.item())
        rewards.append(reward)
    return torch.stack(log_probs), torch.stack(entropies), rewards


def discounted(rewards, gamma):
    """G_t = r_t + γ G_{t+1}, shifted and scaled to mean 0 and deviation 1."""
    returns = torch.zeros(len(rewards))
    later = 0.0
    for t in reversed(range(len(rewards))):
        later = rewards[t] + gamma * later
        returns[t] = later
    return (returns - returns.mean()) / (returns.std() + 1e-8)


# --- the distribution by itself ---
d = Categorical(torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]))
print(d.log_prob(torch.tensor([2, 0])), d.entropy(), d.probs.sum(-1), d.logits.exp())
print(Categorical(logits=torch.tensor([0.0, 1.0, 2.0])).probs, d.sample().shape, d.sample((5,)).shape)
frequencies = Categorical(torch.tensor([0.7, 0.3])).sample((3000,)).float().mean()
print("drawn as often as it should be:", 0.25 < frequencies.item() < 0.35, discounted([0.0, 0.0, 1.0], 0.5))

# --- training ---
policy = Policy()
for parameter in policy.parameters():
    parameter.data = torch.tensor(rng.normal(0, 0.2, size=tuple(parameter.shape)), dtype=torch.float32)
print(policy)
optimizer = optim.Adam(policy.parameters(), lr=1e-2)
env, average, lengths = Grid(), 0.0, []
for episode in range(120):
    log_probs, entropies, rewards = play(env, policy)
    loss = -(log_probs * discounted(rewards, gamma=0.9)).sum() - 0.02 * entropies.sum()
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), max_norm=5.0)
    optimizer.step()
    lengths.append(len(rewards))
    average += 0.05 * (sum(rewards) - average)
    if episode % 10 == 9:
        print(f"episode {episode}\tsum of rewards {sum(rewards):.2f}\taverage {average:.3f}\t"
              f"loss {loss.item():.6f}\tnorm of the gradient {norm.item():.6f}")
print("lengths", lengths)

# --- what it would do now, without chance ---
policy.eval()
with torch.no_grad():
    probs = policy(torch.eye(16)).view(4, 4, 4)
best = probs.argmax(dim=-1)
for row in range(4):
    print("".join("#" if (row, column) in Grid.walls else "^v<>"[best[row, column]] for column in range(4)))
state, done, path = env.reset(), False, []
while not done:
    path.append(env.at)
    with torch.no_grad():
        state, reward, done = env.step(int(policy(state).argmax()))
print(path, "->", env.at, reward, probs[0, 0])
