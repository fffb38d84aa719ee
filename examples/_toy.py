"""Made-up tasks for the two examples of a loop of one's own; nothing here is Limbeck's."""

import tempfile

import torch


def noisy_points(rows):
    """Points, classes, and a teacher that sees through noise: wrong on a fifth of the rows."""
    torch.manual_seed(0)  # also for the weights of the student that comes next
    x = torch.randn(rows, 2)
    return x, *_seen_through_noise(x.sum(dim=1))


def noisy_sentences(rows):
    """Sentences of eight words, classes, and a teacher that is wrong on a quarter of the rows."""
    torch.manual_seed(0)
    words = torch.randint(10, (rows, 8))
    return words, *_seen_through_noise(words.float().mean(dim=1) - 4.5)


def _seen_through_noise(score):
    noisy = score + torch.randn(len(score))
    return (score > 0).long(), torch.sigmoid(3 * torch.stack([-noisy, noisy], dim=1))


def as_rows(**columns):
    """Columns as a list of rows, which is what a Trainer reads."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def tiny_bert():
    """A BERT of two classes with weights drawn anew."""
    from transformers import BertConfig, BertForSequenceClassification

    size = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=10, num_hidden_layers=1, **size))


SETTINGS = {
    "output_dir": tempfile.gettempdir(),  # where nothing is saved
    "save_strategy": "no",
    "num_train_epochs": 5,
    "per_device_train_batch_size": 32,
    "learning_rate": 3e-3,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}


def compare(teacher, student, truth):
    """Print the accuracy of both."""
    for name, scores in (("teacher", teacher), ("student", student)):
        print(f"{name} {(scores.argmax(dim=1) == truth).float().mean():.1%}")
