"""`gradwitness explain`: what it prints, what it draws, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gradwitness import ops
from gradwitness.cli import cli
from gradwitness.explain import explain as explained
from gradwitness.networks import NETWORKS, network
from gradwitness.problem import Problem
from gradwitness.report.drawing import svg
from gradwitness.report.layout import Place, lay_out
from tests.explain.truth import BY_Y, DIGITS, GRADIENTS, LOSS, H, Y, Z
from tests.project.test_imports import imported

DOCUMENT = Path(__file__).parents[2] / "docs" / "explain.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")
SVG = "{http://www.w3.org/2000/svg}"
each_network = pytest.mark.parametrize("name", NETWORKS)


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *arguments])


def test_every_number_of_the_example_is_printed() -> None:
    printed = np.array([float(n) for n in NUMBER.findall(explain("article").output)])
    for expected in np.concatenate([np.ravel(v) for v in (Z, H, Y, LOSS, BY_Y, *GRADIENTS.values())]):
        assert np.min(np.abs(printed - expected)) <= DIGITS * abs(expected), expected


def test_the_document_quotes_the_output() -> None:
    """Word for word, and number for number to twelve digits: the last ones may depend on the machine."""
    blocks = re.findall(r"^```\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    whole, step = (block for block in blocks if len(block.splitlines()) > 1)
    stepped = explain("article", "--step", "0.1").output
    taken = stepped[stepped.index("A STEP") : stepped.index("PUBLISHED")]
    for printed, quote in ((explain("article").output, whole), (taken, step)):
        assert words(printed) == words(quote)
        np.testing.assert_allclose(figures(printed), figures(quote), rtol=DIGITS)


def words(text: str) -> str:
    """The text without its numbers, and without the alignment that follows from their lengths."""
    return re.sub(r"[\s-]+", " ", NUMBER.sub("#", text)).strip()


def figures(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize(
    "pattern",
    [
        r"sigmoid\[0,1\]: -0\.8987331965625\d* \* -0\.3 = 0\.2696199589687\d*\n",
        r"add\[0,0\]: -0\.3594932786250\d* \* 0\.2482024146180\d* = -0\.0892270997937\d*\n",
        r"hidden\.weight\[0,1\]  0\.5 +0\.0333336389399\d* +0\.03333 +down\n",
        r"hidden\.weight\[0,0\]  0\.3 +-0\.0446135498968\d* +-0\.04461 +up\n",
        r"dL/dw_out, neuron 2 +-0\.4963 +-0\.4964 +-0\.4963774530585\d* +decimal 4: 3, not 4\n",
        r"5 to 10 +6\.8 to 14\.9 .* 5, not 6\.8; 10, not 14\.9\n",
    ],
)
def test_the_text_has(pattern: str) -> None:
    assert re.search(pattern, explain("article").output)


def test_only_the_article_has_published_numbers() -> None:
    assert "PUBLISHED" not in explain("mlp").output


def test_sums_of_several_consumers_are_shown() -> None:
    output = explain("residual_mlp").output
    assert re.search(r"the sum of what its 2 consumers send:\n +\S+ sends", output)


@each_network
def test_every_network_is_explained_stepped_and_drawn(name: str, tmp_path: Path) -> None:
    file = tmp_path / "graph.svg"
    result = explain(name, "--step", "1e-4", "--svg", str(file), "--seed", "1")
    assert result.exit_code == 0, result.output
    assert "A STEP at rate 0.0001" in result.output
    root = ElementTree.parse(file).getroot()
    assert root.tag == f"{SVG}svg"
    drawn = {text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"}
    assert drawn == {visit.name for visit in explained(network(name, seed=1)).visits}


def test_the_drawing_has_values_above_and_gradients_below() -> None:
    root = ElementTree.fromstring(svg(explained(network("article"))))
    weight = next(
        edge for edge in root.iter(f"{SVG}g") if edge.get("class") == "edge" and "0.3, 0.5" in (t.text for t in edge)
    )
    heights = {text.text: float(text.get("y", "nan")) for text in weight.iter(f"{SVG}text")}
    level = float(re.findall(r"L \S+ (\S+)", str(weight[0].get("d")))[0])
    above, below = ["0.3, 0.5", "-0.1, 0.2"], ["-0.04461, 0.03333", "-0.07138, 0.05333"]
    assert sorted(heights, key=heights.__getitem__) == [*above, *below]
    assert heights[above[1]] < level < heights[below[0]]


@each_network
def test_no_box_of_the_drawing_covers_another(name: str) -> None:
    root = ElementTree.fromstring(svg(explained(network(name))))
    groups = [g for g in root.iter(f"{SVG}g") if str(g.get("class")).startswith("node")]
    boxes = [[float(rect.get(key, "nan")) for key in ("x", "y", "width", "height")] for g in groups for rect in [g[1]]]
    for i, (x, y, width, height) in enumerate(boxes):
        for x2, y2, width2, height2 in boxes[i + 1 :]:
            apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
            assert apart


def test_names_are_escaped() -> None:
    def loss(params: Any, batch: Any) -> Any:
        return ops.sum(params["<&>"])

    root = ElementTree.fromstring(svg(explained(Problem("loss", loss, {"<&>": np.ones(2)}, {})), 'a "<title>" & more'))
    assert "<&>" in {text.text for text in root.iter(f"{SVG}text")}


def test_a_layout_of_one_node() -> None:
    layout = lay_out({"only": Place((), 10.0, 10.0, {"": 20.0}, 30.0)})
    assert layout.centers["only"][1] >= 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "unknown network 'nonsense'; there is: article, batchnorm_mlp"),
        (["article", "--step", "0"], "'--step': the rate must be positive and finite, got 0"),
        (["article", "--step", "-0.1"], "positive and finite, got -0.1"),
        (["article", "--step", "nan"], "positive and finite, got nan"),
        (["article", "--step", "fast"], "'fast' is not a valid float"),
        (
            ["article", "--svg", "no/such/folder/graph.svg"],
            "graph.svg: cannot be written: the folder no/such/folder",
        ),
        (["article", "--seed", "soon"], "expected a whole number or 'random'"),
        ([], "Missing argument 'NETWORK'"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_message(arguments: list[str], says: str) -> None:
    result = explain(*arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.count("Error: ") == 1
    assert "FORWARD" not in result.output


def test_a_drawing_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "graph.svg"
    file.write_text("before")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = explain("article", "--svg", str(file))
    assert result.exit_code == 2
    assert "cannot be written: No space left on device" in result.output
    assert file.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["graph.svg"]


def test_explaining_imports_no_framework() -> None:
    code = "import sys; sys.argv = ['gradwitness', 'explain', 'mlp']; from gradwitness.__main__ import main; main()"
    assert imported(code, "torch", "jax") == set()


def test_help_does_not_import_what_explains() -> None:
    code = "import sys; sys.argv = ['gradwitness', 'explain', '--help']; from gradwitness.__main__ import main; main()"
    assert imported(code, "gradwitness.explain", "gradwitness.networks", "tabulate", "scipy") == set()


def test_from_the_shell() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradwitness", "explain", "article"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("article: Two inputs, two sigmoid neurons")
    assert done.stderr == ""


def test_a_problem_of_ones_own_is_explained_and_what_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nimport gradwitness as gw\nfrom gradwitness import ops\n"
        "loss = lambda p, b: ops.sum(p['w'] * b['x'])\n"
        "problem = gw.Problem('mine', loss, {'w': np.ones(2)}, {'x': np.array([3.0, 4.0])})\n"
        "def check(): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    found = explain("mine.py:problem", "--step", "0.1")
    assert found.exit_code == 0, found.output
    assert {"7", "0.7", "0.6"} <= set(NUMBER.findall(found.output))
    refused = explain("mine.py:check")
    assert refused.exit_code == 2
    assert "explain takes a network (`gradwitness list networks`), or a gradwitness.Problem" in " ".join(
        refused.output.split()
    )
    said = " ".join(explain("mine.py:typo").output.split())
    assert "its functions: check; its functions with arguments: loss" in said
