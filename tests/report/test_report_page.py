import html.parser
import importlib.resources
import itertools
import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgraft.errors import RunError
from medgraft.evaluate.results import Estimate
from medgraft.report import formatting as fmt
from medgraft.report import write_model_card, write_report
from medgraft.report.checklist import checklist
from medgraft.report.markdown import escape_markdown, indent_code
from medgraft.report.prose import methods
from medgraft.report.run_files import read_run
from medgraft.report.tables import metric_rows, plan_rows
from medgraft.result.run import read_result
from medgraft.types import BlockPlan

HOSTILE = "<script>alert(1)</script>"
FILES = [
    "search.csv",
    "choice.json",
    "predictions.csv",
    "predictions_baseline.csv",
    "history.csv",
    "audit.json",
]


class Page(html.parser.HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def page_of(run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages(finished_runs) -> dict[str, str]:
    """The report of each task as text, its model card left beside it."""
    return {task: write_report(run).read_text(encoding="utf-8") for task, run in finished_runs.items()}


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_page_needs_no_network_and_runs_nothing(pages, task):
    page = Page(pages[task])
    addresses = [value for name, value in page.attributes if name in {"src", "href", "xlink:href", "action", "data"}]
    assert addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    assert not {"script", "iframe", "object", "embed", "link", "form", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    styles = " ".join(value for name, value in page.attributes if name == "style")
    assert all(inside.startswith("#") for inside in re.findall(r"url\(([^)]*)", styles))


def test_a_hostile_class_name_is_printed_and_never_run(pages, finished_runs):
    assert HOSTILE in Page(pages["multiclass"]).text
    assert "<script" not in pages["multiclass"]
    assert "<script" not in (finished_runs["multiclass"] / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "command",
        "backbone.name",
        "chosen.cut.name",
        "test.headline",
        "test.numbers",
        "backbone.load_report.source",
    ],
)
def test_hostile_text_anywhere_is_escaped(make_run, path):
    run = make_run(changes={path: f"{HOSTILE}\n\n```\n{HOSTILE}"})
    page_of(run)
    for name in ("report.html", "MODEL_CARD.md"):
        lines = (run / name).read_text(encoding="utf-8").splitlines()
        # An indented code block prints what stands in it.
        assert not [
            line for line in lines if "<script" in line and not (name.endswith("md") and line.startswith("    "))
        ]


def test_ids_are_unique_and_every_reference_inside_the_page_has_its_target(pages):
    text = pages["multiclass"]
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert set(targets) <= set(ids)


def test_the_same_run_gives_the_same_report(pages, make_run, finished_runs):
    run = make_run()
    assert write_report(run).read_text(encoding="utf-8") == pages["binary"]
    assert (run / "MODEL_CARD.md").read_bytes() == (finished_runs["binary"] / "MODEL_CARD.md").read_bytes()
    assert not list(run.glob(".unfinished*"))


def test_the_sections_stand_in_their_order_with_the_answer_first(pages):
    text = pages["binary"]
    order = [
        "answer",
        "cuts",
        "test",
        "training",
        "kept",
        "data",
        "examples",
        "reproduce",
        "methods",
        "checklist",
    ]
    places = [text.index(f'id="{name}"') for name in order]
    assert places == sorted(places)


def test_the_numbers_on_the_page_are_those_of_the_run(pages, finished_runs):
    result = read_result(finished_runs["binary"])
    text = Page(pages["binary"]).text
    for model in (result.test.chosen, result.test.baseline):
        assert fmt.with_interval(model.scores["auroc"]) in text
    assert fmt.signed_with_interval(result.test.comparison.difference["auroc"]) in text
    sizes = result.efficiency
    assert fmt.percent(sizes.chosen.num_params / sizes.baseline.num_params) in text
    assert result.splits.sha256 in text
    assert result.command in text


def test_every_metric_with_an_interval_in_the_run_shows_it(finished_runs):
    rows = {row["name"]: row for row in metric_rows(read_run(finished_runs["binary"]).result)}
    without = {name for name, row in rows.items() if "(" not in row["chosen"]}
    assert without == {"Majority rate", "Temperature"}


@pytest.mark.parametrize("key", ["classes", "test", "test.chosen", "plan", "splits.groups", "efficiency.chosen.macs"])
def test_results_without_a_key_are_refused_by_its_name(make_run, drop, key):
    with pytest.raises(RunError, match=key.rpartition(".")[2]):
        write_report(make_run(changes={key: drop}))


@pytest.mark.parametrize("name", FILES)
def test_any_file_beside_the_results_may_be_absent(make_run, name):
    run = make_run()
    (run / name).unlink()
    assert write_report(run).is_file()


def test_thumbnails_are_embedded_or_the_page_says_why_not(pages, make_run):
    run = make_run()
    index = json.loads((run / "report_images" / "index.json").read_text())
    shown = 2 * len(index["duplicates"]) + len(index["hits"]) + len(index["misses"])
    assert Page(pages["binary"]).tags.count("img") == shown > 10
    (run / "report_images" / "index.json").unlink()
    without = page_of(run)
    assert "img" not in without.tags
    assert "Thumbnails were switched off" in without.text


def test_sites_show_their_metrics_or_the_reason_why_there_are_none(make_run, finished_runs):
    scores = {name: {"value": 0.8642, "ci95": [0.7, 0.95]} for name in ("auroc", "auprc", "balanced_accuracy", "ece")}
    told = {
        "north <b>": {"num_cases": 80, "num_groups": 70, **scores},
        "south": {"num_cases": 4, "num_groups": 4, "reason": "fewer than 10 groups with and without 'sick': 1 and 3"},
    }
    page = page_of(make_run(changes={"test.sites": told}))
    assert "Site by site" in page.text
    assert "north <b>" in page.text
    assert fmt.with_interval(Estimate(value=0.8642, ci95=(0.7, 0.95))) in page.text
    assert "fewer than 10 groups" in page.text


def test_what_cannot_be_written_leaves_nothing_half_written(make_run):
    run = make_run()
    (run / "report.html").mkdir()
    with pytest.raises(RunError, match=r"could not write .*report\.html"):
        write_report(run)
    assert not list(run.glob(".unfinished*"))


def test_the_model_card_alone_can_be_written(make_run):
    run = make_run()
    card = write_model_card(run)
    text = card.read_text(encoding="utf-8")
    assert card.name == "MODEL_CARD.md"
    assert not (run / "report.html").exists()
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    for expected in ("Model", "Intended use", "Data", "Limits", "How to cite", "Reporting checklist"):
        assert expected in headings
    assert "{{" not in text


def test_every_markdown_table_has_as_many_cells_in_each_row(make_run):
    for block in re.findall(
        r"(?:^\|.*\n)+", write_model_card(make_run("multiclass")).read_text(encoding="utf-8"), re.M
    ):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_every_figure_on_the_page_is_well_formed(pages):
    for text in pages.values():
        figures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
        assert len(figures) >= 4
        for figure in figures:
            ElementTree.fromstring(figure)


@pytest.mark.parametrize("strategy", ["ttl", "ftl", "frozen", "hybrid", "lwft", "tf", "wtst", "gradual", "scratch"])
def test_methods_cite_each_reference_once_in_the_order_of_the_text(make_run, strategy):
    paragraphs, references = methods(read_run(make_run(changes={"chosen.strategy": strategy})))
    cited = [int(n) for group in re.findall(r"\[([\d, ]+)\]", " ".join(paragraphs)) for n in group.split(",")]
    assert list(dict.fromkeys(cited)) == list(range(1, len(references) + 1))
    assert len(set(references)) == len(references)


def test_methods_tell_where_the_intervals_come_from(finished_runs):
    paragraphs, references = methods(read_run(finished_runs["binary"]))
    text = " ".join(paragraphs)
    assert "AUROC and its differences from DeLong's variance" in text
    assert "with Student's t" in text
    assert any("Obuchowski" in reference for reference in references)


def fold(number):
    cut = {"index": number + 2, "name": f"layer{number}", "num_params": 1, "macs": 1}
    score = {"value": 0.9, "ci95": [0.8, 1.0]}
    facts = {"num_params": 1, "num_cases": 9, "chosen": score, "baseline": score, "verdict": "inconclusive"}
    return {"fold": number, "cut": cut, **facts}


def test_methods_of_folds_speak_of_folds_and_count_what_was_tested(make_run):
    changes = {
        "folds": [fold(1), fold(2)], "test.num_cases": 31, "test.replicates": 500, "splits.images": {"test": 31},
    }  # fmt: skip
    text = " ".join(methods(read_run(make_run(changes=changes)))[0])
    assert "each of the 31 images was tested once, in one of 2 folds" in text
    assert "in every fold by itself. Cuts 3 (layer1), 4 (layer2) were chosen." in text
    assert "on the held-out parts of all folds together" in text
    assert "500 bootstrap replicates" in text
    assert "for training" not in text


def test_a_minus_in_the_verdict_is_a_minus_and_hyphens_stay(make_run):
    changes = {"test.headline": "fine-tuning at cut-3, resnet-18", "test.numbers": "AUROC -0.0010 (-0.0120 to +0.01)"}
    text = page_of(make_run(changes=changes)).text
    assert "fine-tuning at cut-3, resnet-18." in text
    assert "AUROC −0.0010 (−0.0120 to +0.01)." in text


def test_a_name_with_a_colon_does_not_cut_the_verdict(make_run):
    text = page_of(make_run(changes={"test.headline": "The model: of ours is worse", "test.numbers": "a: b"})).text
    assert "The model: of ours is worse." in text
    assert "A: b." in text


def test_the_checklist_fills_in_what_the_run_knows(finished_runs):
    answers = {item.question: item.answer for item in checklist(read_run(finished_runs["binary"])) if item.is_filled}
    assert answers["Random seeds"] == "0, 1"
    assert answers["How the partitions are disjoint"] == "by patient"
    assert "External validation" not in answers


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reused", "frozen", "removed"]),
            st.sampled_from([0.0, 1e-3]),
            st.integers(0, 999),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_joining_blocks_of_a_plan_loses_no_block_and_no_parameter(told):
    blocks = [BlockPlan(name=f"b{k}", treatment=t, lr=lr, num_params=n) for k, (t, lr, n) in enumerate(told)]
    rows = plan_rows(blocks)
    assert sum(row["num_blocks"] for row in rows) == len(blocks)
    for first, second in itertools.pairwise(rows):
        assert (first["treatment"], first["lr"]) != (second["treatment"], second["lr"])
    assert plan_rows(blocks[:1])[0]["num_params"] == fmt.si(told[0][2])


@given(st.text())
def test_escaped_markdown_holds_no_markup(text):
    escaped = escape_markdown(text)
    assert not set(escaped) & set("<>\n\r")
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]|]", escaped)


@given(st.text())
def test_every_line_of_a_code_block_is_indented(text):
    assert all(line.startswith("    ") for line in indent_code(text).split("\n") if line)


def test_the_templates_are_part_of_the_package():
    templates = importlib.resources.files("medgraft.report") / "templates"
    assert {"report.html.j2", "parts.html.j2", "model_card.md.j2", "style.css"} <= {f.name for f in templates.iterdir()}
