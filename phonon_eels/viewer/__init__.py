"""The napari plugin: open scans and results, point at the image, see spectrum and fit, analyse, and carry settings to the batch.

`napari.yaml` tells napari what is here. Modules without Qt: `sessions`, `layers`, `forms`, `regions`, `running`, `linking`.
"""
