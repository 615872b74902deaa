"""One HTML page per context: optuna's plotly pictures and a heat map, with plotly's code inside."""

from __future__ import annotations

import html
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import MissingLibrary
from autotune.figures import Figure
from autotune.plots.data import Grid, Tuned
from nkilite.plain import plain

try:
    import plotly.graph_objects as go
    from optuna import visualization
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise MissingLibrary(library="plotly", problem=str(error)) from None

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; color: #222; }}
h1 {{ font-size: 1.4em; }} h2 {{ font-size: 1.1em; margin-top: 2em; }}
td, th {{ padding: 0 1em 0 0; text-align: left; }}
</style>
<script>{library}</script></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write(tuned: Tuned, stem: Path, axes: Sequence[str]) -> list[Path]:
    """The page of a context; it needs no network."""
    parts = [f"<p>{_text(_account(tuned))}</p>"]
    for figure in tuned.figures:
        parts.append(f"<h2>{_text(figure.title)}</h2>")
        parts += [_embedded(p) for p in _pictures(tuned, figure, axes)]
    if tuned.fronts is not None:
        parts.append("<h2>Pareto front</h2>")
        parts.append(_embedded(_front(*tuned.fronts)))
    if tuned.rejections.total:
        parts.append("<h2>Rejected configurations</h2>")
        rows = [
            f"<tr><td>{_text(reason.value)}</td><td>{count}</td>"
            f"<td>{_text((tuned.rejections.examples[reason].splitlines() or [''])[0])}</td></tr>"
            for reason, count in tuned.rejections.counts.items()
        ]
        parts.append(f"<table><tr><th>reason</th><th>count</th><th>for example</th></tr>{''.join(rows)}</table>")
    path = stem.with_name(f"{stem.name}.html")
    page = _PAGE.format(title=_text(tuned.title), library=get_plotlyjs(), body="\n".join(parts))
    path.write_text(page, encoding="utf-8")
    return [path]


def _text(text: str) -> str:
    """Text as HTML."""
    return html.escape(plain(text))


def _account(tuned: Tuned) -> str:
    context = tuned.context
    where = f", measured on {context.cpu}" if context.cpu else ""
    counts = f"{len(tuned.rows)} accepted and {tuned.rejections.total} rejected configurations"
    return f"{counts}; objective {context.objective}, target {context.target}{where}; nkilite {context.nkilite}."


def _embedded(picture: Any) -> str:
    picture.update_layout(template="plotly_white", margin={"t": 60})
    return str(_as_text(picture).to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False}))


def _as_text(picture: Any) -> Any:
    """The picture with every string in it as text: plotly takes some HTML in strings, such as links, for markup."""
    return go.Figure(_escaped(picture.to_plotly_json()), skip_invalid=True)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return html.escape(plain(value).replace("<br>", "\n"), quote=False).replace("\n", "<br>")  # optuna's own breaks
    if isinstance(value, dict):
        return {name: v if name in _NOT_SHOWN else _escaped(v) for name, v in value.items()}
    return [_escaped(v) for v in value] if isinstance(value, (list, tuple)) else value


_NOT_SHOWN = {"template", "hovertemplate", "texttemplate"}


def _pictures(tuned: Tuned, figure: Figure, axes: Sequence[str]) -> list[Any]:
    study, name = tuned.study(figure), figure.title
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optuna's, about its own experimental parts
        history = visualization.plot_optimization_history(study, target_name=name)
        history.update_layout(title="Optimization history", xaxis_title="accepted configuration, in order")
        found = [history]
        if tuned.everywhere:
            parallel = visualization.plot_parallel_coordinate(study, params=tuned.everywhere, target_name=name)
            parallel.update_layout(title="Parallel coordinates")
            importance = visualization.plot_param_importances(study, params=tuned.everywhere, target_name=name)
            importance.update_layout(title="Importance of parameters", xaxis_title=f"importance for {name}")
            found += [parallel, importance]
    grid = tuned.grid(figure, axes)
    return found if grid is None else [*found, _heat_map(grid, figure)]


def _front(figures: Sequence[Figure], study: Any) -> Any:
    picture = visualization.plot_pareto_front(study, target_names=[f.title for f in figures])
    picture.update_layout(title="Pareto front", height=700 if len(figures) == 3 else 500)
    return picture


def _heat_map(grid: Grid, figure: Figure) -> Any:
    columns, rows = [str(v) for v in grid.columns], [str(v) for v in grid.rows] if grid.y else [""]
    text = [["" if v is None else f"{v:.4g}" for v in row] for row in grid.cells]
    picture = go.Figure(
        go.Heatmap(
            x=columns, y=rows, z=grid.cells, text=text, texttemplate="%{text}", colorscale="Viridis_r",
            colorbar={"title": {"text": figure.title, "side": "right"}}, hoverongaps=False,
        )
    )
    picture.update_layout(
        title="Heat map: best over all other parameters, empty where nothing was accepted",
        xaxis={"title": grid.x, "type": "category"}, yaxis={"title": grid.y, "type": "category"},
    )
    return picture
