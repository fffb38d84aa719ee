"""SLaM in a training loop of your own: plain PyTorch, no Limbeck trainer."""

import torch
from torch import nn

from _toy import compare, noisy_points
from limbeck.objectives import slam_loss
from limbeck.trust import IsotonicTrust, margin

x, truth, teacher = noisy_points(4000)  # truth is known for 300 rows: trust is fitted on them
right = teacher[:300].argmax(dim=1) == truth[:300]
alpha = IsotonicTrust.fit(margin(teacher[:300]), right, lower=0.5).alpha(margin(teacher))

student = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
for _ in range(300):
    rows = torch.randint(300, 3000, (128,))  # unlabelled, with the teacher's answers
    losses = slam_loss(student(x[rows]), teacher[rows], alpha[rows], k=2, target="hard")
    optimizer.zero_grad()
    losses.mean().backward()
    optimizer.step()
compare(teacher[3000:], student(x[3000:]), truth[3000:])
