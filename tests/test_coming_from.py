"""docs/coming-from.md: every row can be given as it stands, and every flag of the programs has a row."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from style_transfer.networks import layout
from style_transfer.options import parse

DOCUMENT = Path(__file__).parents[1] / "docs" / "coming-from.md"

FLAGS = {
    "style-transfer-pytorch": "-o --output -sw --style-weights --devices -r --random-seed -cw --content-weight -tw --tv-weight "
    "--optimizer -ms --min-scale -s --end-scale -i --iterations -ii --initial-iterations --save-every -ss --step-size "
    "-ad --avg-decay --init --style-scale-fac --style-size --pooling --proof --web --host --port --browser",
    "neural-style": "-style_image -style_blend_weights -content_image -image_size -gpu -multigpu_strategy "
    "-content_weight -style_weight -tv_weight -num_iterations -normalize_gradients -init -init_image -optimizer -learning_rate "
    "-lbfgs_num_correction -print_iter -save_iter -output_image -style_scale -original_colors -pooling -proto_file -model_file "
    "-backend -cudnn_autotune -seed -content_layers -style_layers",
    "neuralart": "--model --style --content --style_factor --num_iters --size --display_interval --smoothness --init --backend "
    "--optimizer --cpu --output_dir",
    "fzliu/style-transfer": "-s -c -g -m -i -r -n -l -v -o",
}
"""Every flag, from the programs' sources."""


def tables() -> dict[str, list[tuple[str, str, str]]]:
    """Return the rows of each section's table."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            rows = found[line[3:]] = []
        elif line.startswith("| ") and not line.startswith("| theirs"):
            theirs, here, result = line.strip("| ").split(" | ")
            rows.append((theirs, here, result))
    return found


ROWS = [row for rows in tables().values() for row in rows]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_can_be_given_as_it_stands(row: tuple[str, str, str]) -> None:
    _, here, result = row
    assert result
    if here == "—":
        return
    given = shlex.split(here.strip("`"))
    _, styles, settings, _ = parse(["content.jpg", "style.jpg", *given])
    assert styles == ["style.jpg"]
    spec = layout(settings)
    spec.check_layers(settings)
    spec.check_split(settings)


@pytest.mark.parametrize("program", FLAGS)
def test_every_flag_has_a_row(program: str) -> None:
    cells = " ".join(theirs for theirs, _, _ in tables()[program])
    there = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", cells))
    assert not set(FLAGS[program].split()) - there
