"""Forms made from settings classes: each row comes from the line that defines its field.

Title, tooltip, default and bounds are read from the pydantic field, so that nothing about
a setting is written twice. The value widgets are magicgui's; the rows are laid out here,
so that two forms in one dock line up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from magicgui.types import Undefined
from magicgui.widgets import ComboBox, create_widget
from magicgui.widgets.bases import ValueWidget
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QFormLayout, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QWidget
from superqt import QCollapsible

from napari_unet.settings import Settings

__all__ = ["Form", "advanced", "field_widget"]

_S = TypeVar("_S", bound=Settings)

LABEL_WIDTH = 134
"""Pixels for the labels of every form in a dock, so that their fields line up."""

_ROW_HEIGHT = 26


def field_widget(cls: type[Settings], name: str) -> Any:
    """Make the input of one field.

    Parameters
    ----------
    cls : type of Settings
        The settings class.
    name : str
        A field of type bool, int, float, str or Literal, or one of these or None.

    Returns
    -------
    magicgui.widgets.bases.ValueWidget
        With the field's title as label, its description as tooltip, its default and its
        inclusive bounds. For an optional field it holds the value apart from None: `Form`
        puts the check box before it.
    """
    field = cls.model_fields[name]
    kind, _ = _without_none(field.annotation)
    default = field.get_default(call_default_factory=True)
    options: dict[str, Any] = {"tooltip": _tooltip(field)}
    if get_origin(kind) is Literal:
        options["choices"] = list(get_args(kind))
        return ComboBox(value=default, name=name, label=_title(field, name), **options)
    bounds = _bounds(field)
    if kind in (int, float):
        options.update(min=bounds.get("ge", -(2**31)), max=bounds.get("le", 2**31 - 1))
    if kind is float:
        options["step"] = 10.0 ** -_decimals(field, default)
    if default is None and field.examples:
        default = field.examples[0]
    elif default is None:
        default = Undefined if kind not in (int, float) else _middle(options["min"], options["max"])
    widget: Any = create_widget(
        default, annotation=kind, name=name, label=_title(field, name), options=options
    )
    if kind is bool:
        widget.text = ""  # the row has its label already
    if kind is float:
        widget.native.setDecimals(_decimals(field, default))
        widget.native.setStepType(widget.native.StepType.AdaptiveDecimalStepType)
    elif kind is int and "multiple_of" in bounds:
        widget.native.setSingleStep(bounds["multiple_of"])
    return widget


class Form(QWidget):
    """Rows of labelled inputs; some from settings classes, some handed in.

    Parameters
    ----------
    parent : QWidget, optional
        Qt parent.
    """

    def __init__(self) -> None:
        super().__init__()
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setVerticalSpacing(4)
        self._layout.setHorizontalSpacing(8)
        self._layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        self._widgets: dict[str, ValueWidget] = {}
        self._unset: dict[str, QCheckBox] = {}
        self._fields: dict[str, QWidget] = {}

    def __getitem__(self, name: str) -> ValueWidget:
        return self._widgets[name]

    def __contains__(self, name: object) -> bool:
        return name in self._widgets

    def add_fields(
        self, cls: type[Settings], names: Iterable[str], *, unset: str = "Automatic", optional: bool = False
    ) -> None:
        """Add a row for each of some fields of a settings class.

        Parameters
        ----------
        cls : type of Settings
            The settings class.
        names : iterable of str
            Its fields, in the order of the rows.
        unset : str
            What to call None in an optional field, e.g. "Automatic".
        optional : bool
            Let fields that always have a value be left unset too; they begin so.
        """
        for name in names:
            widget = field_widget(cls, name)
            self._widgets[name] = widget
            may_be_none = optional or _without_none(cls.model_fields[name].annotation)[1]
            box = self._optional(name, widget, unset) if may_be_none else widget.native
            self._fields[name] = box
            self.add_row(widget.label, box, widget.tooltip or "")

    def add_row(self, label: str, field: QWidget, tooltip: str = "") -> None:
        """Add a row of any widget."""
        text = QLabel(label)
        text.setFixedWidth(LABEL_WIDTH)
        text.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        text.setMinimumHeight(_ROW_HEIGHT)
        text.setToolTip(tooltip)
        field.setToolTip(tooltip)
        field.setMinimumWidth(60)
        field.setSizePolicy(QSizePolicy.Policy.Expanding, field.sizePolicy().verticalPolicy())
        self._layout.addRow(text, field)

    def add_browse_row(
        self, label: str, field: QWidget, browse: Callable[[], None], tooltip: str = ""
    ) -> None:
        """Add a row with a button after the field that lets the user look for a file or folder."""
        button = QPushButton("…")
        button.setFixedWidth(30)
        button.clicked.connect(browse)
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(field, 1)
        layout.addWidget(button)
        self.add_row(label, row, tooltip)

    def add_widget(self, widget: ValueWidget) -> None:
        """Add a row of a magicgui widget, found again by its name."""
        self._widgets[widget.name] = widget
        self.add_row(widget.label, widget.native, widget.tooltip or "")

    def show_row(self, field: QWidget, visible: bool) -> None:
        """Show or hide a row with its label."""
        self._layout.setRowVisible(field, visible)

    def show_field(self, name: str, visible: bool) -> None:
        """Show or hide the row of a field of a settings class; hidden, it keeps its value."""
        self.show_row(self._fields[name], visible)

    def values(self) -> dict[str, Any]:
        """Return what the rows of settings say, by field name; None where an optional one is unset."""
        return {
            name: None if name in self._unset and self._unset[name].isChecked() else widget.value
            for name, widget in self._widgets.items()
        }

    def read(self, cls: type[_S], **others: Any) -> _S:
        """Return the settings that the form shows.

        Parameters
        ----------
        cls : type of Settings
            The class to make; rows of its fields are taken, the rest keep their defaults.
        **others
            Fields that no row shows.

        Raises
        ------
        ConfigError
            If the values contradict each other.
        """
        shown = {name: value for name, value in self.values().items() if name in cls.model_fields}
        return cls(**{**shown, **others})

    def write(self, values: Mapping[str, Any]) -> None:
        """Show other values, by field name."""
        for name, value in values.items():
            if name in self._unset:
                self._unset[name].setChecked(value is None)
            if value is not None:
                self._widgets[name].value = value

    def show_unset(self, values: Mapping[str, Any]) -> None:
        """Show what optional fields that are unset stand for, by field name."""
        for name, value in values.items():
            if self._unset[name].isChecked():
                self._widgets[name].value = value

    def _optional(self, name: str, widget: ValueWidget, unset: str) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        check = self._unset[name] = QCheckBox(unset)
        layout.addWidget(check)
        layout.addWidget(widget.native, 1)
        check.toggled.connect(lambda on: widget.native.setEnabled(not on))
        check.setChecked(True)
        return row


def advanced(title: str, form: QWidget) -> QCollapsible:
    """Fold a form away under a title, for the settings that few people touch."""
    section = QCollapsible(title)
    section.setDuration(0)
    section.setCollapsedIcon("▶")
    section.setExpandedIcon("▼")
    section.layout().setContentsMargins(0, 0, 0, 0)
    section.content().layout().setContentsMargins(0, 4, 0, 4)
    section.addWidget(form)
    section.collapse(animate=False)
    return section


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Split ``X | None`` into X and True."""
    if get_origin(annotation) in (Union, UnionType):
        (kind,) = (part for part in get_args(annotation) if part is not NoneType)
        return kind, True
    return annotation, False


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """Return the field's inclusive bounds: ge, le and multiple_of, as far as it has them."""
    names = ("ge", "le", "multiple_of")
    return {name: getattr(rule, name) for rule in field.metadata for name in names if hasattr(rule, name)}


def _decimals(field: FieldInfo, default: Any) -> int:
    """Digits after the point that show the default and both bounds exactly, and at least one."""
    bounds = _bounds(field)
    numbers = [default, bounds.get("ge"), bounds.get("le")]
    digits = [_digits(number) for number in numbers if isinstance(number, int | float)]
    fraction = bounds.get("le", math.inf) <= 1
    return max(*digits, 2 if fraction else 1)


def _digits(number: float) -> int:
    return next((n for n in range(12) if round(number, n) == number), 12)


def _middle(low: float, high: float) -> float:
    return (low + high) / 2


def _title(field: FieldInfo, name: str) -> str:
    return field.title or name.replace("_", " ").capitalize()


def _tooltip(field: FieldInfo) -> str:
    # As rich text, Qt wraps a long tooltip instead of letting it run off the screen.
    return f"<p>{field.description}</p>" if field.description else ""
