"""The functions that a reader may write: three of every folder. `exercise.py` takes them out, and
tests/test_exercises.py proves that each one's tests then fail."""

import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Exercise(NamedTuple):
    """A function to write, easy ones first, and the tests that fail without it.

    The READMEs show what stands here. After a change, run `python -m tests.exercises`.
    """

    folder: str
    number: int
    file: str  # in the folder
    function: str
    task: str  # what it has to do
    tests: str  # a file in tests/
    select: str  # the tests in it: pytest's -k
    hint: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.file}"

    @property
    def arguments(self) -> list[str]:
        """Of pytest."""
        return ["-n", "0", f"tests/{self.tests}", "-k", self.select]

    @property
    def command(self) -> str:
        *words, select = self.arguments
        return " ".join(["pytest", *words, f'"{select}"' if " " in select else select])


EXERCISES = [
    Exercise(
        "MLP_Manual", 1, "utils/layers.py", "Linear.backward",
        "the three gradients of a linear layer",
        "test_mlp_manual.py", "linear_has_the_right_gradient",
        "Let the shapes lead you. `grad_weight` has the shape of `weight`, (out, in). Which "
        "product of `grad_output` (N, out) and `self.x` (N, in) has it?",
    ),
    Exercise(
        "MLP_Manual", 2, "utils/optim.py", "Adam.adapt",
        "a step of Adam, for one parameter",
        "test_mlp_manual.py", "optimizer_steps and adam",
        "Everything happens in place: `mean.mul_(…)`, `parameter.add_(…)`. `self.t` is 1 in the "
        "first step. Add ε to the root, after the correction of the start.",
    ),
    Exercise(
        "MLP_Manual", 3, "utils/layers.py", "BatchNorm1d.backward",
        "the gradients of batch normalisation, in training and in evaluation",
        "test_mlp_manual.py", "batch_norm_has_the_right_gradient",
        "`self.of_batch` says whether the mean and the variance came from the batch. Begin with "
        "the case where they did not, because they are constants there. In the other case, two "
        "means over the batch are subtracted. Both contain sums that you have already computed.",
    ),
    Exercise(
        "CNN_Manual", 1, "utils/augment.py", "random_flip",
        "mirror about half of the images of a batch",
        "test_cnn_manual.py", "random_flip",
        "Draw one random number per image and give it the shape (N, 1, 1, 1). Then `torch.where` "
        "can choose between the images and their mirrored copies, without a loop.",
    ),
    Exercise(
        "CNN_Manual", 2, "utils/layers.py", "MaxPool2d.backward",
        "hand each gradient to the largest pixel of its window",
        "test_cnn_manual.py", "pooling_has and max",
        "Start from zeros of `self.padded_shape`, as `AvgPool2d.backward` does. `self.windows` "
        "gives one view per kernel offset, and adding to a view changes the gradient below it. "
        "Go through offsets and records from the last to the first. Each takes the gradient "
        "where its record is 1, and leaves the rest to those before it.",
    ),
    Exercise(
        "CNN_Manual", 3, "utils/layers.py", "Conv2d.backward_copied",
        "the gradients of a convolution that is one matrix product",
        "test_cnn_manual.py", "convolution_has and copied",
        "The forward pass is one linear layer: patches times weights. So its gradients are those "
        "of a linear layer. Reverse then how `forward_copied` arranged the weights and the "
        "patches. A pixel was copied into several patches, so the gradients of its copies add "
        "up.",
    ),
    Exercise(
        "RNN_Manual", 1, "utils/sampling.py", "probabilities",
        "the distribution that the next character is drawn from",
        "test_rnn_manual.py", "probabilities_of",
        "Sort the logits once, the largest first. Then `top_k` and `top_p` set the end of the "
        "row to 0, and `torch.zeros_like(p).index_put_((order,), p)` undoes the sorting. "
        "Subtract the largest logit before you divide by the temperature.",
    ),
    Exercise(
        "RNN_Manual", 2, "utils/layers.py", "RNN.run_back",
        "backpropagation through time for tanh units",
        "test_rnn_manual.py", "recurrent_layer_has and RNN-",
        "Go through the steps from the last to the first. The gradient of $h_t$ is "
        "`grad_output[t]` plus what came back from the step after. Keep `grad_a` of every step, "
        "because `backward` makes the gradients of the weights from them.",
    ),
    Exercise(
        "RNN_Manual", 3, "utils/layers.py", "GRU.run_back",
        "backpropagation through time for a cell with gates",
        "test_rnn_manual.py", "recurrent_layer_has and GRU-",
        "The state goes to the next step directly (times $z$) and through all three gates. You "
        "need two results: the gradient of $\\mathbf W_{ih} x$ holds the parts of $r$, $z$, $n$, "
        "the gradient of $\\mathbf W_{hh} h$ those of $r$, $z$, $q$. `self.saved` has the values "
        "of the gates in `a`, and $q$ in the last third of `b`.",
    ),
    Exercise(
        "Transformer_Manual", 1, "utils/attention.py", "causal_mask",
        "a mask that hides the future",
        "test_transformer_manual.py", "sees_its_future",
        "Row $t$ belongs to the token that asks, column $j$ to the one that is asked. What is "
        "above the diagonal is the future: `triu_` keeps that part of a matrix.",
    ),
    Exercise(
        "Transformer_Manual", 2, "utils/losses.py", "TokenCrossEntropy.backward",
        "the gradient of the loss, with padding and label smoothing",
        "test_transformer_manual.py", "loss_is_that_of_torch",
        "`self.exp / self.sums` is the softmax. Write the plain form first: subtract the "
        "targets, divide by the number of labels that count, and set the other rows to 0. The "
        "targets are λ/V everywhere, and 1 − λ more at `self.labels`: `scatter_add_` reaches "
        "these places.",
    ),
    Exercise(
        "Transformer_Manual", 3, "utils/attention.py", "Attention.backward",
        "the gradients of queries, keys and values",
        "test_transformer_manual.py", "test_attention_has_the_right_gradient",
        "Go backwards through `forward`, one line at a time. First leave dropout out: "
        "`self.dropped` is `self.weights` then. A matrix product gives two gradients, each of "
        "them a product with the other factor. Then put the mask back, with the last formula of "
        "the docstring.",
    ),
]  # fmt: skip


def section(folder: str) -> str:
    """What a README says of its exercises, between its markers."""
    text = f"""\
Write a part of this lesson yourself. The command takes out what a function does. It leaves the
name and the docstring. The tests below the function then fail, until your version is right.

```bash
python exercise.py {folder} 1              # the original comes back with --restore
```
"""
    for e in EXERCISES:
        if e.folder == folder:
            text += f"""
{e.number}. `{e.function}` in [`{e.file}`]({e.file}): {e.task}

   `{e.command}`

   <details><summary>Hint</summary>

{textwrap.indent(textwrap.fill(e.hint, 107, break_on_hyphens=False), "   ")}

   </details>
"""
    return text


def with_section(readme: str, folder: str) -> str:
    """A README with its exercises as they are in the table."""
    start, end = "<!-- exercises -->\n", "\n<!-- /exercises -->"
    before, _, rest = readme.partition(start)
    return f"{before}{start}\n{section(folder)}{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    for readme in (
        ROOT / folder / "README.md" for folder in dict.fromkeys(e.folder for e in EXERCISES)
    ):
        text = with_section(readme.read_text(encoding="utf-8"), readme.parent.name)
        readme.write_text(text, encoding="utf-8")
