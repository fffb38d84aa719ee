"""SLaM in a training loop of your own: plain PyTorch, no Limbeck trainer."""

import torch

from limbeck.objectives import slam_loss
from limbeck.trust import IsotonicTrust, margin

torch.manual_seed(0)
x = torch.randn(4000, 2)
truth = (x.sum(dim=1) > 0).long()  # known for the first 300 rows: trust is fitted on them
noisy = x.sum(dim=1) + torch.randn(4000)  # what the teacher sees
teacher = torch.sigmoid(3 * torch.stack([-noisy, noisy], dim=1))
trust = IsotonicTrust.fit(margin(teacher[:300]), teacher[:300].argmax(1) == truth[:300], lower=0.5)
alpha = trust.alpha(margin(teacher))

student = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
for _ in range(300):
    rows = torch.randint(300, 3000, (128,))  # unlabelled, with the teacher's answers
    losses = slam_loss(student(x[rows]), teacher[rows], alpha[rows], k=2, target="hard")
    optimizer.zero_grad()
    losses.mean().backward()
    optimizer.step()
for name, scores in (("teacher", teacher), ("student", student(x))):
    print(f"{name} {(scores.argmax(dim=1) == truth)[3000:].float().mean():.1%}")
