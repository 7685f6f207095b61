"""The functions that a reader may write: three of every folder. `exercise.py` takes them out, and
tests/test_exercises.py proves that each one's tests then fail."""

import re
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
        "first step. Add $\\epsilon$ to the root, after the correction of the start.",
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
        "MLP_Torch", 1, "signals.py", "initialise",
        "draw the weights of every linear layer anew; biases become 0",
        "test_small_studies.py", "weights_are_drawn_as_torch",
        "`model.modules()` yields every layer below the network, and `isinstance` tells which "
        "ones are linear. `INITIALISATIONS[name]` gives the standard deviation for a layer's "
        "numbers of inputs and outputs.",
    ),
    Exercise(
        "MLP_Torch", 2, "signals.py", "measure",
        "how large signals and gradients are in each hidden layer",
        "test_small_studies.py", "signals_are_those or dead_units",
        "Call the layers one by one and keep what comes out of each activation. Autograd forgets "
        "the gradient of a tensor in the middle, unless you call `retain_grad()` on it before "
        "`backward()`. The loss is a mean over N examples, so multiply by N.",
    ),
    Exercise(
        "MLP_Torch", 3, "utils/muon.py", "orthogonalise",
        "make all singular values about 1, without computing them",
        "test_muon.py", "(the_iteration or zero_stays_zero or of_the_type) and native",
        "Divide by the norm first. Each of the five steps is $a Y + b (Y Y^T) Y + c (Y Y^T)^2 Y$ "
        "with a = 3.4445, b = −4.7750, c = 2.0315. With `A = Y @ Y.mT` this needs three "
        "products. Transpose a tall matrix, and transpose it back at the end. Keep the "
        "divisor away from 0, for a matrix of zeros.",
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
        "where its record is 1, and leaves the rest to those before it. The first offset has no "
        "record: it takes what is left.",
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
        "CNN_Torch", 1, "utils/views.py", "seen_from",
        "the logits of a batch, also as a mean over each image and its mirror image",
        "test_cnn_torch.py", "mirroring_does_not_change and not Manual",
        "The width is the last axis of (N, C, H, W). `Tensor.flip` mirrors along an axis.",
    ),
    Exercise(
        "CNN_Torch", 2, "regularisation.py", "mixup",
        "mix each image with its neighbour",
        "test_regularisation.py", "mixup_is_torchvisions",
        "`roll(1, 0)` hands every image its neighbour. Draw one $\\lambda$ for the whole batch, "
        "with `torch.distributions.Beta`.",
    ),
    Exercise(
        "CNN_Torch", 3, "utils/augment.py", "affine",
        "rotate, zoom and shift every image with `grid_sample`",
        "test_cnn_torch.py", "random_affine_is_that_of_the_twin",
        "Write down the inverse map first: for a pixel of the result, where does it come from? "
        "`CNN_Manual` has it in pixels. `affine_grid` counts x and y from −1 to 1, so a shift in "
        "pixels is divided by half of the side. An image that is not square mixes both units.",
    ),
    Exercise(
        "ResNet", 1, "model.py", "BasicBlock.forward",
        "the block with its shortcut",
        "test_resnet.py", "logits_and_statistics and resnet18",
        "Two convolutions, each with its norm. The shortcut is the input itself, unless "
        "`downsample` has to change its shape. The last ReLU comes after the sum.",
    ),
    Exercise(
        "ResNet", 2, "utils/gradcam.py", "grad_cam",
        "a map of what speaks for a class",
        "test_resnet.py", "grad_cam_after or leaves_the_network_alone",
        "A forward hook on `model.last_block` keeps the maps. Sum the logits of the wanted "
        "classes: one call of `torch.autograd.grad` then gives the gradient for every image. "
        "Remove the hook also after an error. At last enlarge the map to the image, and then "
        "divide it by its largest value.",
    ),
    Exercise(
        "ResNet", 3, "model.py", "FastResNet.whiten",
        "kernels whose answers are uncorrelated",
        "test_resnet.py", "whitened_responses or little_but_noise or nothing_varies",
        "Cut out all patches of 2 × 2 pixels with `unfold`, as rows. The eigenvectors of their "
        "mean outer product are the directions, and dividing by the root of the eigenvalue gives "
        "each about the variance 1. First add 5e-4 to the eigenvalues: the smallest hold noise, "
        "which must not be blown up. The layer has each kernel twice, with both signs.",
    ),
    Exercise(
        "ViT", 1, "model.py", "attention",
        "scaled dot-product attention",
        "test_vit.py", "attention_is_its_equation or dropout_leaves_out or dropout_keeps",
        "Swap the last two axes of k. The softmax runs over the tokens that are asked, which is "
        "the last axis. Return the weights before dropout.",
    ),
    Exercise(
        "ViT", 2, "utils/rollout.py", "rollout",
        "follow the attention through all blocks",
        "test_vit.py", "rollout and not relevance",
        "Take the mean over the heads, then average with the identity: the shortcut passes each "
        "token on. Multiply the matrices block by block. The later block stands on the left.",
    ),
    Exercise(
        "ViT", 3, "utils/weights.py", "resize_positions",
        "learned positions for images of another size",
        "test_vit.py", "positions_are_resized",
        "Only patches have a place in the image, so split a class token off first. Bring the "
        "others into a grid (1, D, side, side) for `F.interpolate`, and back into a row "
        "afterwards. Nothing needs to change if the length is the same.",
    ),
    Exercise(
        "RNN_Manual", 1, "utils/sampling.py", "probabilities",
        "the distribution that the next character is drawn from",
        "test_rnn_manual.py", "probabilities_of or top_p_keeps",
        "Sort the logits once, the largest first. Then `top_k` and `top_p` set the end of the "
        "row to 0, and `torch.zeros_like(p).index_put_((order,), p)` undoes the sorting. "
        "Subtract the largest logit before you divide by the temperature.",
    ),
    Exercise(
        "RNN_Manual", 2, "utils/layers.py", "RNN.run_back",
        "backpropagation through time for tanh units",
        "test_rnn_manual.py",
        "(recurrent_layer_has and RNN-) or (weight_dropout_is and [RNN])",
        "Go through the steps from the last to the first. The gradient of $h_t$ is "
        "`grad_output[t]` plus what came back from the step after. Keep `grad_a` of every step, "
        "because `backward` makes the gradients of the weights from them. The docstring of "
        "`Recurrent.run_back` says what to return.",
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
        "LSTM", 1, "model.py", "reverse",
        "turn each text around, and leave its padding where it is",
        "test_lstm.py", "(packed_sequences and True) or reversed",
        "Compute for every place where its word comes from: `length - 1 - t` inside of the text, "
        "`t` in the padding. `gather` then fetches all words at once. Its index needs the shape "
        "of x.",
    ),
    Exercise(
        "LSTM", 2, "model.py", "Pooling.forward",
        "five ways from many states to one vector",
        "test_lstm.py", "poolings_are",
        "Padding must not count. Multiply by the mask before a mean, and put −∞ in its place "
        "before a maximum or a softmax. In both directions, the last state of the backward half "
        "is that of the first word.",
    ),
    Exercise(
        "LSTM", 3, "utils/evaluation.py", "word_weights",
        "what each word of a text says about its class",
        "test_lstm.py", "leaving_a_word_out or neighbours_share",
        "Make one copy of the text for each word, with that word replaced by UNKNOWN, and read "
        "all copies as one batch. First assume that the text has at most `MOST_PARTS` words: "
        "then every word is a part of its own. An empty text has no weights.",
    ),
    Exercise(
        "Transformer_Manual", 1, "utils/attention.py", "causal_mask",
        "a mask that hides the future",
        "test_transformer_manual.py", "sees_its_future or huge_scores",
        "Row $t$ belongs to the token that asks, column $j$ to the one that is asked. What is "
        "above the diagonal is the future: `triu_` keeps that part of a matrix.",
    ),
    Exercise(
        "Transformer_Manual", 2, "utils/losses.py", "TokenCrossEntropy.backward",
        "the gradient of the loss, with padding and label smoothing",
        "test_transformer_manual.py", "loss_is_that_of_torch",
        "`self.exp / self.sums` is the softmax. Write the plain form first: subtract the "
        "targets, divide by the number of labels that count, and set the other rows to 0. The "
        "targets are $\\lambda/V$ everywhere, and $1 - \\lambda$ more at `self.labels`: "
        "`scatter_add_` reaches these places.",
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
    Exercise(
        "Transformer_Torch", 1, "model.py", "sinusoids",
        "the table of sines and cosines that tells positions apart",
        "test_transformer_torch.py", "sines_and_cosines",
        "Make the angles first: positions down, frequencies across. Sine and cosine of one "
        "frequency stand next to each other, so stack them in a last axis and flatten. The width "
        "may be odd.",
    ),
    Exercise(
        "Transformer_Torch", 2, "utils/modern.py", "Rotary.forward",
        "turn queries and keys by an angle that grows with the position",
        "test_modern_transformer.py", "rotary_positions_turn",
        "Cut the last axis into halves: they are x and y of a point. Rotate every point with its "
        "cosine and sine. The first token stands at `start`.",
    ),
    Exercise(
        "Transformer_Torch", 3, "utils/search.py", "candidates",
        "the likeliest continuations of all beams together",
        "test_transformer_torch.py", "beam_search_is",
        "The score of a continuation is the beam's score plus the log-probability of the token. "
        "Put all B · V of them in one row per sentence and take the 2B best. The place in that "
        "row tells beam and token, by division and remainder.",
    ),
    Exercise(
        "VAE", 1, "utils/bounds.py", "kl_to_prior",
        "how far a code's distribution is from the prior",
        "test_vae.py", "kl_is or gradients_of_the_kl",
        "The network gives the logarithm of the variance, so the variance is `logvar.exp()`. Do "
        "not sum over the latent numbers.",
    ),
    Exercise(
        "VAE", 2, "model.py", "VAE.sample",
        "draw codes so that gradients reach the encoder",
        "test_vae.py", "through_the_sampling_step",
        "`normal` draws noise of the shape (N, k, J) from N(0, 1). Shift and stretch it. The "
        "standard deviation is the exponential of half of `logvar`.",
    ),
    Exercise(
        "VAE", 3, "utils/bounds.py", "doubly_reparameterised_loss",
        "a gradient with less noise for the encoder",
        "test_vae.py", "doubly_reparameterised",
        "Begin with $\\beta = 1$. Compute the log-weights with `mu` and `logvar` detached, so "
        "that only the path through z is left. The surrogate is the sum of normalised weights "
        "times log-weights, with the weights detached. A hook on z multiplies the gradient once "
        "more. Return a number whose value is the bound's and whose gradient is the surrogate's.",
    ),
    Exercise(
        "GAN", 1, "utils/losses.py", "discriminator_bce",
        "what the discriminator minimises",
        "test_gan.py", "losses_are or optimal_discriminator",
        "softplus(a) is log(1 + exp(a)), and it is stable. Which of the two classes is log(1 + "
        "exp(−a)) the loss of?",
    ),
    Exercise(
        "GAN", 2, "utils/losses.py", "gradient_penalty",
        "pull the critic's slope towards 1",
        "test_gan.py", "gradient_penalty",
        "Every pair of a real and a generated example gets its own t, which must broadcast over "
        "the other axes. `create_graph=True` keeps the graph, so that the penalty itself can be "
        "differentiated. The norm is over all numbers of one example.",
    ),
    Exercise(
        "GAN", 3, "utils/metrics.py", "frechet_distance",
        "how far two clouds of features are apart",
        "test_gan.py", "frechet_distance_is or frechet_distance_of",
        "`moments` and `matrix_sqrt` are there. Only the trace of the root is needed, which is "
        "the sum of the roots of the eigenvalues. Take them from the symmetric matrix in the "
        "docstring. Rounding can make them slightly negative.",
    ),
]  # fmt: skip


def wrapped(text: str) -> str:
    """Lines for a README's list. What stands between dollars or backticks stays on one."""
    text = re.sub(r"\$[^$]+\$|`[^`]+`", lambda part: part[0].replace(" ", "\0"), text)
    text = textwrap.fill(text, 107, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent(text, "   ").replace("\0", " ")


def section(folder: str) -> str:
    """What a README says of its exercises, between its markers."""
    text = f"""\
Write a part of this lesson yourself. The command takes out what a function does. It leaves the
name and the docstring. The tests that are named here then fail, until your version is right.

```bash
python exercise.py {folder} 1              # --restore puts back what the last commit has
```
"""
    for e in EXERCISES:
        if e.folder == folder:
            text += f"""
{e.number}. `{e.function}` in [`{e.file}`]({e.file}): {e.task}

   `{e.command}`

   <details><summary>Hint</summary>

{wrapped(e.hint)}

   </details>
"""
    return text


def with_section(readme: str, folder: str) -> str:
    """A README with its exercises as they are in the table."""
    start, end = "<!-- exercises -->\n", "\n<!-- /exercises -->"
    before, _, rest = readme.partition(start)
    return f"{before}{start}\n{section(folder)}{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    for folder in sorted({e.folder for e in EXERCISES}):
        readme = ROOT / folder / "README.md"
        text = with_section(readme.read_text(encoding="utf-8"), folder)
        readme.write_text(text, encoding="utf-8")
