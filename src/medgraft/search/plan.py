"""What a run will train and how it will choose, decided before anything is trained."""

import dataclasses
from typing import Final, Literal

from medgraft.search.trial import Trial, TrialSpec
from medgraft.train.settings import TrainSettings
from medgraft.transfer.depths import renamed
from medgraft.transfer.heads import HeadSettings
from medgraft.transfer.source import SourceSpec
from medgraft.transfer.strategies import StrategySettings

__all__ = ["AFTER_FTL", "Method", "Recipe", "SearchPlan", "shared_epochs"]

Method = Literal["given", "two-stage", "exhaustive", "incremental", "guided", "svcca"]
AFTER_FTL: Final[tuple[Method, ...]] = ("guided", "svcca")
"""Ways that begin with full fine-tuning and judge cuts by its features."""
_MIN_EPOCHS: Final = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What all trainings of a run have in common.

    Args:
        source: Network and weights.
        num_cuts: Number of the network's cuts.
        lr: Base learning rate.
        weight_decay: Weight decay of AdamW.
        head: Head on every trunk but that of ``hybrid``.
        hybrid_head: Head of ``hybrid``, a classical one.
        train: With the epochs of a whole training; its seed is that of each trial.
        settings: Settings of the strategies that have any.
        solver: ``exact`` solves heads on frozen features, ``gradient`` trains them.
    """

    source: SourceSpec
    num_cuts: int
    lr: float
    weight_decay: float
    head: HeadSettings
    hybrid_head: HeadSettings
    train: TrainSettings
    settings: StrategySettings = dataclasses.field(default_factory=StrategySettings)
    solver: Literal["exact", "gradient"] = "exact"

    def spec(
        self,
        strategy: str,
        cut: int,
        seed: int,
        *,
        epochs: int | None = None,
        lr: float | None = None,
        parent: Trial | None = None,
    ) -> TrialSpec:
        """The specification of one training.

        Args:
            strategy: A key of `medgraft.transfer.strategies.STRATEGIES`; where it is full fine-tuning, that is meant.
            cut: Index of its depth.
            seed: Seed of the trial.
            epochs: None for those of a whole training.
            lr: None for the recipe's own.
            parent: A finished trial whose trunk is the start instead of the source's weights.
        """
        name = renamed(strategy, cut, self.num_cuts)
        return TrialSpec(
            source=self.source,
            strategy=name,
            cut=cut,
            seed=seed,
            lr=self.lr if lr is None else lr,
            weight_decay=self.weight_decay,
            head=self.hybrid_head if name == "hybrid" else self.head,
            train=dataclasses.replace(self.train, epochs=epochs or self.train.epochs, seed=seed),
            settings=self.settings,
            solver=self.solver,
            parent=parent.spec.key() if parent is not None else "",
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What a run trains, in which order it may look at depths, and the rule that chooses.

    Args:
        recipe: Recipe of every training.
        strategy: A key of `medgraft.transfer.strategies.STRATEGIES`.
        method: How its depth is found.
        depths: Indices of the cuts that may be tried, rising.
        given: Index of the depth where nothing is searched, 0 for none.
        second: Index of the last fully pretrained cut where the weights lack the network's tail: full fine-tuning of
            that part is a second baseline.
        seeds: Seeds of the final models; the first is that of the search.
        num_seeds: Number of seeds that the search trains at every cut; their mean is the cut's score.
        epochs: Epochs of every training of the search; 0: those of a whole one, shared out.
        num_shares: Number of seeds that share the epochs of a whole training.
        start: Where guided begins: the source's weights, or the fine-tuned trunk.
        extra: What guided may spend beyond full fine-tuning, in units of it.
        level: Validation score that ends incremental; None: that of full fine-tuning.
        max_trials: Most cuts besides the last one; 0 for no bound.
        rule: Rule that chooses.
        tolerance: Validation score that ``compact`` may give up.
        replicates: Replicates of the rule's bootstrap.
    """

    recipe: Recipe
    strategy: str
    method: Method
    depths: tuple[int, ...]
    given: int = 0
    second: int | None = None
    seeds: tuple[int, ...] = (0,)
    num_seeds: int = 1
    epochs: int = 0
    num_shares: int = 1
    start: Literal["source", "ftl"] = "source"
    extra: float = 1.0
    level: float | None = None
    max_trials: int = 0
    rule: Literal["compact", "best"] = "compact"
    tolerance: float = 0.01
    replicates: int = 2000

    @property
    def seed(self) -> int:
        """Seed of the search."""
        return self.seeds[0]

    @property
    def is_searched(self) -> bool:
        """Whether the run looks for its depth."""
        return self.method != "given"

    @property
    def is_after_ftl(self) -> bool:
        """Whether the search begins with full fine-tuning, with all epochs of the run."""
        return self.method in AFTER_FTL

    @property
    def search_epochs(self) -> int:
        """Epochs of every training of the search; see `shared_epochs`."""
        whole = self.recipe.train.epochs
        return shared_epochs(whole, self.epochs, self.num_shares) if self.is_searched else whole

    def with_epochs(self, epochs: int, max_trials: int | None = None) -> "SearchPlan":
        """The plan with whole trainings of so many epochs, and a bound of the cuts tried.

        Args:
            epochs: At least 1.
            max_trials: None leaves the bound.
        """
        recipe = dataclasses.replace(self.recipe, train=dataclasses.replace(self.recipe.train, epochs=epochs))
        bound = self.max_trials if max_trials is None else max_trials
        return dataclasses.replace(self, recipe=recipe, max_trials=bound)


def shared_epochs(whole: int, asked: int, num_shares: int) -> int:
    """Epochs of a training in a search.

    On a hundred validation images the score of one training is luck to a large part: a cut that is no better than its
    neighbours can lead them by four points. There the epochs of a training are shared among three seeds and the mean
    counts; the search costs the same, and the chosen model is trained with all epochs afterwards.

    Args:
        whole: Epochs of a training outside the search.
        asked: Epochs that the user asked for; 0 leaves them to the shares.
        num_shares: Seeds that share the epochs of a training.

    Examples:
        >>> shared_epochs(30, 0, 3), shared_epochs(30, 0, 1), shared_epochs(6, 0, 3), shared_epochs(30, 7, 3)
        (10, 30, 5, 7)
    """
    return asked or max(whole // num_shares, min(_MIN_EPOCHS, whole))
