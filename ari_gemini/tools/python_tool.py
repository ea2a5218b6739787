"""Tools written in Python: typed async functions that installed packages offer as entry points.

A package names them in its metadata, group ``ari_gemini.tools``; the entry point's name is the tool's::

    [project.entry-points."ari_gemini.tools"]
    open_on = "my_shop.phone:open_on"

and writes them as it would any function. The docstring and the signature become the declaration; a parameter
annotated ``ToolContext`` is handed in and not declared::

    async def open_on(day: Annotated[date, Field(description="which day")], context: ToolContext) -> str:
        \"\"\"When the shop is open.\"\"\"

The arguments are checked and converted by pydantic before the function runs. It returns JSON, a pydantic
model or a dataclass, and raises ToolError (``ari_gemini.errors``) with words for the model. What it may
import of this package: ``ToolContext`` and ``CallControl`` (``tools.base``), ``ToolError`` and :func:`tool`.
"""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import PydanticJsonSchemaWarning
from pydantic_core import PydanticSerializationError, to_jsonable_python

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import Tool, ToolContext
from ari_gemini.tools.schema import MAX_DESCRIPTION, MAX_MISTAKES, MAX_WORDS, TOOL_NAME, declarable, inlined

GROUP = "ari_gemini.tools"

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True, slots=True)
class _Options:
    time_limit: float | None = None
    undoable: bool = True


def tool(*, time_limit: float | None = None, undoable: bool = True) -> Callable[[F], F]:
    """Say what a signature cannot: ``time_limit`` in seconds; ``undoable=False`` when what it has begun stays
    done although it is cancelled. Without this decorator the toolbox's limit holds, and True."""
    if time_limit is not None and not 0 < time_limit <= 600:
        raise ValueError("time_limit must be more than 0 and at most 600 seconds")

    def mark(function: F) -> F:
        function.__ari_gemini_tool__ = _Options(time_limit, undoable)  # type: ignore[attr-defined]
        return function

    return mark


def find_python_tools() -> Mapping[str, EntryPoint]:
    """The tools that installed packages offer, by name. Imports none of them: that is for those in use.

    Raises ConfigError when two packages offer the same name: which one ran would be an accident.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"two packages offer the tool {point.name}: {_origin(other)} and {_origin(point)}"
            )
    return found


def load_python_tool(entry_point: EntryPoint) -> PythonTool:
    """Import one. Raises ConfigError that names the entry point and the reason."""
    where = f"tool {entry_point.name} ({entry_point.value})"
    if not TOOL_NAME.fullmatch(entry_point.name):
        _refuse(where, "the name must be a letter or _, then letters, digits or _ . : - (128 at most)")
    try:
        function = entry_point.load()
    except Exception as error:  # a plugin's module may raise whatever it likes while it is imported
        raise ConfigError(
            f"{where}: cannot be imported: {type(error).__name__}: {_line(str(error))}"
        ) from error
    return PythonTool(entry_point.name, _origin(entry_point), function, where)


class PythonTool(Tool):
    """One function of an installed package. Several calls may run it at the same time."""

    def __init__(self, name: str, origin: str, function: Function, where: str) -> None:
        """Raises ConfigError, beginning with ``where``, when the function cannot be a tool."""
        description = _description(function, where)
        fields, self._context = _fields(function, where)
        self._model = _model(name, fields, where)
        try:
            with warnings.catch_warnings():
                # a default that JSON cannot hold is left out of the declaration, nothing more
                warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
                parameters = declarable(inlined(self._model.model_json_schema()))
        except ConfigError as error:
            _refuse(where, f"its parameters cannot be declared: {error}")
        except PydanticUserError as error:
            _refuse(where, f"its parameters have no JSON Schema: {_line(error.message)}")
        options = getattr(function, "__ari_gemini_tool__", _Options())
        self.declaration = FunctionDeclaration(name, description, parameters)
        self.goes_to = f"Python {origin}"
        self.time_limit = options.time_limit
        self.undoable = options.undoable
        self._function = function

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        """Call the function; cancelling cancels it. Raises ToolError for arguments that do not fit."""
        try:
            checked = self._model.model_validate(dict(args))
        except ValidationError as error:
            raise ToolError(_mistakes(error)) from None
        given = {name: getattr(checked, name) for name in self._model.model_fields}
        if self._context is not None:
            given[self._context] = context
        result = await self._function(**given)
        try:
            return to_jsonable_python(result)
        except (PydanticSerializationError, ValueError) as error:
            # a defect of the plugin, logged as one
            raise TypeError(f"{self.name} returned a {type(result).__name__}, which is not JSON") from error


def _description(function: Function, where: str) -> str:
    if not inspect.iscoroutinefunction(function):
        _refuse(where, "it is not an async function")
    description = (inspect.getdoc(function) or "").strip()
    if not description:
        _refuse(where, "it has no docstring to tell the model what it does")
    if len(description) > MAX_DESCRIPTION:
        _refuse(where, f"its docstring has more than {MAX_DESCRIPTION} characters")
    return description


def _fields(function: Function, where: str) -> tuple[dict[str, Any], str | None]:
    """The parameters as pydantic's field definitions, and the name of the one that takes the ToolContext."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # annotations are evaluated, and may raise whatever an expression can
        raise ConfigError(f"{where}: its annotations cannot be read: {_line(str(error))}") from error
    fields: dict[str, Any] = {}
    context: str | None = None
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            _refuse(where, f"parameter {name} takes any number: a model needs each one by its name")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            _refuse(where, f"parameter {name} is positional-only")
        if name not in hints:
            _refuse(where, f"parameter {name} has no annotation")
        if name.startswith("_"):
            _refuse(where, f"parameter {name} begins with _")
        if hints[name] is ToolContext:
            if context is not None:
                _refuse(where, f"parameter {name} is a second ToolContext")
            context = name
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints[name], default)
    return fields, context


def _model(name: str, fields: dict[str, Any], where: str) -> type[BaseModel]:
    config = ConfigDict(extra="forbid", protected_namespaces=(), hide_input_in_errors=True)
    try:
        with warnings.catch_warnings():
            # a parameter may be called "copy" or "json": nobody uses this model's methods of that name
            warnings.filterwarnings("ignore", "Field name .* shadows an attribute", UserWarning)
            return create_model("arguments", __config__=config, **fields)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
        _refuse(where, f"a parameter has a type that pydantic does not know: {_line(str(error))}")


def _mistakes(error: ValidationError) -> str:
    """Which arguments are wrong and why, without what was given."""
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_MISTAKES]
    words = [
        f"{'.'.join(str(part) for part in mistake['loc'])[:100] or 'together'}: {mistake['msg']}"
        for mistake in mistakes
    ]
    return ("wrong arguments: " + "; ".join(words))[:MAX_WORDS]


def _origin(entry_point: EntryPoint) -> str:
    package = entry_point.dist.name if entry_point.dist is not None else "?"
    return f"{package}: {entry_point.value}"


def _line(text: str) -> str:
    """The first line, at most 200 characters of it."""
    return text.strip().partition("\n")[0][:200]


def _refuse(where: str, why: str) -> NoReturn:
    raise ConfigError(f"{where}: {why}")
