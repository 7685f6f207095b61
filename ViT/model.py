"""Vision Transformer (Dosovitskiy et al., 2020, arXiv:2010.11929), bottom-up.

N is the batch, C channels, H W height and width, T tokens, D their width, h heads, K classes.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √d) v  (Vaswani et al., 2017, equation 1), and the softmax: the weights.

    q, k, v (N, h, T, d) -> (N, h, T, d), (N, h, T, T); each row of the weights sums to one.
    """
    # variance 1, or softmax would saturate; q is scaled, which is smaller than the scores
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    weights = scores.softmax(dim=3)
    return F.dropout(weights, dropout) @ v, weights


class MultiHeadAttention(nn.Module):
    """h attentions side by side, each on D/h channels of its own (appendix A).

    With `fused` PyTorch's kernel computes the same without ever storing the T x T weights.
    """

    def __init__(self, D: int, num_heads: int, dropout: float, fused: bool):
        super().__init__()
        if D % num_heads:
            raise ValueError(f"a width of {D} cannot be split into {num_heads} equal heads")
        self.num_heads, self.dropout, self.fused = num_heads, dropout, fused
        self.qkv = nn.Linear(D, 3 * D)
        self.projection = nn.Linear(D, D)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (N, T, D) -> 3 x (N, h, T, D/h)
        N, T, D = x.shape
        qkv = self.qkv(x).view(N, T, 3, self.num_heads, D // self.num_heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def weights(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, h, T, T)
        q, k, v = self.heads(x)
        return attention(q, k, v)[1]

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        q, k, v = self.heads(x)
        dropout = self.dropout if self.training else 0.0
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        else:
            y, _ = attention(q, k, v, dropout)
        return self.projection(y.transpose(1, 2).flatten(2))  # (N, h, T, D/h) -> (N, T, D)


class MLP(nn.Module):
    """Two layers that every token goes through by itself."""

    def __init__(self, D: int, hidden_size: int, dropout: float):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(D, hidden_size), nn.Linear(hidden_size, D)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        return self.linear2(self.dropout(F.gelu(self.linear1(x))))


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al., 2021, arXiv:2103.17239, section 2)."""

    def __init__(self, D: int, initial: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((D,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016, arXiv:1603.09382): in training, whole samples become
    zero with probability `rate`; the others are scaled so that the expectation stays."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(len(x), 1, 1).bernoulli_(keep).div_(keep)


class Block(nn.Module):
    """Attention mixes the tokens, the MLP the channels; both add to what passes (equations 2, 3).

    Norms stand before, so nothing but sums lies on the way from the last block to the first.
    """

    def __init__(
        self, D: int, num_heads: int, mlp_ratio: float, dropout: float, drop_path: float,
        layer_scale: float, fused: bool,
    ):  # fmt: skip
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=1e-6), nn.LayerNorm(D, eps=1e-6)
        self.attention = MultiHeadAttention(D, num_heads, dropout, fused)
        self.mlp = MLP(D, round(mlp_ratio * D), dropout)
        self.scale1 = LayerScale(D, layer_scale) if layer_scale else nn.Identity()
        self.scale2 = LayerScale(D, layer_scale) if layer_scale else nn.Identity()
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D) -> (N, T, D)
        x = x + self.drop_path(self.scale1(self.dropout(self.attention(self.norm1(x)))))
        return x + self.drop_path(self.scale2(self.dropout(self.mlp(self.norm2(x)))))


class PatchStem(nn.Module):
    """Each patch of p x p pixels -> a token, by one linear map of all its values (equation 1).

    A convolution whose stride is its kernel size is just that: one map for every patch.
    """

    def __init__(self, C: int, D: int, patch_size: int):
        super().__init__()
        self.projection = nn.Conv2d(C, D, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, D, H/p, W/p)
        return self.projection(images)


class ConvolutionStem(nn.Module):
    """[3x3 -> norm -> GELU -> max-pool] until p x p pixels are one, twice as many channels each
    time, then a 3x3 to D. In the line of Xiao et al., 2021, arXiv:2106.14881, and of CCT (Hassani
    et al., 2021, arXiv:2104.05704): few images do not teach attention what neighbours are.
    """

    def __init__(self, C: int, D: int, patch_size: int):
        super().__init__()
        halvings = patch_size.bit_length() - 1
        if patch_size != 2**halvings:
            raise ValueError(f"poolings by 2 never make one of {patch_size} pixels: take 2, 4, 8 …")
        if D >> halvings == 0:
            raise ValueError(f"a width of {D} cannot be halved {halvings} times")
        layers = []
        for O in (D >> halvings - n for n in range(halvings)):
            convolution = nn.Conv2d(C, O, kernel_size=3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(O), nn.GELU(), nn.MaxPool2d(2)]
            C = O
        self.layers = nn.Sequential(*layers)
        self.projection = nn.Conv2d(C, D, kernel_size=3, padding=1)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, D, H/p, W/p)
        return self.projection(self.layers(images))


def sincos_positions(side: int, D: int) -> Tensor:
    """Fixed positions (side², D): a quarter of the channels each for sin(ωᵢx), cos(ωᵢx), sin(ωᵢy)
    and cos(ωᵢy) at column x and row y, with ωᵢ = 10000^(−4i/D), as in MoCo v3 (Chen et al., 2021,
    arXiv:2104.02057)."""
    if D % 4:
        raise ValueError(f"sin-cos positions need a width that 4 divides, not {D}")
    omega = 10_000 ** (-4 * torch.arange(D // 4) / D)
    places = torch.arange(side)
    y, x = torch.meshgrid(places, places, indexing="ij")
    x, y = x.flatten()[:, None] * omega, y.flatten()[:, None] * omega  # (side², D/4) each
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


class ViT(nn.Module):
    """Image -> patches -> tokens, plus positions -> blocks -> norm -> one vector -> logits.

    That vector is what became of a learned class token, as in the paper (`pooling="token"`), or
    the mean of the image's tokens ("mean"). `positions` are "learned" or "sincos", `stem` is
    "patch" or "convolution". `drop_path` is the last block's rate; it grows linearly from zero.
    """

    not_decayed = ("class_token", "position_embedding")  # as in DeiT (arXiv:2012.12877)
    not_hidden = (*not_decayed, "stem.", "head.")  # Muon leaves them to AdamW

    def __init__(
        self,
        image_size: int = 32,
        patch_size: int = 4,
        in_channels: int = 3,
        num_classes: int = 10,
        embed_dim: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        pooling: str = "token",
        positions: str = "learned",
        stem: str = "patch",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float = 0.0,
        fused: bool = True,
    ):
        super().__init__()
        D, self.side = embed_dim, image_size // patch_size
        if image_size % patch_size:
            raise ValueError(f"{image_size} pixels cannot be cut into patches of {patch_size}")
        self.image_size, self.pooling = image_size, pooling
        self.stem = {"patch": PatchStem, "convolution": ConvolutionStem}[stem](
            in_channels, D, patch_size
        )
        extra = int(pooling == "token")
        if extra:
            self.class_token = nn.Parameter(torch.zeros(1, 1, D))
        if positions == "learned":
            self.position_embedding = nn.Parameter(torch.empty(1, extra + self.side**2, D))
        else:
            grid = F.pad(sincos_positions(self.side, D), (0, 0, extra, 0))[None]
            self.register_buffer("position_embedding", grid, persistent=False)
        self.dropout = nn.Dropout(dropout)
        rates = [drop_path * n / max(depth - 1, 1) for n in range(depth)]
        self.blocks = nn.ModuleList(
            Block(D, num_heads, mlp_ratio, dropout, rate, layer_scale, fused) for rate in rates
        )
        self.norm = nn.LayerNorm(D, eps=1e-6)
        self.head = nn.Linear(D, num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Xavier for matrices (q, k and v as one, as in torchvision), little for positions, a head
        of zeros."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.head.weight)
        if isinstance(self.position_embedding, nn.Parameter):
            nn.init.normal_(self.position_embedding, std=0.02)

    @property
    def first_weight(self) -> Tensor:
        """The stem's first kernels (O, C, k, k)."""
        return next(self.stem.parameters())

    def embed(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, T, D)
        if images.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"this network is for {self.image_size} pixels, not {images.shape}")
        x = self.stem(images).flatten(2).transpose(1, 2)
        if self.pooling == "token":
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        return self.dropout(x + self.position_embedding)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, K)
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        pooled = x[:, 0] if self.pooling == "token" else x.mean(1)  # (N, T, D) -> (N, D)
        return self.head(self.norm(pooled))


SMALL_DATA = dict(stem="convolution", pooling="mean")
PRESETS = {  # name -> a function of image_size, num_classes, in_channels, and what else one likes
    "nano-conv": partial(ViT, embed_dim=128, depth=4, num_heads=4, mlp_ratio=2, **SMALL_DATA),
    "mini-conv": partial(ViT, embed_dim=192, depth=4, num_heads=3, mlp_ratio=2, **SMALL_DATA),
    "tiny": partial(ViT, embed_dim=192, depth=6, num_heads=3),
    "tiny-conv": partial(ViT, embed_dim=192, depth=6, num_heads=3, **SMALL_DATA),
    "ti16": partial(ViT, patch_size=16, embed_dim=192, depth=12, num_heads=3),
    "s16": partial(ViT, patch_size=16, embed_dim=384, depth=12, num_heads=6),
    "b16": partial(ViT, patch_size=16, embed_dim=768, depth=12, num_heads=12),
}
