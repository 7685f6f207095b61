"""Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): where in the image a class was seen."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """How much each place speaks for a class: normalised images (N, C, H, W), classes (N,) ->
    (N, H, W) in [0, 1].

    With the last feature maps A_j and the class's logit z: the weight of a map is the mean of its
    gradient over all places, α_j = mean ∂z/∂A_j (equation 1), the map relu(Σ_j α_j A_j)
    (equation 2). It is enlarged to the image, and then divided by its largest value.
    """
    kept = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        kept.append(output)

    hook = model.last_block.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(images.requires_grad_())
            score = logits.gather(1, classes[:, None]).sum()  # images do not depend on each other
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (N, D, 1, 1)
    cam = F.relu((weights * kept[0].detach()).sum(1, keepdim=True))  # (N, 1, H', W')
    cam = F.interpolate(cam, size=images.shape[2:], mode="bilinear")[:, 0]
    return cam / cam.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
