"""Every notebook runs from top to bottom on the sample data, says little code, and carries no output in git."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MOST_CODE_CELLS = 14
# In `make test`; the others take longer.
FIRST = "01_quickstart"

pytestmark = [
    pytest.mark.timeout(900),
    # Jupyter warns that its kernel talks over a local port without encryption.
    pytest.mark.filterwarnings("ignore:.*"),
]


def code_of(path: Path) -> list[str]:
    """The code cells, without Jupyter's own lines (`%matplotlib inline`)."""
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return [re.sub(r"^%.*$", "", source, flags=re.MULTILINE) for source in cells]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all notebooks, as for a reader who goes through them: what one has computed the next need not."""
    return tmp_path_factory.mktemp("notebooks")


def test_all_six_are_there() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_a_text_about_results_not_a_program(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = code_of(path)
    assert 3 <= len(code) <= MOST_CODE_CELLS
    for cell in code:
        nodes = list(ast.walk(ast.parse(cell)))
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While) for node in nodes), (
            cell
        )
        assert not re.search(r"for .* in .*(rows|columns|positions)", cell), f"a loop over positions: {cell}"
        assert not re.search(r"[\"'](/|[A-Z]:\\)", cell), f"a path of one machine: {cell}"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem == FIRST else pytest.mark.slow) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_it_runs_from_top_to_bottom(path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(workplace)}})
    client.execute()
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2, "a notebook shows what it talks about"
    said = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream"]
    assert not [o.text for o in said if o.name == "stderr" and "Warning" in o.text]
