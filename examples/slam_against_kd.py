"""SLaM in a training loop of your own: plain PyTorch, no Limbeck trainer.

A teacher that is wrong on about a third of the rows answers for unlabelled digits. The same network
is trained on its answers twice: by plain distillation, and by SLaM with trust fitted on 120 labels.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from limbeck.objectives import kd_loss, slam_loss
from limbeck.trust import IsotonicTrust, margin, top_k

STEPS, BATCH = 900, 64

# 120 rows with a label to fit trust on, 900 to measure on; the rest is the pool.
images, digits = load_digits(return_X_y=True)
generator = torch.Generator().manual_seed(0)
order = torch.randperm(len(digits), generator=generator)
x, y = torch.tensor(images).float()[order], torch.tensor(digits)[order]
x = (x - x.mean(dim=0)) / x.std(dim=0).clamp_min(1e-6)
validation, test, pool = slice(0, 120), slice(120, 1020), slice(1020, None)

# The teacher: logits of a model that has seen the truth, behind noise that errs on a third.
clean = torch.tensor(LogisticRegression(max_iter=500).fit(x, y).decision_function(x))
noise = torch.randn(clean.shape, generator=generator)
teacher = torch.softmax(2 * (clean - clean.mean(0)) / clean.std(0) + 2 * noise, dim=1).float()
right = teacher.argmax(dim=1) == y

trust = IsotonicTrust.fit(margin(teacher[validation]), right[validation], lower=0.5)
k = top_k(teacher[validation], y[validation], threshold=0.9)
alpha = trust.alpha(margin(teacher[pool]))


def train(*, with_slam: bool) -> float:
    """Train a network on the teacher's answers; accuracy on the test rows."""
    torch.manual_seed(0)  # the same initial weights for both
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    batches = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        rows = torch.randint(len(alpha), (BATCH,), generator=batches)
        logits, answers = net(x[pool][rows]), teacher[pool][rows]
        losses: Tensor = (
            slam_loss(logits, answers, alpha[rows], k, target="hard")
            if with_slam
            else kd_loss(logits, answers, temperature=1.0)
        )
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    with torch.no_grad():
        return (net(x[test]).argmax(dim=1) == y[test]).float().mean().item()


print(f"teacher             {right[test].float().mean():.1%}  (k = {k})")
print(f"plain distillation  {train(with_slam=False):.1%}")
print(f"SLaM                {train(with_slam=True):.1%}")
