"""`semconv workspace`: the W&B dashboard of semconv's runs, and a comparison as a W&B report. Imports no torch."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from semconv.commands.compare import add_options, comparison_of
from semconv.commands.errors import fail, in_one_line
from semconv.configuration import one_line
from semconv.metrics import CLASSICAL, ENDPOINTS, PRIMARY, Metric, of_section
from semconv.tracking.account import has_account, server

if TYPE_CHECKING:
    from semconv.comparison.result import Comparison

DESCRIPTION = """Save a W&B workspace for semconv's runs: curves by variant, endpoints, quality against cost, factors,
pictures, run comparer. With --report also a W&B report: the text and tables of a comparison of some runs.
Needs the package wandb-workspaces: pip install wandb-workspaces."""
CLOCK, VARIANT = "samples_seen", "variant"
FACTORS = ("mechanism", "indicators", "depth", "fill", "corruption", "dataset", "encoder_parameters_m", "gflops")
MEDIA, PICTURES = ("panels/test", "panels/val"), "original | seen | reconstruction | pasted"


def main(arguments: list[str]) -> None:
    """Build the workspace, and the report if one is asked for; save them, or print them."""
    given = make_parser().parse_args(arguments)
    try:
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError:
        fail("semconv workspace needs the package wandb-workspaces: pip install wandb-workspaces")
    if not given.dry_run and not has_account():
        fail("no W&B account is configured: run `wandb login`, set WANDB_API_KEY, or give --dry-run")
    made: dict[str, Any] = {"workspace": make_workspace(given.entity, given.project, given.name)}
    if given.report:
        with in_one_line():
            comparison = comparison_of(given, given.report)
        from semconv.comparison.finished import notes_on

        made["report"] = make_report(given.entity, given.project, comparison, notes_on(comparison))
    if given.dry_run:
        specs = {
            name: json.loads(part._to_model().model_dump_json(by_alias=True, exclude_none=True)) for name, part in made.items()
        }
        print(json.dumps(specs, indent=2))
    else:
        for name, part in made.items():
            print(f"{name} saved: {_save(part)}")


def make_workspace(entity: str, project: str, name: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace`, not saved yet."""
    from wandb_workspaces import workspaces as ws

    sections = [
        ws.Section(name=title, panels=panels, is_open=number < 3, panel_settings=ws.SectionPanelSettings(x_axis=CLOCK))
        for number, (title, panels) in enumerate(make_panels().items())
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=CLOCK, max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(VARIANT)],
            order=[ws.Ordering(ws.Summary(PRIMARY[0].key), ascending=PRIMARY[0].direction == "lower")],
            pinned_columns=[f"summary:{metric.key}" for metric in PRIMARY],
        ),
    )


def make_panels() -> dict[str, list[Any]]:
    """The panels of the workspace, by the titles of its sections."""
    from wandb_workspaces.reports import v2 as wr

    return {
        "Curves by variant": [
            wr.LinePlot(
                title=metric.key,
                x=CLOCK,
                y=[metric.key],
                groupby=wr.Config(VARIANT),
                groupby_aggfunc="mean",
                groupby_rangefunc="minmax",
            )
            for metric in of_section("curves")
        ],
        "Endpoints": [
            wr.WeavePanelSummaryTable(table_name=ENDPOINTS, layout=wr.Layout(w=24, h=10)),
            *(_bars(metric) for metric in of_section("results")),
        ],
        "Quality against cost": [
            wr.ScatterPlot(
                title=f"{endpoint.label} against {cost.axis}",
                x=wr.SummaryMetric(cost.key),
                y=wr.SummaryMetric(endpoint.key),
                log_x=cost.direction == "lower",
            )
            for endpoint in PRIMARY
            for cost in of_section("costs")
        ],
        "Factors": [
            wr.ParallelCoordinatesPlot(
                title="Settings and endpoints",
                columns=[
                    *(wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key), display_name=key) for key in FACTORS),
                    *(
                        wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(each.key), display_name=each.key)
                        for each in PRIMARY
                    ),
                ],
            ),
            wr.ParameterImportancePlot(with_respect_to=PRIMARY[0].key),
        ],
        "Pictures": [  # a row for each image, a column for each run, whose groups are the variants
            wr.MediaBrowser(title=f"{key}: {PICTURES}", media_keys=[key], mode="grid", grid_x_axis="run", grid_y_axis="index")
            for key in MEDIA
        ],
        "Runs side by side": [wr.RunComparer(diff_only="split")],
    }


def make_report(entity: str, project: str, comparison: "Comparison", notes: Sequence[str]) -> Any:
    """A `wandb_workspaces.reports.v2.Report` of a comparison, not saved yet: its verdicts and tables, and live panels below."""
    from wandb_workspaces.reports import v2 as wr

    from semconv.comparison.finished import headlines
    from semconv.comparison.report.page import findings
    from semconv.comparison.tables import sheets, to_markdown

    variants = comparison.groups.variants
    num_runs = sum(len(variant.runs) for variant in variants)
    said = [f"{found.sign} {found.text} {found.what}: {found.names}" for found in findings(comparison)]
    blocks: list[Any] = [
        wr.P(f"{num_runs} runs against {comparison.baseline}, paired by seed, by `semconv compare`."),
        *(wr.P(sentence) for sentence in headlines(comparison)),
        *(wr.P(note) for note in notes),
        *([wr.UnorderedList(items=said)] if said else []),
        *(wr.MarkdownBlock(to_markdown(sheet)) for sheet in sheets(comparison)),
        wr.PanelGrid(
            runsets=[wr.Runset(name="runs by variant", groupby=[f"config.{VARIANT}"])],  # the report's own project
            panels=[panel for panels in make_panels().values() for panel in panels],
        ),
    ]
    title = f"semconv: {len({variant.label for variant in variants})} variants, {num_runs} runs"
    return wr.Report(entity=entity, project=project, title=title, blocks=blocks, width="fixed")


def _bars(metric: Metric) -> Any:
    """Bars of a metric, and of its baselines beside them."""
    from wandb_workspaces.reports import v2 as wr

    classical = [keys[metric.key] for keys in CLASSICAL.values() if metric.key in keys]
    metrics = [metric.key, *filter(None, [metric.baseline]), *classical]
    return wr.BarPlot(
        title=metric.key, metrics=metrics, groupby=wr.Config(VARIANT), groupby_aggfunc="mean", groupby_rangefunc="stddev"
    )


def _save(part: Any) -> str:
    """Save, and give the address."""
    try:
        part.save()
        return part.url
    except Exception as error:  # of W&B, its service, the network or the server's answer: they have no class in common
        fail(f"{server()} does not take it: {one_line(error, 300)}")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="semconv workspace", description=DESCRIPTION)
    parser.add_argument("--entity", required=True, help="User or team of W&B that owns the workspace.")
    parser.add_argument("--project", default="semconv", help="Project whose runs the workspace shows (semconv).")
    parser.add_argument("--name", default="semconv", help="Name of the workspace (semconv).")
    parser.add_argument(
        "--report",
        action="extend",
        nargs="+",
        default=[],
        metavar="RUNS",
        help="Make a report of these runs too, as semconv compare does.",
    )
    parser.add_argument("--dry-run", action="store_true", help="Print the workspace as JSON; save nothing.")
    add_options(parser)
    return parser
