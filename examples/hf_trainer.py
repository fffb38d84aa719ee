"""SLaM in a Hugging Face Trainer: override `compute_loss`; the answers are columns of the rows."""

from transformers import Trainer, TrainingArguments

from _toy import SETTINGS, as_rows, compare, noisy_sentences, tiny_bert
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


if __name__ == "__main__":
    words, truth, teacher = noisy_sentences(3000)  # truth is known for 300 rows
    right = teacher[:300].argmax(dim=1) == truth[:300]
    alpha = IsotonicTrust.fit(margin(teacher[:300]), right, lower=0.5).alpha(margin(teacher))
    rows = as_rows(input_ids=words, teacher_probs=teacher, alpha=alpha)[300:2000]
    settings = TrainingArguments(**SETTINGS, remove_unused_columns=False)
    trainer = SlamTrainer(tiny_bert(), settings, train_dataset=rows)
    trainer.train()
    compare(teacher[2000:], trainer.model.eval()(words[2000:]).logits, truth[2000:])
