"""The page on networks that do not learn: each of its checks finds its sick network and leaves the
healthy one alone, and the page shows the checks as they are."""

import ast
import math

import pytest
import torch
from matplotlib.figure import Figure

from common.data import ROOT
from docs import checks, does_not_learn, symptoms

PAGE = (ROOT / "docs/does_not_learn.md").read_text(encoding="utf-8")


@pytest.fixture
def short_trainings(monkeypatch):
    monkeypatch.setattr(symptoms, "EPOCHS", 1)
    monkeypatch.setattr(symptoms, "CHARACTER_STEPS", 20)
    monkeypatch.setattr(symptoms, "GAN_STEPS", 500)


# ---- the checks ----


@pytest.mark.parametrize("symptom", checks.HEALTHY)
def test_a_check_fires_on_the_sick_network_and_not_on_the_healthy_one(symptom, short_trainings):
    _, healthy, sick = does_not_learn.examine(symptom)
    assert not checks.fires(symptom, healthy)
    assert checks.fires(symptom, sick)


def test_a_check_that_measures_nan_fires():
    assert checks.fires("rate_too_high", math.nan)


def test_a_vanishing_gradient_is_found_as_well():
    states = [torch.ones(3, requires_grad=True)]
    for _ in range(20):
        states.append(0.5 * states[-1])
    assert checks.growth_of_the_gradient(states[-1].sum(), states) == pytest.approx(0.5**20)
    assert checks.fires("exploding_recurrence", 0.5**20)


def test_chance_knows_how_frequent_the_classes_are():
    """Nine in ten are of one class: neighbours are equal most of the time, shuffled or not."""
    labels = (torch.rand(10_000, generator=torch.Generator().manual_seed(0)) < 0.1).long()
    assert checks.equal_neighbours_over_chance(labels) == pytest.approx(1, abs=0.05)


def test_coverage_counts_the_modes_that_are_missed():
    torch.manual_seed(0)
    real = symptoms.ring(800)
    assert checks.share_of_real_data_covered(real, symptoms.ring(800)) > 0.9
    half = symptoms.ring(3200)
    half = half[half[:, 0] > half[:, 1] + 0.1]  # three of eight modes whole, and two in part
    assert 0.3 < checks.share_of_real_data_covered(real, half) < 0.6


def test_what_the_page_says_of_each_symptom(short_trainings):
    images, labels, new_images, new_labels = symptoms.load_digits()
    model = symptoms.mlp()
    symptoms.train(model, images, labels.roll(1))  # off by one: no better than guessing
    assert symptoms.accuracy(model, new_images, new_labels) < 0.2

    model = symptoms.mlp()
    symptoms.train(model, images[:50], labels[:50], lr=30)
    symptoms.train(model, images * 255, labels)  # dead: every image gets the same answer
    assert len(model(new_images * 255).argmax(dim=1).unique()) == 1

    loss = torch.nn.functional.cross_entropy(symptoms.mlp()(images), labels)
    assert loss.item() == pytest.approx(math.log(10), abs=0.1)  # before the first step


# ---- the page ----


def test_the_page_shows_the_checks_as_they_are():
    page = PAGE
    for symptom in checks.HEALTHY:
        page = does_not_learn.fill(page, symptom, does_not_learn.source_of(symptom))
    assert page == PAGE, "run python -m docs.does_not_learn docs"


def test_the_page_has_a_row_and_a_picture_of_each_symptom():
    table = PAGE.partition("<!-- measured -->")[2].partition("<!-- /measured -->")[0]
    for symptom, (check, *_) in checks.HEALTHY.items():
        (row,) = [line for line in table.splitlines() if f"`{check.__name__}`" in line]
        *_, healthy, sick = (cell.strip() for cell in row.strip("| ").split("|"))
        assert not checks.fires(symptom, float(healthy)) and checks.fires(symptom, float(sick))
        assert f"](does_not_learn/{symptom}.png)" in PAGE


def test_the_script_writes_the_page_and_its_pictures(tmp_path, monkeypatch):
    def examine(symptom):
        return Figure(), 0.123, 45.6

    pictures = []
    monkeypatch.setattr(does_not_learn, "examine", examine)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **how: pictures.append(path))
    does_not_learn.main(tmp_path)
    assert [path.stem for path in pictures] == list(checks.HEALTHY)
    page = (tmp_path / "does_not_learn.md").read_text(encoding="utf-8")
    assert page.count("| 0.12 | 46 |") == len(checks.HEALTHY)
    assert does_not_learn.fill(page, "measured", "") == does_not_learn.fill(PAGE, "measured", "")


@pytest.mark.parametrize("module", [checks, symptoms, does_not_learn])
def test_the_page_needs_nothing_of_the_playground(module):
    with open(module.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    imported = {
        (getattr(node, "module", None) or node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"docs"}
    assert not imported & ours
