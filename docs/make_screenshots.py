"""Make the pictures of the viewer in docs/images: a real napari window of 1366 × 768, the sample data in it.

    python docs/make_screenshots.py [--results results/bi2212_modulated]

The results are those of `make run`; where they are missing, the sample is analysed first. Without a screen it starts Xvfb.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs" / "images"
SIZE = (1366, 768)
LARGEST_BYTES = 400_000


def main() -> int:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results" / "bi2212_modulated")
    parser.add_argument("--images", type=Path, default=IMAGES)
    options = parser.parse_args()
    start_screen()
    if not (options.results / "measure_modulation" / "summary.json").is_file():
        from phonon_eels import pipeline

        sample = REPOSITORY / "sample_data" / "bi2212_modulated.hspy"
        pipeline.run(sample, options.results.parent, dataset=options.results.name)
    warnings.simplefilter("ignore")
    for name, size in Camera(options.results, options.images).take_all():
        print(f"{name}: {size / 1000:.0f} kB")
        if size > LARGEST_BYTES:
            print(f"{name} is larger than {LARGEST_BYTES / 1000:.0f} kB")
            return 1
    return 0


def start_screen() -> None:
    """Start a virtual screen where there is none; it ends with its last client."""
    if os.environ.get("DISPLAY"):
        return
    reader, writer = os.pipe()
    words = f"Xvfb -displayfd {writer} -terminate -screen 0 {SIZE[0]}x{SIZE[1]}x24 -nolisten tcp >/dev/null 2>&1 &"
    subprocess.run(["sh", "-c", words], pass_fds=(writer,), check=True)
    os.close(writer)
    with os.fdopen(reader) as answer:
        number = answer.readline().strip()
    if not number:
        sys.exit("no screen: set DISPLAY, or install Xvfb (Debian: apt-get install xvfb)")
    os.environ["DISPLAY"] = f":{number}"


class Camera:
    """A viewer with the workbench, and the scenes."""

    def __init__(self, results: Path, images: Path) -> None:
        """Open the results in a new window."""
        import napari

        from phonon_eels.viewer.layers import layers_of
        from phonon_eels.viewer.opening import open_path
        from phonon_eels.viewer.workbench import Workbench

        self.images = images
        self.viewer = napari.Viewer(show=True, show_welcome_screen=False)
        self.viewer.window.resize(*SIZE)
        self.bench = Workbench(self.viewer)
        self.viewer.window.add_dock_widget(self.bench, name="Phonon EELS", area="right")
        self.wait(lambda: self.bench.spectrum is not None)
        self.spectrum = self.bench.spectrum
        self.session = open_path(results)[0]
        for data, keywords, kind in layers_of(self.session):
            getattr(self.viewer, f"add_{kind}")(data, **keywords)
        self.rest()
        self.viewer.reset_view()

    def take_all(self) -> list[tuple[str, int]]:
        """Take every picture; returns their names and sizes in bytes."""
        try:
            return [self.take(name, scene) for name, scene in self.scenes().items()]
        finally:
            self.viewer.close()

    def scenes(self) -> dict[str, Callable[[], None]]:
        """Return picture → what is to be seen on it."""
        return {
            "viewer_spectrum": self.a_spectrum,
            "viewer_region": self.a_region,
            "viewer_modulation": self.the_modulation,
            "viewer_distributions": self.the_distributions,
            "viewer_analyse": self.the_form,
            "viewer_maps": self.the_maps,
        }

    def take(self, name: str, scene: Callable[[], None]) -> tuple[str, int]:
        """Set a scene and write the window as it is on the screen."""
        scene()
        self.rest()
        path = self.images / f"{name}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
        shrink(path)
        return name, path.stat().st_size

    def show(self, *names: str) -> None:
        """Show these layers and no others."""
        self.bench.maps.add(*(name for name in names if name not in self.viewer.layers))
        for layer in self.viewer.layers:
            layer.visible = layer.name in names
        self.viewer.layers.selection.active = self.viewer.layers[names[-1]]

    def a_spectrum(self) -> None:
        """A position of the CuO2 plane, held, and one of the BiO plane beside it, pinned."""
        from phonon_eels.viewer.linking import Place
        from phonon_eels.viewer.regions import layer_mask

        copper = layer_mask(self.session, "CuO2")
        row = next(r for r in range(40, self.session.shape[0]) if copper[r, 20])
        self.show("HAADF", "CuO78 energy (meV)")
        self.spectrum.pin(Place(self.session, 30, 24))
        self.spectrum._clicked(Place(self.session, row, 20), False)
        for layer in self.viewer.layers:
            layer.visible = layer.visible or layer.name == "pinned positions"

    def a_region(self) -> None:
        """The sum of a layer, and the map of an energy window."""
        self.spectrum.release()
        self.spectrum.clear_pins()
        self.show("HAADF")
        self.spectrum.region.setCurrentText("CuO2")
        self.spectrum.fit_region()
        self.spectrum.window_button.setChecked(True)
        self.wait(lambda: "sum of" in self.spectrum.values.text())
        self.wait(lambda: not hasattr(self.viewer.layers["window 73.0 … 83.0 meV (e⁻)"].data, "dask"))

    def the_modulation(self) -> None:
        """Energy against phase; a phase bin is chosen, its positions light up."""
        self.spectrum.window_button.setChecked(False)
        self.spectrum.subtract_button.setChecked(True)
        self.show("superstructure phase (rad)")
        self.bench.tabs.setCurrentWidget(self.bench.modulation)
        self.bench.modulation.choose_bin(1)

    def the_distributions(self) -> None:
        """Energies by layer, and a part of them chosen."""
        self.bench.modulation.choose_bin(1)
        self.show("HAADF")
        self.bench.tabs.setCurrentWidget(self.bench.distributions)
        self.bench.distributions.box.setPos((78.6, 1000.0))
        self.bench.distributions.box.setSize((1.6, 600.0))

    def the_form(self) -> None:
        """The settings of a step."""
        self.bench.distributions.clear_selection()
        self.spectrum.subtract_button.setChecked(False)
        self.show("CuO78 energy σ (meV)")
        self.bench.tabs.setCurrentWidget(self.bench.analyse)

    def the_maps(self) -> None:
        """The list of all maps, one of them shown: shifts, in colours that diverge from zero."""
        self.bench.tabs.setCurrentWidget(self.bench.maps)
        for layer in self.viewer.layers:
            layer.visible = layer.name == "HAADF"
        self.bench.maps.show_map("CuO78 shift from the mean (meV)")
        self.viewer.layers.selection.active = self.viewer.layers["CuO78 shift from the mean (meV)"]

    def wait(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        """Let Qt work until something is so."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                sys.exit("the window did not get there in time")
            QApplication.processEvents()
            time.sleep(0.01)

    def rest(self, seconds: float = 1.5) -> None:
        """Let everything be drawn."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end)


def shrink(path: Path) -> None:
    """Write a picture again, as small as it goes without a change of its colours."""
    from PIL import Image

    Image.open(path).convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
