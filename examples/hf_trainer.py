"""SLaM in a Hugging Face Trainer: override `compute_loss`; the answers are columns of the rows."""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from limbeck.objectives import slam_loss
from limbeck.trust import IsotonicTrust, margin


class SlamTrainer(Trainer):
    """Learns from rows without a label that carry `teacher_probs` and `alpha`."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Give the mean SLaM loss of a batch."""
        answers = {name: inputs.pop(name) for name in ("teacher_probs", "alpha")}
        outputs = model(**inputs)
        loss = slam_loss(outputs.logits, **answers, k=2, target="hard").mean()
        return (loss, outputs) if return_outputs else loss


def main(folder):
    """Train a tiny BERT on made-up words; print accuracies on rows that it has not seen."""
    torch.manual_seed(0)
    words = torch.randint(10, (3000, 8))
    score = words.float().mean(dim=1) - 4.5
    truth = (score > 0).long()  # known for the first 300 rows: trust is fitted on them
    noisy = score + torch.randn(3000)  # what the teacher sees
    teacher = torch.sigmoid(3 * torch.stack([-noisy, noisy], dim=1))
    right = teacher[:300].argmax(dim=1) == truth[:300]
    alpha = IsotonicTrust.fit(margin(teacher[:300]), right, lower=0.5).alpha(margin(teacher))

    columns = {"input_ids": words, "teacher_probs": teacher, "alpha": alpha}
    rows = [{name: column[i] for name, column in columns.items()} for i in range(300, 2000)]
    size = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    student = BertForSequenceClassification(BertConfig(vocab_size=10, num_hidden_layers=1, **size))
    settings = TrainingArguments(
        output_dir=folder,
        num_train_epochs=5,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        remove_unused_columns=False,  # or the Trainer drops what BERT does not read
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    SlamTrainer(student, settings, train_dataset=rows).train()
    with torch.no_grad():
        said = student.eval()(words[2000:]).logits
    for name, scores in (("teacher", teacher[2000:]), ("student", said)):
        print(f"{name} {(scores.argmax(dim=1) == truth[2000:]).float().mean():.1%}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
