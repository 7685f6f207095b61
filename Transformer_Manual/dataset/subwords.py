"""Subwords by sentencepiece, learned from the training sentences at first use and then kept."""

import io
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy
import torch

from common import checkpoint, distributed
from common.errors import UserError
from common.files import sha256

from .tokenizers import BEGIN, END, PAD, SPECIALS, UNKNOWN, UNREADABLE, Tokenizer

VERSION = 1  # of how they are learned: another one makes others of the same sentences


class Subwords(Tokenizer):
    """Frequent words whole and rare ones in parts, by byte-pair encoding (Sennrich et al., 2016,
    arXiv:1508.07909), which sentencepiece learns from the sentences themselves.

    Nothing is lost but the number of spaces: decode(encode(text)) is the text, if its characters
    occur among the sentences.
    """

    kind = "subword"

    def __init__(self, model: bytes):
        from sentencepiece import SentencePieceProcessor

        self.model = model
        self.processor = SentencePieceProcessor(model_proto=model)

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> "Subwords":
        """At most `size` pieces with the specials: fewer if the texts have no more of them."""
        from sentencepiece import SentencePieceTrainer

        texts, model = [normal(line) for line in texts], io.BytesIO()
        single = len(SPECIALS) + len(set("".join(texts)) | {" "})  # which stands for ▁
        if size < single:
            raise UserError(
                f"--vocabulary-size {size} is less than the {single} characters that there are"
            )
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, model_type="bpe",
            vocab_size=size, hard_vocab_limit=False, character_coverage=1.0,
            normalization_rule_name="identity", num_threads=1, minloglevel=2,
            pad_id=PAD, unk_id=UNKNOWN, bos_id=BEGIN, eos_id=END,
            pad_piece=SPECIALS[PAD], unk_piece=SPECIALS[UNKNOWN], bos_piece=SPECIALS[BEGIN],
            eos_piece=SPECIALS[END], unk_surface=UNREADABLE,
        )  # fmt: skip
        return cls(model.getvalue())

    @classmethod
    def of(cls, state: dict) -> "Subwords":
        return cls(state["model"].numpy().tobytes())

    def __len__(self) -> int:
        return len(self.processor)

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(normal(text))

    def encode_randomly(self, texts: list[str], dropout: float, seed: int) -> list[list[int]]:
        """BPE-dropout (Provilkov et al., 2020, arXiv:1910.13267): each merge of each word is left
        out with this probability, so that a word is read in other parts every time.

        The same seed leaves out the same: sentencepiece's threads begin with it, so there is one.
        """
        import sentencepiece

        sentencepiece.set_random_generator_seed(seed % 2**32)
        return self.processor.encode(
            [normal(text) for text in texts],
            enable_sampling=True, alpha=dropout, nbest_size=-1, num_threads=1,
        )  # fmt: skip

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        return self.processor.id_to_piece(list(numbers))

    def decode(self, numbers: Iterable[int]) -> str:
        return self.processor.decode(list(numbers))

    def state_dict(self) -> dict:
        model = numpy.frombuffer(self.model, dtype="uint8")
        return {"kind": self.kind, "model": torch.from_numpy(model.copy())}


def normal(text: str) -> str:
    """The same characters in the same codes: ü may come as one or as two."""
    return unicodedata.normalize("NFC", text)


def learn_once(texts: list[str], size: int, path: Path) -> Subwords:
    """As Subwords.learn, kept at `path`, whose {} becomes a checksum of the texts and the size."""
    key = sha256("\n".join([str(VERSION), str(size), *texts]).encode())
    path = path.with_name(path.name.format(key[:16]))
    with suppress(UserError, KeyError, TypeError, AttributeError):  # damaged: learned again
        state = checkpoint.load(path) if path.is_file() else {}
        if state["key"] == key:
            return Subwords.of(state["tokenizer"])
    tokenizer = Subwords.learn(texts, size)
    if distributed.is_first():
        with suppress(UserError, OSError):  # where it cannot be kept, the next run learns again
            checkpoint.remove_leftovers(path.parent, seconds=60)
            checkpoint.save(path, {"key": key, "tokenizer": tokenizer.state_dict()})
    return tokenizer
