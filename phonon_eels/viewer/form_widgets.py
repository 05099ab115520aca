"""Fields of the settings as widgets: what is not allowed turns red at once, an empty field is one that is left open."""

from __future__ import annotations

import math
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from phonon_eels.errors import ConfigError
from phonon_eels.viewer.forms import Field, Key, Section, parse_yaml, yaml_text

OPEN = "(left open)"
WRONG = "border: 1px solid #D55E00; background: #5a2a10; color: white;"


class FieldWidget(QWidget):
    """One setting: its value, and whether it is allowed."""

    edited = Signal()

    def __init__(self, field: Field) -> None:
        """Make the widget that suits the kind of the field."""
        super().__init__()
        self.field = field
        self._lines: list[QLineEdit] = []
        self._box: QComboBox | None = None
        self._check: QCheckBox | None = None
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in self._parts():
            part.setToolTip(field.tooltip)
            layout.addWidget(part, 1)
        if field.unit:
            unit = QLabel(field.unit)
            unit.setMinimumWidth(34)
            layout.addWidget(unit)
        self.set(field.default)

    def _parts(self) -> list[QWidget]:
        field = self.field
        if field.kind == "flag" and not field.optional:
            self._check = QCheckBox()
            self._check.toggled.connect(lambda _: self.edited.emit())
            return [self._check]
        if field.kind in ("choice", "flag"):
            self._box = QComboBox()
            words = [True, False] if field.kind == "flag" else list(field.choices)
            for value in ([None] if field.optional else []) + words:
                self._box.addItem(_word(value), value)
            self._box.currentIndexChanged.connect(lambda _: self.edited.emit())
            return [self._box]
        for _ in range(2 if field.kind == "window" else 1):
            edit = QLineEdit()
            edit.setPlaceholderText(OPEN if field.optional else "")
            edit.textChanged.connect(self._text_changed)
            self._lines.append(edit)
        return list(self._lines)

    def set(self, value: Any) -> None:
        """Show a value."""
        if self._check is not None:
            self._check.setChecked(bool(value))
        elif self._box is not None:
            self._box.setCurrentIndex(max(self._box.findData(value), 0))
        elif self.field.kind == "window":
            for edit, end in zip(self._lines, value if value is not None else (None, None), strict=True):
                edit.setText("" if end is None else _number_text(end))
        elif self.field.kind == "yaml":
            self._lines[0].setText(yaml_text(value))
        else:
            self._lines[0].setText("" if value is None else _number_text(value))

    def value(self) -> Any:
        """Return the value.

        Raises
        ------
        ConfigError
            If what was entered is no number or leaves the bounds; the message names the key.
        """
        if self._check is not None:
            return self._check.isChecked()
        if self._box is not None:
            return self._box.currentData()
        texts = [edit.text().strip() for edit in self._lines]
        if self.field.optional and not any(texts):
            return None
        if self.field.kind == "yaml":
            return parse_yaml(texts[0], self.field.key)
        if self.field.kind == "text":
            return texts[0]
        numbers = [self._number(text) for text in texts]
        return numbers if self.field.kind == "window" else numbers[0]

    def _number(self, text: str) -> float | int:
        field, key = self.field, ".".join(self.field.key)
        kind = "a whole number" if field.kind == "whole" else "a number"
        try:
            value = int(text) if field.kind == "whole" else float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{key} = {text!r}: is not {kind}; enter one{f' in {field.unit}' if field.unit else ''}")
        low, high = field.minimum, field.maximum
        if low is not None and (value <= low if field.open_minimum else value < low):
            raise ConfigError(f"{key} = {text}: must be {'above' if field.open_minimum else 'at least'} {low:g}")
        if high is not None and value > high:
            raise ConfigError(f"{key} = {text}: must be at most {high:g}")
        return value

    def _text_changed(self) -> None:
        try:
            self.value()
            style, words = "", self.field.tooltip
        except ConfigError as problem:
            style, words = WRONG, str(problem)
        for edit in self._lines:
            edit.setStyleSheet(style)
            edit.setToolTip(words)
        self.edited.emit()


def _word(value: Any) -> str:
    if value is None:
        return OPEN
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _number_text(value: Any) -> str:
    """Return a number that reads back as the same number, without a needless .0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


class SectionForm(QWidget):
    """All settings of a section, under what the section is for."""

    edited = Signal()

    def __init__(self, section: Section) -> None:
        """Make a row per setting."""
        super().__init__()
        self.section = section
        self.widgets: dict[Key, FieldWidget] = {}
        words = QLabel(section.description)
        words.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.addWidget(words)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        form.setVerticalSpacing(3)
        for field in section.fields:
            widget = FieldWidget(field)
            widget.edited.connect(self.edited)
            label = QLabel(field.label)
            label.setToolTip(field.tooltip)
            form.addRow(label, widget)
            self.widgets[field.key] = widget
        layout.addLayout(form)
        layout.addStretch(1)
