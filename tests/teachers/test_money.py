import pytest

from limbeck.teachers import Money


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0.00"),
        (4, "0.000004"),
        (40, "0.000040"),
        (1_800, "0.0018"),
        (12_345, "0.012"),
        (300_000, "0.30"),
        (1_500_000, "1.50"),
        (1_234_567_890, "1,234.57"),
    ],
)
def test_an_amount_is_never_shown_as_nothing(micros, text):
    assert str(Money(micros, "EUR")) == f"{text} EUR"
