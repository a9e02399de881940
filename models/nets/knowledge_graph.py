"""Embeddings of entities and relations that score every entity as an answer.

Each class names its paper. All models learn each relation twice, forwards and backwards (reciprocal
relations: Lacroix, Usunier and Obozinski 2018, https://arxiv.org/abs/1806.07297), so that a
question for a head is a question for the tail of the reciprocal relation;
`datasets/kinds/triples.py` makes these questions.
"""

# Shapes: B questions in a batch, K entities, R relations, D numbers an embedding, S entities that
# are scored.

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ShapeError
from ...schema import Schema, Triple

Loss = Callable[[Tensor, Tensor], Tensor]
Power = Literal[1, 2]


class Sizes(NamedTuple):
    """What a table of triples decides of a model.

    Attributes:
        triple: where head and relation stand among the inputs.
        num_entities: K.
        num_relations: R; relation ids go to 2R.
    """

    triple: Triple
    num_entities: int
    num_relations: int


class KnowledgeGraphModel(nn.Module, abc.ABC):
    """Two tables of embeddings, and a query made of a head and a relation.

    Tails are compared with the query. `entities.weight[i]` is the entity of class i,
    `relations.weight[i]` and `reciprocals.weight[i]` are the relation of class i forwards and
    backwards. An input id of 0, which no class has, is a vector of zeros.

    Args:
        sizes: of the table.
        num_dims: D, numbers an embedding.
        init_scale: standard deviation of the initial numbers.
        negatives: wrong entities that each question is trained against; 0 means all.
        n3: weight of the nuclear 3-norm of Lacroix et al.: the sum of the cubed absolute values of
            head, relation and tail is added to a question's loss in training.
    """

    def __init__(
        self,
        sizes: Sizes,
        num_dims: int,
        init_scale: float,
        negatives: int = 0,
        n3: float = 0.0,
    ) -> None:
        super().__init__()
        self.triple, self.negatives, self.n3 = sizes.triple, negatives, n3
        self.entities = nn.Embedding(sizes.num_entities, num_dims)
        self.relations = nn.Embedding(sizes.num_relations, num_dims)
        self.reciprocals = nn.Embedding(sizes.num_relations, num_dims)
        for table in (self.entities, self.relations, self.reciprocals):
            nn.init.normal_(table.weight, std=init_scale)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Score every entity as the answer.

        Args:
            inputs: ids of heads and of relations, int64, shape (B, 1) each, in the schema's order.
        Returns:
            Shape (B, K), the larger the likelier; in evaluation computed in the weights' own
            precision, as scores of a few digits would tie.
        """
        head_BD, relation_BD = self._look_up(inputs)
        if self.training:
            return self.score_all(self.query(head_BD, relation_BD))
        with torch.autocast(head_BD.device.type, enabled=False):
            return self.score_all(self.query(head_BD, relation_BD))

    def training_losses(self, inputs: tuple[Tensor, ...], target_B: Tensor, loss: Loss) -> Tensor:
        """The loss of each question.

        It is taken among all entities, or among the answer and some drawn others.

        Args:
            inputs: see `forward`.
            target_B: class ids of the true entities.
            loss: of scores (B, S) and the positions of the true ones among them.
        Returns:
            Shape (B,).
        """
        head_BD, relation_BD = self._look_up(inputs)
        query_BD = self.query(head_BD, relation_BD)
        if self.negatives:
            scores_BS = self.score_some(query_BD, self._draw_candidates(target_B))
            losses_B = self.loss_among(scores_BS, loss)
        else:
            losses_B = loss(self.score_all(query_BD), target_B)
        if self.n3:
            factors = (head_BD, relation_BD, F.embedding(target_B, self.entities.weight))
            losses_B = losses_B + self.n3 * sum(self.cubes(one) for one in factors)
        return losses_B

    def entity_vectors(self) -> Tensor:
        """The vectors by which entities are compared, shape (K, D)."""
        return self.entities.weight

    @abc.abstractmethod
    def query(self, head_BD: Tensor, relation_BD: Tensor) -> Tensor:
        """The vectors with which tails are compared, shape (B, D)."""

    def score_all(self, query_BD: Tensor) -> Tensor:
        """Scores of all entities, shape (B, K).

        Here these are products, by one matrix multiplication.
        """
        return F.linear(
            query_BD, self.entity_vectors()
        )  # its gradient has the entities' layout, that of @ has not

    def score_some(self, query_BD: Tensor, entity_BS: Tensor) -> Tensor:
        """Scores of some entities for each question, ids and scores (B, S)."""
        candidates_BSD = F.embedding(entity_BS, self.entity_vectors())
        return (candidates_BSD @ query_BD.to(candidates_BSD.dtype)[:, :, None])[:, :, 0]

    def loss_among(self, scores_BS: Tensor, loss: Loss) -> Tensor:
        """The loss of each question, shape (B,).

        The true answer's score comes first.
        """
        return loss(
            scores_BS, torch.zeros(len(scores_BS), dtype=torch.int64, device=scores_BS.device)
        )

    def cubes(self, factor_BD: Tensor) -> Tensor:
        """Sum of the cubed absolute values of embeddings, shape (B,)."""
        return factor_BD.abs().pow(3).sum(dim=1)

    def _look_up(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Embeddings of heads and relations, shape (B, D) each."""
        shapes = [tuple(one.shape[1:]) for one in inputs]
        if shapes != [(1,), (1,)]:
            raise ShapeError(
                "expected ids of heads and of relations, of shape (B, 1) each; got rows of "
                f"{shapes}"
            )
        head_B, relation_B = (inputs[at][:, 0] for at in self.triple)
        both_ways = torch.cat([self.relations.weight, self.reciprocals.weight])
        return _embed(head_B, self.entities.weight), _embed(relation_B, both_ways)

    def _draw_candidates(self, target_B: Tensor) -> Tensor:
        """The true entity, then other ones, equally likely, (B, 1 + negatives).

        They come from torch's global generator, whose state is part of a checkpoint.
        """
        num_others = self.entities.num_embeddings - 1
        drawn_BS = torch.randint(
            num_others, (len(target_B), self.negatives), device=target_B.device
        )
        # From the true one on each id moves up by one, so that none is the true one.
        drawn_BS += drawn_BS >= target_B[:, None]
        return torch.cat([target_B[:, None], drawn_BS], dim=1)


class TransE(KnowledgeGraphModel):
    """A relation moves the head to the tail.

    The score is minus the distance of head + relation from the tail.

    Bordes et al. 2013, "Translating Embeddings for Modeling Multi-relational Data".

    Args:
        norm: 1 or 2: how distances are measured.
        margin: 0 trains with the recipe's loss over the scores; more with the paper's: the mean
            over the negatives of max(0, margin + distance of the true entity - distance of the
            negative), the entities held to length 1.
    """

    def __init__(
        self,
        sizes: Sizes,
        num_dims: int,
        init_scale: float,
        negatives: int = 0,
        norm: Power = 2,
        margin: float = 0.0,
    ) -> None:
        super().__init__(sizes, num_dims, init_scale, negatives)
        self.norm, self.margin = norm, margin

    def entity_vectors(self) -> Tensor:
        """The embeddings, of length 1 under a margin."""
        weight_KD = self.entities.weight
        return F.normalize(weight_KD, dim=1) if self.margin else weight_KD

    def query(self, head_BD: Tensor, relation_BD: Tensor) -> Tensor:
        """Where the tail should be."""
        return (F.normalize(head_BD, dim=1) if self.margin else head_BD) + relation_BD

    def score_all(self, query_BD: Tensor) -> Tensor:
        """Minus the distances.

        With norm 2 it needs one matrix multiplication.
        """
        return -torch.cdist(query_BD, self.entity_vectors(), p=self.norm)

    def score_some(self, query_BD: Tensor, entity_BS: Tensor) -> Tensor:
        """Minus the distances."""
        candidates_BSD = F.embedding(entity_BS, self.entity_vectors())
        return -torch.cdist(query_BD[:, None], candidates_BSD, p=self.norm)[:, 0]

    def loss_among(self, scores_BS: Tensor, loss: Loss) -> Tensor:
        """The recipe's loss, or the margin's."""
        if not self.margin:
            return super().loss_among(scores_BS, loss)
        return F.relu(self.margin - scores_BS[:, :1] + scores_BS[:, 1:]).mean(dim=1)


class DistMult(KnowledgeGraphModel):
    """The score is the sum over the products of head, relation and tail.

    Every relation is symmetric, but for its reciprocal.

    Yang et al. 2015, https://arxiv.org/abs/1412.6575.
    """

    def query(self, head_BD: Tensor, relation_BD: Tensor) -> Tensor:
        """Head times relation."""
        return head_BD * relation_BD


class ComplEx(KnowledgeGraphModel):
    """The real part of head times relation times the conjugate tail.

    All are complex numbers.

    Trouillon et al. 2016, https://arxiv.org/abs/1606.06357. The first half of an embedding is real
    parts, the second imaginary parts, so that D is twice the rank.
    """

    def query(self, head_BD: Tensor, relation_BD: Tensor) -> Tensor:
        """Head times relation.

        With the conjugate of a tail the real part is a plain product of the numbers.
        """
        (real_h, imag_h), (real_r, imag_r) = head_BD.chunk(2, dim=1), relation_BD.chunk(2, dim=1)
        return torch.cat(
            [real_h * real_r - imag_h * imag_r, real_h * imag_r + imag_h * real_r], dim=1
        )

    def cubes(self, factor_BD: Tensor) -> Tensor:
        """Sum of the cubed moduli."""
        real, imag = factor_BD.chunk(2, dim=1)
        return (real.square() + imag.square()).pow(1.5).sum(dim=1)


def find_sizes(name: str, schema: Schema) -> Sizes:
    """Find the head, the relation, and the numbers of entities and relations.

    Args:
        name: of the model, for the message.
        schema: of the table.
    Raises:
        ShapeError: the table is none of triples; says how a recipe says that it is.
    """
    triple = schema.triple
    if triple is None:
        kinds = ", ".join(
            f"{feature.name} ({feature.kind})" for feature in [*schema.inputs, *schema.targets]
        )
        raise ShapeError(
            f"model.name: {name} takes triples: two inputs of kind category, head and relation, "
            "and a target of kind "
            "category that shares a vocabulary with the head (vocabulary: entities on both); data "
            f"has {kinds}"
        )
    num_relations = len(schema.inputs[triple.relation].classes)
    return Sizes(triple, len(schema.targets[0].classes), num_relations)


def _embed(ids_B: Tensor, weight: Tensor) -> Tensor:
    """Row id - 1 of each id, shape (B, D).

    Zeros for id 0.
    """
    known_B1 = (ids_B > 0).to(weight.dtype)[:, None]
    return F.embedding((ids_B - 1).clamp(min=0), weight) * known_B1
