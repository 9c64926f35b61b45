"""Faults in command lines and files: one line that says the whole key, the value and the remedy."""

import pytest

from tests.campaign.mutations import attempt, faults, mutations
from tests.experiments import arguments
from tests.pairwise import together


@pytest.mark.filterwarnings("ignore")
@together(
    "given, said",
    [
        ("--model.base_lr=abc", "model.base_lr is abc: give a number"),
        (
            "model: {init_args: {masker: {init_args: {ratio: [1, 2, 3]}}}}",
            "model.masker.ratio is [1, 2, 3]: give a number, or a list",
        ),
        ("--model.base_lr=${x}", "model.base_lr refers to ${x}, and there is no such key: correct it"),
        ("--model.base_lr=${oc.env:NOT_SET_AT_ALL}", "model.base_lr: the environment has no variable NOT_SET_AT_ALL: set it"),
        ("--model.base_lr=${..", "model.base_lr is ${.., which cannot be resolved: correct what stands in ${…}"),
        ("--data.channels=${oc.env:HOME}", "model.channels, which follows data.channels, is "),
        ("--data.channels=${x}", "data.channels refers to ${x}, and there is no such key: correct it"),
        ("--model.masker=RandomMaskr", "model.masker: there is no class RandomMaskr: did you mean RandomMasker?"),
        ("--model.masker=os.system", "model.masker: os.system is of Python's own library"),
        ("--model.masker=nowhere.to.Be", "model.masker: there is no module nowhere: correct the class path"),
        ("--model.warmup=null", "model.warmup is null: give a value"),
        ("--model.cell=null", "model.objective.patch, which follows model.cell, has no value: give one"),
        ("--data.channels=null", "model.channels, which follows data.channels, is null: give a value"),
        ("--data.channels=0", "data.channels is 0: give a number above 0"),
        ("model: [1]", "model is [1]: give a class"),
        ("model: {init_args: {masker: {class_path: null}}}", "model.masker: give a class"),
        ("trainer: 3", "trainer is 3: give a mapping"),
        ("1: 2", "there is no option 1"),
        ("class_path: os.system", "there is no option class_path"),
        ("trainer: {max_steps: 3, max_steps: 4}", "max_steps stands twice: leave one out"),
    ],
)
def test_a_fault_is_said_with_its_key_its_value_and_its_remedy(given, said, tmp_path):
    words = [given] if given.startswith("--") else ["-c", str(tmp_path / "given.yaml")]
    (tmp_path / "given.yaml").write_text(given)
    outcome = attempt(tuple(arguments("cnn_plain", *words)))
    assert said in outcome.said, outcome
    assert (outcome.code, len([line for line in outcome.said.splitlines() if "error" in line])) == (2, 1)


@pytest.mark.filterwarnings("ignore")
def test_drawn_faults_end_in_one_clear_line(tmp_path):
    drawn = list(mutations(0, 14, tmp_path))
    outcomes = [attempt(mutation.words) for mutation in drawn]
    found = [
        (mutation.words[4:], outcome.said) for mutation, outcome in zip(drawn, outcomes, strict=True) if faults(mutation, outcome)
    ]
    assert found == []
    assert sum(outcome.ending == "refused" for outcome in outcomes) >= 7
