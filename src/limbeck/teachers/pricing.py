"""What tokens cost, in whole millionths of a currency, never rounded down.

No token of a byte-level vocabulary is shorter than a byte, so a prompt never has more tokens than
bytes of UTF-8, plus what the server's chat template puts around each message.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.teachers.prompt import Message

MILLION = 1_000_000
MOST_MONEY = 1e12
"""Units of a currency: their millionths fit into 64 bits."""
MOST_PRICE = 10**12
"""Millionths of the currency: a million units. Sums of many such prices still fit into 64 bits."""


@dataclass(frozen=True, slots=True)
class Price:
    """Prices of an endpoint.

    Args:
        prompt: Millionths of the currency for a million tokens of the prompt.
        reply: Millionths of the currency for a million tokens of the reply.
        answer: Millionths of the currency for an answer, whatever its length.
        currency: ISO 4217 code.
    """

    prompt: int = 0
    reply: int = 0
    answer: int = 0
    currency: str = "USD"

    def of(self, prompt_tokens: int, reply_tokens: int) -> int:
        """Price of so many tokens, in millionths of the currency, rounded up."""
        return -(-(prompt_tokens * self.prompt + reply_tokens * self.reply) // MILLION)


def most_prompt_tokens(messages: Sequence[Message], overhead: int) -> int:
    """An upper bound of the tokens of a prompt, `overhead` of them put around the texts."""
    return overhead + sum(
        len(part.encode("utf-8", "surrogatepass")) for one in messages for part in one.values()
    )
