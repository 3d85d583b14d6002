"""A word-level tokenizer over the closed vocabulary of driving sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNKNOWN, PAD, BEGIN, END = "<unk>", "<pad>", "<s>", "</s>"
IMAGE = "<image>"
# The names that Idefics3's processor gives to what stands around an image.
AROUND_IMAGE, WHOLE_IMAGE, END_OF_UTTERANCE = "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
SPECIAL_TOKENS = (UNKNOWN, PAD, BEGIN, END, IMAGE, AROUND_IMAGE, WHOLE_IMAGE, END_OF_UTTERANCE)
CHAT_WORDS = ("user", "assistant", ":")

CHAT_TEMPLATE = (
    BEGIN
    + "{% for message in messages %} {{ message.role }} :"
    + "{% for part in message.content %} {{ '"
    + IMAGE
    + "' if part.type == 'image' else part.text }}{% endfor %}"
    + "{% endfor %}{% if add_generation_prompt %} assistant :{% endif %}"
)


def build_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is the special tokens, the chat words and `words`, in that order.

    A person may type capitals and glue punctuation to words; both are undone, but not in "-1.0" or "2.5".
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = dict.fromkeys([*SPECIAL_TOKENS, *CHAT_WORDS, *words])
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Split(Regex(r"[?!,;:]|\.$"), "isolated")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[IMAGE, AROUND_IMAGE, WHOLE_IMAGE, END_OF_UTTERANCE],
        clean_up_tokenization_spaces=False,
    )
