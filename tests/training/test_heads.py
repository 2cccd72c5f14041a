"""Each head against independent references, and one contract over all of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.metrics import log_loss
from torch.nn import functional as F

from mien.base.labels import AGE_GROUPS, PREDICTED
from mien.base.table import age_ranges, age_to_group, check_faces, known_labels
from mien.recipe.settings import Age, AgeGroup, Gender, Model, Tasks
from mien.training.heads import HEADS, AgeGroupHead, AgeHead, GenderHead, is_known, make_heads

FACES = check_faces(
    pd.DataFrame(
        {
            "face": range(6),
            "path": "a",
            "gender": ["female", "male", None, "male", "male", None],
            "age": [30, None, 7.5, 0, 120, None],
            "age_group": ["25-32", "8-13", None, "0-2", "60+", None],
        }
    )
)
for kind in HEADS.values():
    if kind.column not in FACES:  # a further column of the faces table: a label of 0 or 1
        FACES[kind.column] = [1.0, 0.0, np.nan, 0.0, 1.0, np.nan]
DEFAULTS = {name: Tasks.model_fields[name].annotation.__args__[0]() for name in PREDICTED}


def test_every_task_of_a_recipe_has_a_head_and_the_reverse():
    assert set(HEADS) == set(PREDICTED) == set(Tasks.model_fields) - {"columns", "weighting"}


@pytest.mark.parametrize("task", HEADS)
class TestContract:
    def make(self, task):
        torch.manual_seed(0)
        return HEADS[task](DEFAULTS[task], 5, Model()), torch.randn(len(FACES), 5)

    def test_target_is_missing_where_the_label_is(self, task):
        head, _ = self.make(task)
        assert is_known(head.target(FACES)).tolist() == known_labels(FACES, task).tolist()

    def test_loss_ignores_faces_without_a_label(self, task):
        head, features = self.make(task)
        target = head.target(FACES)
        known = is_known(target)
        with torch.no_grad():
            assert torch.equal(head.loss(head(features), target), head.loss(head(features)[known], target[known]))

    def test_no_label_at_all_is_a_loss_of_zero_with_a_gradient(self, task):
        head, features = self.make(task)
        loss = head.loss(head(features), torch.full_like(head.target(FACES), torch.nan))
        loss.backward()
        assert loss == 0 and all((parameter.grad == 0).all() for parameter in head.parameters())

    def test_a_few_steps_lower_the_loss(self, task):
        head, features = self.make(task)
        optimizer = torch.optim.Adam(head.parameters(), 0.05)
        losses = []
        for _ in range(40):
            loss = head.loss(head(features), head.target(FACES))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]

    def test_columns_are_those_of_the_predictions_table(self, task):
        head, features = self.make(task)
        columns = head.decode(head(features))
        valid = set(PREDICTED[task]) | ({f"p_{group}" for group in AGE_GROUPS} if task == "age" else set())
        assert set(columns) <= valid, "recipe.PREDICTED names the columns of each task"
        assert columns and all(column.shape == (len(FACES),) for column in columns.values())
        groups = [columns[f"p_{group}"] for group in AGE_GROUPS if f"p_{group}" in columns]
        if groups:
            assert torch.allclose(torch.stack(groups).sum(0), torch.ones(len(FACES)), atol=1e-5)


def test_gender_loss_is_the_log_loss():
    head = GenderHead(Gender(), 3, Model())
    logits, target = torch.randn(4, 1), torch.tensor([0.0, 1, 1, 0])  # codes: female, male
    expected = log_loss((target == 0).numpy(), torch.sigmoid(logits[:, 0]).numpy())
    assert head.loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_class_weights_are_inverse_frequencies():
    head = GenderHead(Gender(class_weights=True), 3, Model())
    head.fit(FACES)
    assert head.class_weight.tolist() == pytest.approx([4 / (2 * 1), 4 / (2 * 3)])
    target = head.target(FACES)
    assert head.class_weight[target[~torch.isnan(target)].long()].mean().item() == pytest.approx(1)


def test_ordinal_loss_adds_the_ranked_probability_score():
    plain, ordinal = (AgeGroupHead(AgeGroup(loss=loss), 3, Model()) for loss in ("cross_entropy", "ordinal"))
    logits, target = torch.randn(5, 8), torch.tensor([0.0, 3, 7, 4, 4])
    cumulated = logits.softmax(1).numpy().cumsum(1)
    steps = np.arange(8) >= target.numpy()[:, None]
    score = ((cumulated - steps) ** 2).sum(1).mean()
    assert plain.loss(logits, target).item() == pytest.approx(F.cross_entropy(logits, target.long()).item(), rel=1e-5)
    assert (ordinal.loss(logits, target) - plain.loss(logits, target)).item() == pytest.approx(score, rel=1e-4)


def test_being_further_off_costs_more_where_order_counts():
    head = AgeGroupHead(AgeGroup(loss="ordinal"), 3, Model())
    near, far = torch.zeros(1, 8), torch.zeros(1, 8)
    near[0, 4], far[0, 7] = 5, 5
    target = torch.tensor([3.0])
    assert head.loss(near, target) < head.loss(far, target)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_age_quantiles_are_those_of_a_piecewise_even_distribution(seed):
    head = AgeHead(Age(), 3, Model())
    logits = torch.randn(1, 101, generator=torch.Generator().manual_seed(seed)) * 3
    columns = head.decode(logits)
    probability = logits.softmax(1)[0].double().numpy()
    edges, cumulated = np.arange(102) - 0.5, np.concatenate([[0], probability.cumsum()])
    for name, share in (("age_low", 0.1), ("age", 0.5), ("age_high", 0.9)):
        expected = np.clip(np.interp(share, cumulated, edges), 0, 100)
        assert columns[name].item() == pytest.approx(expected, abs=0.01)


def test_a_certain_age_is_that_age_and_its_group():
    head = AgeHead(Age(), 3, Model())
    logits = torch.full((1, 101), -50.0)
    logits[0, 30] = 50
    columns = head.decode(logits)
    assert columns["age"].item() == pytest.approx(30) and columns["p_25-32"].item() == pytest.approx(1)


def test_ages_over_the_oldest_count_as_that_old():
    assert AgeHead(Age(oldest=100), 3, Model()).target(FACES).tolist()[4] == [100, 100]


def test_crps_by_hand():
    with_score, without = (AgeHead(Age(oldest=10, crps=weight), 3, Model()) for weight in (1.0, 0.0))
    logits, target = torch.randn(3, 11), torch.tensor([0.0, 4.0, 10.0])
    cumulated = logits.softmax(1).numpy().cumsum(1)
    score = ((cumulated - (np.arange(11) >= target.numpy()[:, None])) ** 2).sum(1).mean() / 10
    years = torch.stack([target, target], 1)
    assert (with_score.loss(logits, years) - without.loss(logits, years)).item() == pytest.approx(score, rel=1e-4)


def test_the_target_is_the_year_else_the_range_else_the_years_of_the_group():
    table = pd.DataFrame({"face": range(5), "path": "a", "age": ["30.5", "20-29", "60+", None, None]})
    faces = check_faces(table.assign(age_group=[None, "38-43", None, "8-13", None]))
    target = AgeHead(Age(oldest=90), 3, Model()).target(faces)
    assert target[:4].tolist() == [[30.5, 30.5], [20, 29], [60, 90], [8, 14]] and target[4].isnan().all()
    assert all(len(set(age_to_group(range(int(first), int(last) + 1)))) == 1 for first, last in age_ranges(faces)[2:4])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 30.0]))
def test_the_loss_of_a_range_is_the_log_of_its_probability(one, other, seed, scale):
    first, last = sorted((one, other + 1))
    head = AgeHead(Age(oldest=101), 3, Model())
    logits = (torch.randn(1, 102, generator=torch.Generator().manual_seed(seed)) * scale).requires_grad_()
    loss = head.loss(logits, torch.tensor([[float(first), float(last)]]))
    loss.backward()
    exact = logits.detach().double().numpy()[0]
    inside = (np.arange(102) >= first) & (np.arange(102) <= last)
    if first == last:
        return  # a year has another loss
    assert loss.item() == pytest.approx(logsumexp(exact) - logsumexp(exact[inside]), rel=1e-4, abs=1e-5)
    expected = softmax(exact) - np.where(inside, softmax(np.where(inside, exact, -np.inf)), 0)
    np.testing.assert_allclose(logits.grad[0].numpy(), expected, atol=1e-5)


def test_the_gradient_of_years_and_ranges_is_that_of_finite_differences():
    head = AgeHead(Age(oldest=20), 3, Model()).double()
    target = torch.tensor([[7.0, 7.0], [7.5, 7.5], [3.0, 9.0], [2.5, 3.0], [15.0, 20.0], [0.0, 20.0]]).double()
    torch.manual_seed(0)
    logits = torch.randn(6, 21, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: head._losses(values, target), (logits,))
    assert torch.autograd.gradcheck(lambda values: head.proper_score(values, target), (logits,))


def test_a_range_far_from_the_answer_has_a_finite_loss_and_gradient():
    head = AgeHead(Age(), 3, Model())
    logits = torch.full((1, 101), -500.0).index_fill(1, torch.tensor([3]), 500.0).requires_grad_()
    loss = head.loss(logits, torch.tensor([[60.0, 100.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(1000 - np.log(41), rel=1e-4) and logits.grad.isfinite().all()


def test_years_and_ranges_train_one_head_that_gives_the_groups():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    age = random.uniform(0, 80, 600)
    decade = age // 10 * 10
    table = pd.DataFrame({"face": range(600), "path": "a", "age": np.where(random.random(600) < 0.1, age, np.nan)})
    ranged = table["age"].isna()
    faces = check_faces(
        table.assign(age_from=np.where(ranged, decade, np.nan), age_to=np.where(ranged, decade + 9, np.nan))
    )
    bumps = np.exp(-0.5 * ((age[:, None] - np.arange(0, 85, 5)) / 5) ** 2)
    features = torch.from_numpy(bumps).float()
    head = AgeHead(Age(), features.shape[1], Model())
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(head(features), head.target(faces)).backward()
        optimizer.step()
    with torch.no_grad():
        columns = {name: values.numpy() for name, values in head.decode(head(features)).items()}
    assert np.abs(columns["age"] - age)[ranged].mean() < 3
    groups = np.stack([columns[f"p_{group}"] for group in AGE_GROUPS]).argmax(0)
    assert (groups == age_to_group(age).codes).mean() > 0.8


def test_an_own_age_group_head_wins_over_the_age_heads_groups():
    from mien.recipe.load import load_recipe
    from mien.training.model import FaceNet

    recipe = load_recipe(
        {
            "tasks": ["age_group", "age"],
            "model": {"backbone": "test_vit", "image_size": 160},
            "init": {"weights": "none"},
        }
    )
    net = FaceNet(recipe).eval()
    logits = {"age": torch.randn(2, 101), "age_group": torch.randn(2, 8)}
    assert torch.allclose(net.decode(logits)["p_0-2"], logits["age_group"].softmax(1)[:, 0])


def test_hidden_layers_have_the_asked_shape():
    model = Model(batch_norm=True, dropout=0.5)
    head = make_heads(Tasks(gender=Gender(hidden=(128, 32))), 10, model, {})["gender"]
    kinds = [type(layer).__name__ for layer in head.layer]
    assert kinds == ["Dropout", "Linear", "BatchNorm1d", "ReLU"] * 2 + ["Dropout", "Linear"]
    assert [layer.out_features for layer in head.layer if hasattr(layer, "out_features")] == [128, 32, 1]
