"""What a generator has to know of its data, where the data is not at hand."""

from common.data import Split


class Kind:
    """What a run's data is like: the `shape` of an example, the `classes`; of clusters, their
    `sizes`. A part of the run, so that a generator can be built where the data is not at hand."""

    def __init__(self, shape: tuple[int, ...], classes: list[str], sizes: list[int] | None = None):
        self.shape, self.classes, self.sizes = tuple(shape), list(classes), sizes

    @classmethod
    def of(cls, train: Split, clusters: int) -> "Kind":
        """The kind of a split whose classes are so many clusters, or none."""
        sizes = train.labels.cpu().bincount(minlength=clusters).tolist() if clusters else None
        return cls(train.shape, train.classes, sizes)

    def state_dict(self) -> dict:
        state = {"shape": list(self.shape), "classes": self.classes}
        return state | ({"sizes": self.sizes} if self.sizes else {})

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError for another kind; clusters must be as large as before."""
        if state != self.state_dict():
            what = "other clusters" if "sizes" in state else "other classes"
            raise ValueError(f"it was trained on data of shape {state['shape']}, or {what}")
