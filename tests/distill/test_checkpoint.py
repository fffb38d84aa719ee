import pytest
import torch

from limbeck.distill import checkpoint
from limbeck.distill.checkpoint import CurvePoint, Progress
from limbeck.errors import StorageError


def trained(steps):
    """A small model after some AdamW steps with fixed data."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return model, optimizer, generator, steps


def go_on(model, optimizer, first, last):
    for step in range(first, last):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def test_what_was_saved_is_what_is_loaded(tmp_path):
    point = CurvePoint(5, 0.25, 0.5, 1.5, 1.25, 2.0)
    progress = Progress("abc", step=5, seconds=1.5, curve=[point], best=0)
    progress.set_group("model", {"w": torch.arange(6.0).reshape(2, 3)})
    checkpoint.save(progress, tmp_path / "c.safetensors")
    again = checkpoint.load(tmp_path / "c.safetensors", "abc")
    assert (again.step, again.seconds, again.curve, again.best) == (5, 1.5, [point], 0)
    assert torch.equal(again.group("model")["w"], progress.group("model")["w"])


def test_an_optimiser_goes_on_as_if_it_had_never_stopped(tmp_path):
    model, optimizer, *_ = trained(0)
    go_on(model, optimizer, 0, 4)
    progress = Progress("abc", step=4)
    progress.set_group("model", model.state_dict())
    progress.set_group("optimizer", checkpoint.optimizer_tensors(optimizer))
    checkpoint.save(progress, tmp_path / "c.safetensors")
    go_on(model, optimizer, 4, 9)

    other, fresh, *_ = trained(0)
    saved = checkpoint.load(tmp_path / "c.safetensors", "abc")
    other.load_state_dict(saved.group("model"))
    checkpoint.load_optimizer(fresh, saved.group("optimizer"))
    go_on(other, fresh, 4, 9)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_kept_tensors_do_not_follow_the_model():
    weight = torch.zeros(2)
    progress = Progress("abc")
    progress.set_group("model", {"w": weight})
    weight += 1
    assert progress.group("model")["w"].tolist() == [0, 0]


def test_no_file_is_a_fresh_start(tmp_path):
    assert checkpoint.load(tmp_path / "none.safetensors", "abc") is None


def test_another_job_is_refused(tmp_path):
    checkpoint.save(Progress("abc"), tmp_path / "c.safetensors")
    with pytest.raises(StorageError, match="other settings"):
        checkpoint.load(tmp_path / "c.safetensors", "xyz")


@pytest.mark.parametrize("keep", [0, 5, 100])
def test_a_truncated_file_is_refused_in_one_sentence(tmp_path, keep):
    path = tmp_path / "c.safetensors"
    progress = Progress("abc")
    progress.set_group("model", {"w": torch.zeros(100)})
    checkpoint.save(progress, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StorageError, match="not a checkpoint that can be read"):
        checkpoint.load(path, "abc")
