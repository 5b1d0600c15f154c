"""The model card of a taught package, in Markdown."""

from __future__ import annotations

from service.teaching.report import Accuracy, Report, Validation


def model_card(report: Report, name: str, version: int, base: str) -> str:
    """Return the card of `name/version` on `base`, the `name/version` of the base model."""
    labels = list(report.labels)
    counts = "\n".join(f"| {_cell(label)} | {clips} |" for label, clips in report.labels.items())
    header = " | ".join(str(number) for number in range(1, len(labels) + 1))
    rows = "\n".join(
        f"| {number}. {_cell(label)} | {' | '.join(str(count or '') for count in row)} |"
        for number, (label, row) in enumerate(zip(labels, report.confusion, strict=True), start=1)
    )
    learned = f"learned from {sum(report.labels.values())} clips in {report.groups} groups"
    accuracy = f"Cross-validated top-1 in {report.folds} folds: {percentages(report.accuracy)}."
    unsure = f"Answers with a best score below {report.threshold.value:.2f} are unsure."
    sections = [
        f"# {name} {version}",
        f"A linear classifier on the features of `{base}`, {learned}, {report.views} views of each.",
        "## Accuracy",
        f"{accuracy} {learning_outlook(report)}",
        f"{unsure} {threshold_effect(report)}",
        *([] if report.validation is None else [validation_result(report.validation)]),
        *[f"**{warning}**" for warning in report.warnings],
        "## Labels",
        f"| label | clips |\n|---|---|\n{counts}",
        "## Confusion",
        "Rows are true labels, columns predictions, in the same order.",
        f"| | {header} |\n|---{'|---' * len(labels)}|\n{rows}",
    ]
    if report.suspects:
        suspects = "\n".join(
            f"- `{suspect.name}`: labelled {suspect.label!r}, looks like {suspect.looks_like!r}"
            f" ({suspect.score:.2f})"
            for suspect in report.suspects
        )
        sections += ["## Clips to check", suspects]
    return "\n\n".join(sections) + "\n"


def percentages(accuracy: Accuracy) -> str:
    """Format an accuracy, such as `92.3 % (120 of 130 clips; 95 % interval 86.4 to 95.8 %)`."""
    return (
        f"{100 * accuracy.top1:.1f} % ({accuracy.right} of {accuracy.clips} clips; 95 % interval"
        f" {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f} %)"
    )


def validation_result(validation: Validation) -> str:
    """Describe the accuracy on the held-out clips."""
    return (
        f"On clips that were kept apart: {percentages(validation.accuracy)};"
        f" {validation.unsure} answers were unsure, {validation.unsure_wrong} of them wrong."
    )


def learning_outlook(report: Report) -> str:
    """Describe the likely gain from more clips, according to the learning curve."""
    if report.two_more is None:
        return "There are too few clips to say what more would bring."
    points = 100 * report.two_more
    if points < 1:
        return "Two more clips of each label would likely bring less than one point."
    return f"Two more clips of each label would likely bring about {points:.0f} points."


def threshold_effect(report: Report) -> str:
    """Describe how many answers the threshold marks."""
    threshold = report.threshold
    shares = [f"{threshold.right_marked:.0%} of the right answers"]
    if threshold.wrong_marked is not None:
        shares.append(f"{threshold.wrong_marked:.0%} of the wrong ones")
    if threshold.unknown_marked is not None:
        shares.append(f"{threshold.unknown_marked:.0%} of clips of an action that was not taught")
    return f"In the cross-validation that marks {', '.join(shares)}.".replace("%", " %")


def _cell(text: str) -> str:
    """Escape `text` for a table cell."""
    return text.replace("|", "\\|").replace("\n", " ")
