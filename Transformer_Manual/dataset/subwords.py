"""Subwords by sentencepiece, learned from the training sentences at first use and then kept."""

import io
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy
import torch

from common import checkpoint, distributed
from common.errors import UserError
from common.files import sha256

from .merges import Merges
from .tokenizers import BEGIN, END, PAD, SPECIALS, UNKNOWN, UNREADABLE, Tokenizer

VERSION = 2  # of how they are learned: another one makes others of the same sentences
# what sentencepiece keeps for itself; codes that Unicode leaves without a character stand for it
HIDDEN = str.maketrans({"\0": "\ufdd0", "▁": "\ufdd1", "▅": "\ufdd2"})
SHOWN = {ord(code): chr(character) for character, code in HIDDEN.items()}
HIDDEN |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # bytes that are no UTF-8: no character
LONGEST = 4192  # bytes of a line; sentencepiece's own limit, beyond which it leaves lines out


class Subwords(Tokenizer):
    """Frequent words whole and rare ones in parts, by byte-pair encoding (Sennrich et al., 2016,
    arXiv:1508.07909), which sentencepiece learns from the sentences themselves.

    Nothing is lost but the number of spaces: decode(encode(text)) is the text (in NFC), if its
    characters occur among the sentences.
    """

    kind = "subword"

    def __init__(self, model: bytes):
        """Of what sentencepiece has learned. Raises ValueError for anything else."""
        from sentencepiece import SentencePieceProcessor

        self.model, self.processor = model, SentencePieceProcessor()
        try:
            self.processor.load_from_serialized_proto(model or b"?")  # of b"" it has no opinion
        except RuntimeError:
            raise ValueError("it holds no subwords of sentencepiece's") from None
        ours = self.processor
        specials = (ours.pad_id(), ours.unk_id(), ours.bos_id(), ours.eos_id())
        if specials != (PAD, UNKNOWN, BEGIN, END):
            raise ValueError("its subwords have other special tokens")

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> "Subwords":
        """At most `size` pieces with the specials: fewer if the texts have no more of them.

        Raises UserError where there is no room for their characters, or nothing to learn.
        """
        from sentencepiece import SentencePieceTrainer

        texts, model = [normal(line) for line in texts], io.BytesIO()
        single = len(SPECIALS) + len(set("".join(texts)) | {" "})  # which stands for ▁
        if size < single:
            raise UserError(
                f"--vocabulary-size {size} is less than the {single} characters that there are"
            )
        pad, unknown, begin, end = (unused(name, texts) for name in SPECIALS)
        longest = max((len(line.encode()) for line in texts), default=0)
        limit = {"max_sentence_length": longest} if longest > LONGEST else {}
        try:
            SentencePieceTrainer.train(
                sentence_iterator=iter(texts), model_writer=model, model_type="bpe",
                vocab_size=size, hard_vocab_limit=False, character_coverage=1.0,
                normalization_rule_name="identity", num_threads=1, minloglevel=2,
                pad_id=PAD, unk_id=UNKNOWN, bos_id=BEGIN, eos_id=END,
                pad_piece=pad, unk_piece=unknown, bos_piece=begin, eos_piece=end,
                unk_surface=UNREADABLE, **limit,
            )  # fmt: skip
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"the sentences teach no subwords ({reason})") from None
        return cls(model.getvalue())

    @classmethod
    def of(cls, state: dict) -> "Subwords":
        if state["kind"] != cls.kind:
            raise ValueError(f"it holds a tokenizer of {state['kind']}s")
        return cls(state["model"].numpy().tobytes())

    def __len__(self) -> int:
        return len(self.processor)

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(normal(text))

    def encode_randomly(self, texts: list[str], dropout: float, seed: int) -> list[list[int]]:
        """BPE-dropout (merges.py): each merge of each word is left out with this probability. The
        same seed leaves out the same, in every process and with every version of sentencepiece."""
        return self.merges.encode(map(normal, texts), dropout, seed)

    @cached_property
    def merges(self) -> Merges:
        numbers = range(len(SPECIALS), len(self))
        pieces = self.pieces(numbers)
        scores = map(self.processor.get_score, numbers)
        return Merges(
            dict(zip(pieces, numbers, strict=True)), dict(zip(pieces, scores, strict=True))
        )

    def pieces(self, numbers: Iterable[int]) -> list[str]:
        return self.processor.id_to_piece(list(numbers))

    def decode(self, numbers: Iterable[int]) -> str:
        return self.processor.decode(list(numbers)).translate(SHOWN)

    def state_dict(self) -> dict:
        model = numpy.frombuffer(self.model, dtype="uint8")
        return {"kind": self.kind, "model": torch.from_numpy(model.copy())}

    def is_of(self, texts: list[str], size: int) -> bool:
        """Whether these texts may have taught it: it has at most `size` pieces, all characters of
        the texts and no others, and of its longest pieces none that is nowhere in them."""
        words = set(normal(" ".join(texts)).split(" "))
        words, pieces = "".join(f"▁{word}" for word in words), self.pieces(range(len(self)))
        pieces = pieces[len(SPECIALS) :]
        characters = {piece for piece in pieces if len(piece) == 1}
        return (
            len(self) <= size
            and characters == set(words)
            and all(piece in words for piece in sorted(pieces, key=len)[-500:])
        )


def normal(text: str) -> str:
    """The same characters in the same codes (ü may come as one or as two), none of them one that
    sentencepiece keeps for itself."""
    return unicodedata.normalize("NFC", text).translate(HIDDEN)


def unused(name: str, texts: list[str]) -> str:
    """A name for a special token that no text holds: sentencepiece cuts it out of them."""
    while any(name in text for text in texts):
        name = f"<{name}>"
    return name


def load_kept(path: Path, key: str, texts: list[str], size: int) -> Subwords | None:
    """What was learned from these texts before; None if it is not there, damaged, or of others."""
    with suppress(UserError, KeyError, TypeError, AttributeError, ValueError):
        state = checkpoint.load(path) if path.is_file() else {}
        tokenizer = Subwords.of(state["tokenizer"])
        if state["key"] == key and tokenizer.is_of(texts, size):
            return tokenizer
    return None


def learn_once(texts: list[str], size: int, path: Path) -> Subwords:
    """As Subwords.learn, kept at `path`, whose {} becomes a checksum of the texts and the size."""
    key = sha256("\n".join([str(VERSION), str(size), *texts]).encode())
    path = path.with_name(path.name.format(key[:16]))
    tokenizer = load_kept(path, key, texts, size)
    if tokenizer:
        return tokenizer
    tokenizer = Subwords.learn(texts, size)
    if distributed.is_first():
        with suppress(UserError, OSError):  # where it cannot be kept, the next run learns again
            checkpoint.remove_leftovers(path.parent, seconds=60)
            checkpoint.save(path, {"key": key, "tokenizer": tokenizer.state_dict()})
    return tokenizer
