"""A model folder as a teacher: beside the package's own forward pass, and broken."""

import shutil
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from limbeck.data.schema import Schema
from limbeck.engines.questions import batch_ids
from limbeck.errors import ConfigError, LimbeckWarning, MissingExtraError
from limbeck.students import model_folder
from limbeck.teachers import HuggingfaceTeacher, TeacherConfig, build
from limbeck.teachers import huggingface as module
from tests.teachers import tiny_models
from tests.teachers.tiny_models import LABELS

transformers = pytest.importorskip("transformers", reason="needs the extra text")

TEXTS = ["not good at all", "", "the film!", "word " * 40, "ok", "fine , bad", "good film " * 9]
TEXT = Schema(("text",), (), (), None, LABELS)
PAIR = Schema(("text", "title"), (), (), None, LABELS)
IMAGE = Schema((), (), (), None, LABELS, image=("photo",))


def texts(values=TEXTS):
    return pa.RecordBatch.from_pydict({"text": pa.array(values, pa.large_string())})


def pairs():
    return pa.RecordBatch.from_pydict(
        {"text": texts().column(0), "title": pa.array(TEXTS[::-1], pa.large_string())}
    )


def images(n=5, seed=0):
    rng = np.random.default_rng(seed)
    files = []
    for i in range(n):
        pixels = rng.integers(0, 256, (12 + i, 20 - i, 3), np.uint8)
        with BytesIO() as file:
            Image.fromarray(pixels).save(file, "PNG")
            files.append(file.getvalue())
    return pa.RecordBatch.from_pydict({"photo": pa.array(files, pa.large_binary())})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    makers = ("bert", "decoder", "vit", "resnet")
    return {name: getattr(tiny_models, name)(root / name) for name in makers}


def ask(teacher, rows):
    answers, ok = teacher.parse(teacher.ask(batch_ids(rows, teacher), rows))
    assert ok.all()
    return answers


def plain_text(folder, *columns, **settings):
    """The package's own way: tokenizer with padding, one batch, softmax."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt", **settings)
    with torch.no_grad():
        return torch.softmax(model(**inputs).logits, dim=1)


def plain_images(folder, rows):
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    opened = [Image.open(BytesIO(data)).convert("RGB") for data in rows.column(0).to_pylist()]
    with torch.no_grad():
        logits = model(processor(images=opened, return_tensors="pt")["pixel_values"]).logits
    return torch.softmax(logits, dim=1)


def rows_for(name):
    return (images(), IMAGE) if name in ("vit", "resnet") else (texts(), TEXT)


each = pytest.mark.parametrize("name", ["bert", "decoder", "vit", "resnet"])


def test_text_is_answered_as_by_the_package_itself(folders):
    got = ask(HuggingfaceTeacher(folders["bert"], TEXT), texts()).probs
    torch.testing.assert_close(got, plain_text(folders["bert"], TEXTS), rtol=1e-4, atol=1e-6)
    assert (got.max(dim=0).values - got.min(dim=0).values).max() > 0.05  # rows do differ


def test_two_columns_are_read_as_a_pair(folders):
    got = ask(HuggingfaceTeacher(folders["bert"], PAIR), pairs()).probs
    wanted = plain_text(folders["bert"], TEXTS, TEXTS[::-1])
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    only = HuggingfaceTeacher(folders["bert"], PAIR, columns=("title",))
    assert not torch.allclose(ask(only, pairs()).probs, wanted, atol=1e-3)


@each
def test_images_and_decoders_too(folders, name):
    rows, schema = rows_for(name)
    got = ask(HuggingfaceTeacher(folders[name], schema), rows).probs
    if name == "decoder":
        # Its tokenizer gives nothing for an empty text, which the package cannot read.
        filled = [text or "<unk>" for text in TEXTS]
        wanted = plain_text(folders[name], filled)
    elif name == "bert":
        wanted = plain_text(folders[name], TEXTS)
    else:
        wanted = plain_images(folders[name], rows)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@each
def test_the_last_layer_over_the_embedding_gives_the_logits(folders, name):
    rows, schema = rows_for(name)
    teacher = HuggingfaceTeacher(folders[name], schema)
    answers = ask(teacher, rows)
    kind = "ImageClassification" if schema.image else "SequenceClassification"
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folders[name])
    last = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    again = torch.softmax(last(answers.embeddings), dim=1)
    # The ledger's float16 is all that lies between.
    torch.testing.assert_close(again.detach(), answers.probs, rtol=0, atol=5e-3)
    assert answers.embeddings.std() > 0.01


@each
def test_neither_batches_nor_neighbours_change_an_answer(folders, name, monkeypatch):
    rows, schema = rows_for(name)
    teacher = HuggingfaceTeacher(folders[name], schema)
    whole = ask(teacher, rows)
    order = np.random.default_rng(1).permutation(rows.num_rows)
    moved = ask(teacher, rows.take(pa.array(order)))
    torch.testing.assert_close(moved.probs, whole.probs[order], rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(module, "_BATCH_TOKENS", 40)
    monkeypatch.setattr(module, "_MOST_IMAGES", 2)
    small = ask(teacher, rows)
    alone = [ask(teacher, rows.slice(i, 1)) for i in range(rows.num_rows)]
    for other in (small.probs, torch.cat([one.probs for one in alone])):
        torch.testing.assert_close(other, whole.probs, rtol=1e-4, atol=1e-6)
    joined = torch.cat([one.embeddings for one in alone])
    torch.testing.assert_close(joined, whole.embeddings, rtol=2e-3, atol=2e-3)


def test_batches_hold_rows_of_one_length_and_no_more_tokens_than_allowed(folders, monkeypatch):
    monkeypatch.setattr(module, "_BATCH_TOKENS", 64)
    teacher = HuggingfaceTeacher(folders["bert"], TEXT)
    seen = []
    for places, inputs in teacher._reader.batches(texts(["ok"] * 30 + ["word " * 50])):
        seen += places.tolist()
        assert inputs["input_ids"].numel() <= 64 or len(places) == 1
        assert inputs["attention_mask"].bool().all()  # nothing is padded here
    assert sorted(seen) == list(range(31))


def test_a_model_without_a_mark_for_padding_reads_one_row_at_a_time(tmp_path):
    folder = tiny_models.decoder(tmp_path / "d", padding=False)
    got = ask(HuggingfaceTeacher(folder, TEXT), texts()).probs
    each = [plain_text_one(folder, text or "<unk>") for text in TEXTS]
    torch.testing.assert_close(got, torch.cat(each), rtol=1e-4, atol=1e-6)


def plain_text_one(folder, text):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.softmax(model(**tokenizer(text, return_tensors="pt")).logits, dim=1)


def test_long_rows_are_cut_where_the_package_cuts_them_and_counted(folders):
    teacher = HuggingfaceTeacher(folders["bert"], TEXT, max_tokens=9)
    with pytest.warns(LimbeckWarning, match="2 rows so far are longer than 9 tokens"):
        got = ask(teacher, texts()).probs
    wanted = plain_text(folders["bert"], TEXTS, max_length=9)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    ask(teacher, texts())  # no second warning before the tenth row
    whole = HuggingfaceTeacher(folders["bert"], TEXT)
    assert whole.fingerprint != teacher.fingerprint


def test_more_tokens_than_the_model_has_positions_are_refused(folders):
    with pytest.raises(ConfigError, match=r"lower teacher\.max_tokens"):
        HuggingfaceTeacher(folders["bert"], TEXT, max_tokens=129)


class TwoHeads(torch.nn.Module):
    """Logits are the mean of two layers: no single one gives them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)

    def forward(self, x):
        return (self.a(x) + self.b(x)) / 2


def test_the_head_is_the_layer_that_gives_the_logits_and_not_just_the_last_one():
    x = torch.randn(5, 4)
    head, later = torch.nn.Linear(4, 3), torch.nn.Linear(3, 3)
    net = torch.nn.ModuleList([head, later])

    def run():
        logits = head(x)
        later(logits)  # called last, but its output is thrown away
        return logits

    assert module.find_head(net, run) is head
    two = TwoHeads()
    assert module.find_head(two, lambda: two(x)) is None


def test_a_model_without_such_a_layer_answers_without_an_embedding(folders, monkeypatch):
    monkeypatch.setattr(module, "find_head", lambda model, run: None)
    with pytest.warns(LimbeckWarning, match="no linear layer that gives its logits"):
        teacher = HuggingfaceTeacher(folders["bert"], TEXT)
    assert ask(teacher, texts()).embeddings is None


def test_classes_are_those_of_the_model_in_the_order_of_the_task(folders, tmp_path):
    turned = Schema(("text",), (), (), None, ("yes", "no", "maybe"))
    config = TeacherConfig(kind="huggingface", path=folders["bert"])
    got = ask(build(config, turned, tmp_path), texts()).probs
    assert torch.equal(got, ask(build(config, TEXT, tmp_path), texts()).probs[:, [2, 0, 1]])


def test_named_classes_win_and_nameless_ones_are_asked_for(tmp_path):
    folder = tiny_models.bert(tmp_path / "m", labels=("LABEL_0", "LABEL_1"))
    with pytest.raises(ConfigError, match=r"name them in teacher\.classes"):
        HuggingfaceTeacher(folder, TEXT)
    with pytest.raises(ConfigError, match=r"names 3 classes but .* has 2 outputs"):
        HuggingfaceTeacher(folder, TEXT, classes=("a", "b", "c"))
    assert HuggingfaceTeacher(folder, TEXT, classes=("a", "b")).classes == ("a", "b")


def test_the_fingerprint_changes_with_every_file_that_counts(tmp_path):
    folder = tiny_models.bert(tmp_path / "m")
    before = HuggingfaceTeacher(folder, TEXT).fingerprint
    (folder / "README.md").write_text("said otherwise")
    (folder / "optimizer.pt").write_bytes(b"x")
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert HuggingfaceTeacher(tmp_path / "elsewhere", TEXT).fingerprint == before
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("good\nbad", "bad\ngood"))
    assert HuggingfaceTeacher(folder, TEXT).fingerprint != before


def test_pickled_weights_need_the_users_word(tmp_path):
    folder = tiny_models.bert(tmp_path / "m")
    safe = ask(HuggingfaceTeacher(folder, TEXT), texts()).probs
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"pickled ones can run code.*teacher\.pickled_weights"):
        HuggingfaceTeacher(folder, TEXT)
    opened = HuggingfaceTeacher(folder, TEXT, pickled_weights=True)
    torch.testing.assert_close(ask(opened, texts()).probs, safe)


def test_a_model_that_was_never_fine_tuned_is_refused(tmp_path):
    from tests.students import tiny_bert

    folder = tiny_bert.write(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"lack classifier\.bias.*answer by chance"):
        HuggingfaceTeacher(folder, TEXT, classes=("a", "b"))


def test_models_for_other_tasks_and_columns_are_refused(folders, tmp_path):
    several = tiny_models.bert(tmp_path / "m", problem_type="multi_label_classification")
    with pytest.raises(ConfigError, match="multi_label_classification, expected one class"):
        HuggingfaceTeacher(several, TEXT)
    numbers = Schema(("text",), ("x",), (), None, LABELS)
    with pytest.raises(ConfigError, match=r"would see \['text', 'x'\].*teacher\.columns"):
        HuggingfaceTeacher(folders["bert"], numbers)
    with pytest.raises(ConfigError, match="cannot be used as a classifier of images"):
        HuggingfaceTeacher(folders["bert"], IMAGE)
    with pytest.raises(ConfigError, match=r"teacher\.path=.*no folder with a config.json"):
        HuggingfaceTeacher(tmp_path, TEXT)
    shutil.copytree(folders["vit"], tmp_path / "v")
    (tmp_path / "v/preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="no image processor"):
        HuggingfaceTeacher(tmp_path / "v", IMAGE)
    with pytest.raises(ConfigError, match=r"teacher\.max_tokens=2"):
        TeacherConfig(kind="huggingface", max_tokens=2)
    with pytest.raises(ConfigError, match=r"needs teacher\.path"):
        build(TeacherConfig(kind="huggingface"), TEXT, tmp_path)


def test_without_the_extra_the_install_line_is_named(folders, monkeypatch):
    monkeypatch.setattr(model_folder, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[text\]'"):
        HuggingfaceTeacher(folders["bert"], TEXT)
