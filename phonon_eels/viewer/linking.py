"""How a panel and the image speak to each other: position under the mouse, clicks, chosen positions. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from phonon_eels.viewer.layers import (
    KEY,
    Layer,
    first_layers,
    layers_of,
    names_to_come,
    placed,
    selection_layer,
    session_of,
)
from phonon_eels.viewer.sessions import Session

LAYERS_DELAY_MS = 30
"""Layers come in dozens: panels look at them once all are there."""
SELECTION = "selected positions"
REGIONS = "regions"
PINS = "pinned positions"


@dataclass(frozen=True, eq=False)
class Place:
    """A position of a scan."""

    session: Session
    row: int
    column: int


def world_nm(values: Any) -> tuple[float, float]:
    """Return the last two world coordinates: rows and columns, in nm."""
    row, column = tuple(values)[-2:]
    return float(row), float(column)


def find_layer(viewer: Any, wanted: Layer) -> Any:
    """Return the layer of the viewer that shows the same as a layer of ours, None where it was not added."""
    entry = wanted[1]["metadata"][KEY]
    for layer in viewer.layers:
        found = getattr(layer, "metadata", {}).get(KEY)
        if found and all(found.get(key) == entry.get(key) for key in ("session", "step", "name", "mode")):
            return layer
    return None


class ViewerLink:
    """A panel's ear on the image. `close` takes it off, whatever became of the panel."""

    def __init__(
        self,
        viewer: Any,
        *,
        on_move: Callable[[Place], None] | None = None,
        on_click: Callable[[Place, bool], None] | None = None,
        on_label: Callable[[Place, str], None] | None = None,
        on_layers: Callable[[], None] | None = None,
        visibility: bool = False,
    ) -> None:
        """Listen to a viewer.

        Parameters
        ----------
        on_move
            Called with the place under the mouse.
        on_click
            Called with the place and whether shift was held.
        on_label
            Called with the place and the word of the label there, when it is clicked with control held.
        on_layers
            Called when layers came or went, or another one became the active one.
        visibility
            Also call `on_layers` when a layer is shown or hidden.
        """
        self.viewer, self._visibility = viewer, visibility
        self._on_move, self._on_click, self._on_label, self._on_layers = on_move, on_click, on_label, on_layers
        self._open = True
        viewer.mouse_move_callbacks.append(self._moved)
        viewer.mouse_drag_callbacks.append(self._pressed)
        for event in self._layer_events():
            event.connect(self._layers_changed)

    def close(self, *_: Any) -> None:
        """Stop listening."""
        if not self._open:
            return
        self._open = False
        for callbacks, mine in (
            (self.viewer.mouse_move_callbacks, self._moved),
            (self.viewer.mouse_drag_callbacks, self._pressed),
        ):
            if mine in callbacks:
                callbacks.remove(mine)
        for event in self._layer_events():
            event.disconnect(self._layers_changed)

    def _layer_events(self) -> tuple[Any, ...]:
        layers = self.viewer.layers
        shown = [layer.events.visible for layer in layers] if self._visibility else []
        return layers.events.inserted, layers.events.removed, layers.selection.events.active, *shown

    def session(self) -> Session | None:
        """Return the session of the active layer, else that of the topmost one that has one."""
        active = session_of(self.viewer.layers.selection.active)
        if active is not None:
            return active
        return next((found for layer in reversed(self.viewer.layers) if (found := session_of(layer))), None)

    def place_at(self, world: Any) -> Place | None:
        """Return the position of the current session at world coordinates, None outside of it."""
        session = self.session()
        position = None if session is None else session.position_at(*world_nm(world))
        return None if session is None or position is None else Place(session, *position)

    def _moved(self, viewer: Any, event: Any) -> None:
        place = self.place_at(event.position) if self._on_move else None
        if place is not None and self._on_move:
            self._on_move(place)

    def _pressed(self, viewer: Any, event: Any) -> Iterator[None]:
        """A press that is not a drag is a click, unless a tool of the active layer takes it."""
        where, button = tuple(event.position), event.button
        modifiers = {
            getattr(key, "name", key) for key in event.modifiers
        }  # VisPy's keys are no strings, but have a name
        yield
        while event.type == "mouse_move":
            if np.hypot(*(np.array(world_nm(event.position)) - world_nm(where))) > self._step_nm():
                return
            yield
        active = viewer.layers.selection.active
        if button != 1 or str(getattr(active, "mode", "pan_zoom")) != "pan_zoom":
            return
        place = self.place_at(where)
        if place is None:
            return
        if "Control" in modifiers:
            self._clicked_label(place)
        elif self._on_click:
            self._on_click(place, "Shift" in modifiers)

    def _step_nm(self) -> float:
        session = self.session()
        return 0.5 * min(session.scale_nm) if session is not None else 0.0

    def _clicked_label(self, place: Place) -> None:
        from phonon_eels.figures.maps import flag_names

        maps = place.session.maps("assign_layers")
        if self._on_label is None or maps is None or "layer" not in maps:
            return
        word = flag_names(maps["layer"]).get(int(maps["layer"].values[place.row, place.column]))
        if word is not None:
            self._on_label(place, word)

    def _layers_changed(self, event: Any = None) -> None:
        if event is not None and event.type == "inserted" and self._visibility:
            event.value.events.visible.connect(self._layers_changed)
        if self._on_layers:
            self._on_layers()

    def layer(self, session: Session, step: str, name: str) -> Any:
        """Return the layer that shows something of a session, None where there is none."""
        for layer in self.viewer.layers:
            entry = getattr(layer, "metadata", {}).get(KEY)
            if entry and entry["session"] is session and (entry["step"], entry["name"]) == (step, name):
                return layer
        return None

    def show(self, layer: Layer, active: Any = None) -> Any:
        """Add a layer without making it the active one."""
        data, keywords, kind = layer
        before = active or self.viewer.layers.selection.active
        added = getattr(self.viewer, f"add_{kind}")(data, **keywords)
        if before is not None and before in self.viewer.layers:
            self.viewer.layers.selection.active = before
        return added

    def show_session(self, session: Session) -> None:
        """Show a session: its first layers, and those that were visible, in place of those of its earlier results, or of the file that they are made from.

        Its other maps are then to come, save for those that the user took away.
        """
        old: list[Any] = []
        for layer in self.viewer.layers:
            found = session_of(layer)
            if found is None or not _same_scan(found, session):
                continue
            entry = layer.metadata[KEY]
            if entry["step"] in (PINS, REGIONS):  # drawn by the user
                entry["session"] = session
            else:
                old.append(layer)
        shown = {layer.name for layer in old if layer.visible}
        before = {
            found: names_to_come(found, found.to_come) for layer in old if (found := session_of(layer)) is not None
        }
        taken_away = {name for names in before.values() for name in names} - {layer.name for layer in old}
        first = {keywords["name"] for _, keywords, _ in first_layers(session)}
        layers = [layer for layer in layers_of(session) if layer[1]["name"] in first | shown]
        added = [self.show(layer) for layer in layers]
        for layer in old:
            self.viewer.layers.remove(layer)
        for layer in added:
            layer.name = layer.name.rpartition(" [")[0] or layer.name
            layer.visible = layer.visible or layer.name in shown
        session.to_come[:] = names_to_come(session, first | shown | taken_away)
        if added:
            self.viewer.layers.selection.active = added[-1]

    def raise_map(self, layer: Any) -> None:
        """Show a map above the other maps, and below what is marked on them."""
        layers = self.viewer.layers
        above = [k for k, other in enumerate(layers) if type(other).__name__ == "Image" and other.visible]
        if above and above[-1] > layers.index(layer):
            layers.move(layers.index(layer), above[-1] + 1)

    def show_selection(self, session: Session, mask: np.ndarray) -> None:
        """Light up positions; an empty mask takes the layer away."""
        layer = self.layer(session, "selection", "selection")
        if not mask.any():
            if layer is not None:
                self.viewer.layers.remove(layer)
        elif layer is None:
            self.show(
                selection_layer(session, mask, SELECTION)
            ).contour = 1  # a ring: the values within stay to be seen
        else:
            layer.data = mask.astype(np.uint8)
            layer.visible = True

    def show_points(self, places: list[tuple[Place, str]]) -> None:
        """Mark pinned positions in their colours; none takes the layer away."""
        layer = next((layer for layer in self.viewer.layers if layer.metadata.get(KEY, {}).get("step") == PINS), None)
        if not places:
            if layer is not None:
                self.viewer.layers.remove(layer)
            return
        session = places[0][0].session
        scale = session.scale_nm
        row, column = session.image.scan
        data = [[row.offset_nm + p.row * scale[0], column.offset_nm + p.column * scale[1]] for p, _ in places]
        if layer is None:
            keywords = {
                "name": PINS,
                "units": ("nm", "nm"),
                "axis_labels": ("row", "column"),
                "size": 3.0 * min(scale),
                "symbol": "cross",
                "metadata": {KEY: {"session": session, "step": PINS, "name": PINS, "unit": ""}},
                "border_width": 0.12,
                "border_color": "white",
            }
            layer = self.show((np.array(data), keywords, "points"))
        else:
            layer.data = np.array(data)
        layer.face_color = [colour for _, colour in places]

    def regions_layer(self, session: Session) -> Any:
        """Return the layer that regions are drawn in, made where there is none."""
        for layer in self.viewer.layers:
            if type(layer).__name__ == "Shapes":
                return layer
        keywords = placed(session, REGIONS, REGIONS)
        keywords |= {
            "name": REGIONS, "scale": (1.0, 1.0), "translate": (0.0, 0.0), "edge_width": min(session.scale_nm),
            "edge_color": "#E69F00", "face_color": [0.9, 0.62, 0.0, 0.15], "ndim": 2,
        }  # fmt: skip
        return self.show((None, keywords, "shapes"))


def _same_scan(old: Session, new: Session) -> bool:
    """Say whether a session shows the same results, or the file that the other's results were made from."""
    if old.folder is not None:
        return old.folder == new.folder
    return old.source is not None and old.source == new.source and old.shape == new.shape
