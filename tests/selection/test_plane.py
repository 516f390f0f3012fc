"""The figure of the NOD–DON plane."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from donod_fast.errors import InputError, StoreError
from donod_fast.selection.plane import draw_plane

pytest.importorskip("matplotlib")


def plane(count: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    nod = torch.rand(count, generator=generator, dtype=torch.float64) * 1e-2
    don = torch.randn(count, generator=generator, dtype=torch.float64) * 1e-5
    return don, nod, nod < 3e-3


def words(svg: Path) -> str:
    """The figure's strings: matplotlib leaves each, drawn as shapes, in a comment."""
    text = svg.read_text(encoding="utf-8")
    return " | ".join(part.partition("-->")[0].strip() for part in text.split("<!--")[1:])


def test_a_png_and_an_svg_are_written(tmp_path: Path) -> None:
    for name, begin in (("plane.png", b"\x89PNG"), ("plane.SVG", b"<?xml")):
        draw_plane(*plane(), tmp_path / name, title="a title")
        assert (tmp_path / name).read_bytes().startswith(begin)
    assert len(list(tmp_path.iterdir())) == 2


def test_axes_are_named_and_the_legend_counts_scored_rows(tmp_path: Path) -> None:
    don, nod, kept = plane()
    don[:10] = math.nan
    planted = torch.zeros(200, dtype=torch.bool)
    planted[5:30] = True
    draw_plane(don, nod, kept, tmp_path / "p.svg", title="Kept by TOPSIS", groups={"words shuffled": planted})
    said = words(tmp_path / "p.svg")
    scored = don.isfinite()
    assert f"kept: {int((kept & scored).sum())}" in said
    assert f"dropped: {int((~kept & scored).sum())}" in said
    assert f"words shuffled: | {int((planted & scored & ~kept).sum())} of 20 dropped" in said
    for part in ("NOD = ‖W − W′‖", "DON = ‖W‖ − ‖W′‖", "units of 10⁻⁵", "Kept by TOPSIS"):
        assert part in said


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_a_single_place_in_the_plane_can_be_drawn(tmp_path: Path, count: int, value: float) -> None:
    column = torch.full((count,), value)
    for kept in (torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)):
        draw_plane(column, column, kept, tmp_path / "p.png", groups={"none": ~kept & kept})


def test_each_axis_says_which_end_is_better(tmp_path: Path) -> None:
    draw_plane(*plane(), tmp_path / "p.svg")
    labels = words(tmp_path / "p.svg").split(" | ")
    assert any(label.startswith("← lower is better") and "NOD" in label for label in labels)
    assert any(label.endswith("higher is better →") and "DON" in label for label in labels)


def drawn_colours(don: Tensor, nod: Tensor, kept: Tensor, path: Path) -> tuple[int, int]:
    """How many pixels of the plane are blue (kept) and orange (dropped), away from legend and margins."""
    from matplotlib.image import imread

    draw_plane(don, nod, kept, path)
    pixels = torch.from_numpy(imread(path)[..., :3].copy())
    height, width = pixels.shape[:2]
    pixels = pixels[height // 4 : height * 3 // 4, width // 6 : width * 3 // 4]
    red, blue = pixels[..., 0], pixels[..., 2]
    return int((blue > red + 0.1).sum()), int((red > blue + 0.1).sum())


def test_points_of_one_fate_do_not_hide_the_other(tmp_path: Path) -> None:
    places = torch.randn(2, 500, generator=torch.Generator().manual_seed(1))
    don, nod = torch.cat([places, places], dim=1)
    kept = torch.arange(1000) < 500  # a kept and a dropped row at every place
    blue, orange = drawn_colours(don, nod, kept, tmp_path / "p.png")
    assert 0.5 < blue / orange < 2.0


def test_a_density_of_one_fate_does_not_hide_the_other(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    don, nod = torch.randn(2, 20_000, generator=generator)
    kept = torch.rand(20_000, generator=generator) < 0.5
    blue, orange = drawn_colours(don, nod, kept, tmp_path / "p.png")
    assert 0.5 < blue / orange < 2.0


def test_a_far_row_does_not_squeeze_the_others_and_is_counted(tmp_path: Path) -> None:
    don, nod, kept = plane(5_000)
    don[0] = 1.0
    draw_plane(don, nod, kept, tmp_path / "p.svg")
    said = words(tmp_path / "p.svg")
    assert "units of 10⁻⁵" in said
    beyond = int(said.partition("drawn at the edge: ")[2].split(" ")[0])
    assert 1 <= beyond <= 11


def test_a_million_rows_and_large_groups_are_drawn(tmp_path: Path) -> None:
    don, nod, kept = plane(1_000_000)
    draw_plane(don, nod, kept, tmp_path / "p.svg", groups={"high": nod > 5e-3, "none": nod < 0})
    assert "none: | 0 of 0 dropped" in words(tmp_path / "p.svg")
    assert (tmp_path / "p.svg").stat().st_size < 2_000_000


def test_many_points_do_not_make_a_huge_svg(tmp_path: Path) -> None:
    draw_plane(*plane(50_000), tmp_path / "p.svg")
    assert (tmp_path / "p.svg").stat().st_size < 2_000_000


def test_a_figure_is_replaced_and_a_missing_folder_reported(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_text("old")
    draw_plane(*plane(), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(StoreError, match="its folder does not exist"):
        draw_plane(*plane(), tmp_path / "absent" / "p.png")


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r'pip install "donod-fast\[plot\]"'):
        draw_plane(*plane(), tmp_path / "p.png")


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    don, nod, kept = plane()
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        draw_plane(don, nod, kept, tmp_path / "p.pdf")
    with pytest.raises(InputError, match="kept_mask"):
        draw_plane(don, nod, kept.long(), tmp_path / "p.png")
    with pytest.raises(InputError, match="odd"):
        draw_plane(don, nod, kept, tmp_path / "p.png", groups={"odd": kept[:5]})
    with pytest.raises(InputError, match="one shape"):
        draw_plane(don, nod[:5], kept, tmp_path / "p.png")
    with pytest.raises(InputError, match="no sample"):
        draw_plane(don * math.nan, nod, kept, tmp_path / "p.png")
    with pytest.raises(InputError, match="at most 8"):
        draw_plane(don, nod, kept, tmp_path / "p.png", groups={str(number): kept for number in range(9)})
