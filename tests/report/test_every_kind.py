"""Every kind of page, made from real results: no column of dashes, no empty heading, no word of another task."""

import html.parser
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.axes import Axes

import figures
from kinds import HOSTILE, KINDS, PAGES
from medgraft.report import write_analysis, write_comparison, write_report

DASHES = {"", "–", "-", "—"}
OF_MASKS = ("Dice", "HD95", "Surface", "observer", "decoder", "patch of")
OF_LABELS = ("AUROC", "AUPRC", "Brier", "Sensitivity", "Operating point", "Confusion", "ROC")
LEFTOVERS = re.compile(
    r"\bNone\b|\bnan\b|\bNaN\b|\{\}|\[\]|\{\{|\}\}|\{%|%\}|\bundefined\b|dataclass|Estimate\("
    # An interval of something that is not there.
    r"|– [(\[][\d−+]"
)
HEADINGS = {"h1": 1, "h2": 2, "h3": 3}


class Page(html.parser.HTMLParser):
    """The tables, headings and words of a page as a reader meets them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, int]]]] = []
        self.parts: list[tuple[str, str]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", int(dict(attrs).get("colspan") or 1)))
        if tag in HEADINGS or tag in ("svg", "img", "td"):
            self.parts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self.stack or not data.strip():
            return
        inside = [tag for tag in self.stack if tag in ("td", "th")]
        if inside and self.tables and self.tables[-1]:
            text, span = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (f"{text} {data.strip()}".strip(), span)
        heading = [tag for tag in self.stack if tag in HEADINGS]
        if heading and self.parts and self.parts[-1][0] == heading[-1]:
            self.parts[-1] = (heading[-1], f"{self.parts[-1][1]}{data}")
        elif "svg" not in self.stack:
            self.parts.append(("text", data.strip()))
        self.words.append(data.strip())

    @property
    def text(self) -> str:
        """Everything that is read, figures included."""
        return "\n".join(self.words)


def columns_of(table: list[list[tuple[str, int]]]) -> Iterator[tuple[str, list[str]]]:
    """Heading and cells of every column; a cell over several columns stands in each."""
    rows = [[cell for cell, span in row for _ in range(span)] for row in table]
    width = max(len(row) for row in rows)
    for number in range(width):
        column = [row[number] for row in rows if number < len(row)]
        yield column[0], column[1:]


def markdown_tables(card: str) -> list[list[list[tuple[str, int]]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE)
    rows = [[line for line in block.splitlines() if not re.fullmatch(r"[|:\-\s]+", line)] for block in blocks]
    return [
        [[(cell.strip(), 1) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        for lines in rows
        if lines
    ]


class OutsideError(AssertionError):
    """A figure has a mark where nobody sees it."""


def demand_inside(axes: Axes) -> None:
    """Every mark of a line that is drawn in the data's own units lies within its axes, and no line is of one point."""
    limits = np.sort([axes.get_xlim(), axes.get_ylim()], axis=1)
    for line in axes.get_lines():
        if line.get_transform() != axes.transData:
            continue
        if line.get_marker() in (None, "None", "", " "):
            if len(line.get_data()[0]) == 1:
                raise OutsideError(f"{axes.get_title()!r} {line.get_label()!r}: a line through one point is not seen")
            continue
        points = np.column_stack(line.get_data()).astype(float)
        points = points[np.isfinite(points).all(1)]
        wrong = points[((points < limits[:, 0] - 1e-9) | (points > limits[:, 1] + 1e-9)).any(1)]
        if len(wrong):
            raise OutsideError(f"{axes.get_ylabel()!r} {line.get_label()!r}: {wrong[:3]} outside {limits.tolist()}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", params=KINDS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, home: Path) -> tuple[str, Path, str]:
    """Kind, folder and page; the figures are looked at while they are drawn."""
    drawn: list[int] = []
    save = matplotlib.figure.Figure.savefig

    def looked_at(self: matplotlib.figure.Figure, *args: object, **named: object) -> None:
        for axes in self.axes:
            demand_inside(axes)
        drawn.append(len(self.axes))
        save(self, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGRAFT_HOME", str(home / request.param))
        with figures.left_out():
            run = KINDS[request.param](tmp_path_factory.mktemp(request.param))
        patch.setattr(matplotlib.figure.Figure, "savefig", looked_at)
        write = {"comparison": write_comparison, "analysis_of_a_cohort": write_analysis}.get(
            request.param, write_report
        )
        text = write(run).read_text(encoding="utf-8")
    assert drawn
    return request.param, run, text


def cards_and_pages(page: tuple[str, Path, str]) -> Iterator[tuple[str, str]]:
    kind, run, text = page
    yield "page", Page(text).text
    if kind not in PAGES:
        yield "card", (run / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_no_table_has_a_column_of_dashes(page: tuple[str, Path, str]) -> None:
    kind, run, text = page
    tables = Page(text).tables
    if kind not in PAGES:
        tables += markdown_tables((run / "MODEL_CARD.md").read_text(encoding="utf-8"))
    assert tables
    for table in tables:
        assert len(table) > 1, table
        for heading, cells in columns_of(table):
            # A column without a heading marks rows; it may be empty.
            assert not heading or set(cells) - DASHES, (heading, table[:3])


def test_no_heading_stands_over_nothing(page: tuple[str, Path, str]) -> None:
    parts = Page(page[2]).parts
    for (tag, title), following in zip(parts, [*parts[1:], ("end", "")], strict=True):
        if tag in HEADINGS:
            assert title.strip()
            is_next = following[0] in HEADINGS and HEADINGS[following[0]] <= HEADINGS[tag]
            assert following[0] != "end", title
            assert not is_next, title


def test_nothing_of_the_program_is_left_in_the_text(page: tuple[str, Path, str]) -> None:
    for name, text in cards_and_pages(page):
        found = LEFTOVERS.search(text.replace(HOSTILE, ""))
        assert found is None, (name, text[max(0, found.start() - 60) : found.end() + 60])


def test_no_word_of_another_task_is_said(page: tuple[str, Path, str]) -> None:
    kind = page[0]
    strange = OF_LABELS if "masks" in kind else OF_MASKS
    for name, text in cards_and_pages(page):
        said = [word for word in strange if word in text]
        assert said == [], (name, said)


def test_only_what_was_drawn_is_called_a_phantom(page: tuple[str, Path, str]) -> None:
    is_drawn = page[0] in ("demonstration", "volumes")
    for name, text in cards_and_pages(page):
        assert ("phantom" in text.lower().replace("phantom/", "")) == is_drawn or page[0] in PAGES, name


def test_classes_are_told_apart_where_there_are_several(page: tuple[str, Path, str]) -> None:
    kind, _, text = page
    if kind in PAGES or kind in ("binary", "analysis", "units", "volumes", "masks", "folds_of_masks"):
        assert "Class by class" not in text
        return
    tables = [table for table in Page(text).tables if table[0][0][0] == "Class" and table[0][1][0] == "Model"]
    heads = [cell for cell, _ in tables[0][0]]
    wanted = ["Mean Dice", "HD95"] if kind == "several_masks" else ["AUROC", "AUPRC"]
    if "masks" not in kind and kind != "folds":
        wanted += ["Sensitivity", "Specificity"]
    assert set(wanted) <= set(heads)
    assert all(
        "(" in cell for row in tables[0][1:] for (cell, _), head in zip(row, heads, strict=True) if head in wanted
    )


def test_a_hostile_class_is_printed_and_never_run(page: tuple[str, Path, str]) -> None:
    if page[0] == "multiclass":
        assert HOSTILE in Page(page[2]).text
    assert "<script" not in page[2]
