"""What a worker module declares: methods, preload, set-up, tear-down."""
import importlib
import importlib.util
import inspect
import json
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar, Union, overload

from poold import _wire

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = TypeVar("Hook", bound=Callable[[], Any])


class Cancelled(BaseException):
    """Raised in a running call whose caller has gone, cancelled it, or whose budget is over. Let it pass."""


class BadArguments(Exception):
    """The arguments of a call do not fit its method; tells the caller that nothing has begun. A method may raise it before it
    has had effects."""


class Unencodable(Exception):
    """A method's return value does not fit its codec."""


class Method:
    """A callable method. `invoke` takes the payload as bytes and returns bytes, or with codec bytes what `to_bytes` takes."""

    __slots__ = ("name", "codec", "idempotent", "function", "invoke", "slow")

    def __init__(self, name: str, codec: str, idempotent: bool, function: Callable[..., Any]) -> None:
        self.name = name
        self.codec = codec
        self.idempotent = idempotent
        self.function = function
        self.invoke: Callable[[bytes], Any] = _INVOKE[codec](name, function)
        #: above 0: it recently took more than a millisecond, or was never measured; counts down with each quick call
        self.slow = 1


METHODS: Dict[str, Method] = {}
PRELOAD: List[Callable[[], Any]] = []
SETUP: List[Callable[[], Any]] = []
TEARDOWN: List[Callable[[], Any]] = []
#: set by the serving loop
remaining: Callable[[], Optional[float]] = lambda: None
session: Callable[[], int] = lambda: 0


@overload
def method(function: Function) -> Function: ...
@overload
def method(*, name: Optional[str] = None, codec: str = "json", idempotent: bool = False) -> Callable[[Function], Function]: ...


def method(function: Any = None, *, name: Optional[str] = None, codec: str = "json", idempotent: bool = False) -> Any:
    """Declares a method, callable as `pool.name`. `codec`: json (default), bytes, msgpack. `idempotent`: running it twice does
    no harm. Raises TypeError, ValueError, and ImportError where msgpack is not installed."""
    if function is None:
        def declare(later: Function) -> Function:
            _declare(later, name, codec, idempotent)
            return later

        return declare
    _declare(function, name, codec, idempotent)
    return function


def _declare(function: Callable[..., Any], name: Optional[str], codec: str, idempotent: bool) -> None:
    if not callable(function):
        raise TypeError(f"@worker.method needs a function, not {function!r}")
    name = name or getattr(function, "__name__", "")
    if codec not in _INVOKE:
        raise ValueError(f"codec {codec!r} of method {name} is unknown; known: {', '.join(_INVOKE)}")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"method {name} is a coroutine function; poold calls plain functions")
    if codec == "bytes" and not _accepts(function, (b"",), {}):
        raise TypeError(f"method {name}{inspect.signature(function)} has codec bytes: it must take the body as its one argument")
    if not name or len(name.encode()) > 120 or "." in name:
        raise ValueError(f"method name {name!r} must have 1 to 120 bytes and no dot")
    if name in METHODS and METHODS[name].function is not function:
        raise ValueError(f"method {name!r} is declared twice")
    METHODS[name] = Method(name, codec, idempotent, function)


def setup(function: Hook) -> Hook:
    """Runs once in each worker before it is ready. What it raises keeps the worker from serving."""
    SETUP.append(function)
    return function


def preload(function: Hook) -> Hook:
    """Runs once in the template process, before workers are forked from it (and in a cold worker before set-up). What it leaves
    in memory is shared by all workers. It must start no thread, and a fork closes every descriptor that it opened: what needs
    an open file, a socket or a thread belongs into `setup`. The configuration's `warm:` commands run after `setup`, in each worker."""
    PRELOAD.append(function)
    return function


def teardown(function: Hook) -> Hook:
    """Runs when the worker ends in peace: drained, terminated, or poold has closed its socket. What it raises is logged."""
    TEARDOWN.append(function)
    return function


def to_bytes(result: Any, name: str) -> bytes:
    """What a method with codec bytes returned, as bytes. Raises Unencodable."""
    try:
        return bytes(memoryview(result))
    except (TypeError, BufferError):
        raise Unencodable(f"method {name} returned {type(result).__name__}; codec bytes needs a bytes-like value") from None


def full_name(name: str) -> str:
    """`pool.method`, as callers know it."""
    pool = os.environ.get("POOLD_POOL")
    return f"{pool}.{name}" if pool else name


def _accepts(function: Callable[..., Any], positional: Any, named: Dict[str, Any]) -> bool:
    """Whether a function can be called with these arguments; also where that cannot be known."""
    try:
        inspect.signature(function).bind(*positional, **named)
    except TypeError:
        return False
    except ValueError:
        return True  # a function in C without a signature
    return True


def _bytes(name: str, function: Callable[..., Any]) -> Callable[[bytes], Any]:
    return function


def _structured(codec: str, loads: Callable[[bytes], Any], dumps: Callable[[Any], bytes], errors: Any) -> Callable[..., Callable[[bytes], bytes]]:
    def make(name: str, function: Callable[..., Any]) -> Callable[[bytes], bytes]:
        def invoke(payload: bytes) -> bytes:
            try:
                value = loads(payload)
            except errors as error:
                raise BadArguments(f"the payload of {full_name(name)} is not valid {codec}: {error}") from None
            kind = value.__class__
            try:
                if kind is dict:
                    result = function(**value)
                elif kind is list:
                    result = function(*value)
                else:
                    result = function(value)
            except TypeError as error:
                # Only what the call itself raised, not what the function did inside: bad_arguments promises that nothing began.
                if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                    positional, named = ((), value) if kind is dict else (value, {}) if kind is list else ((value,), {})
                    if not _accepts(function, positional, named):
                        raise BadArguments(f"{full_name(name)}{inspect.signature(function)}: {error}") from None
                raise
            try:
                return dumps(result)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise Unencodable(f"what method {name} returned does not fit {codec}: {error}") from None

        return invoke

    return make


_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_decode_json = json.JSONDecoder().decode


def _load_json(payload: bytes) -> Any:
    # An empty body is a call without arguments.
    return _decode_json(payload.decode()) if payload else []


def _dump_json(value: Any) -> bytes:
    return _encode_json(value).encode()


def _msgpack(name: str, function: Callable[..., Any]) -> Callable[[bytes], bytes]:
    try:
        import msgpack
    except ImportError:
        raise ImportError(f"method {name} uses codec msgpack: pip install msgpack") from None
    errors = (ValueError, RecursionError, msgpack.UnpackException)
    return _structured("MessagePack", lambda payload: msgpack.unpackb(payload) if payload else [], msgpack.packb, errors)(name, function)


_INVOKE: Dict[str, Callable[[str, Callable[..., Any]], Callable[[bytes], Any]]] = {
    "json": _structured("JSON", _load_json, _dump_json, (ValueError, RecursionError)),
    "bytes": _bytes,
    "msgpack": _msgpack,
}


def load(module: Union[str, "os.PathLike[str]"]) -> None:
    """Imports a dotted module or a path to a .py file, checks that it declares a method, and runs its preload functions. Raises
    whatever the module raises, FileNotFoundError, RuntimeError."""
    module = os.fspath(module)
    if module.endswith(".py") or "/" in module:
        path = os.path.abspath(module)
        folder, stem = os.path.split(path)
        if not os.path.exists(path):
            raise FileNotFoundError(f"worker module {path} does not exist")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        name = stem[:-3] if stem.endswith(".py") else stem
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"worker module {path} is not a Python file")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        spec.loader.exec_module(loaded)
    else:
        importlib.import_module(module)
    if not METHODS:
        raise RuntimeError(f"module {module} declares no method; decorate one with @worker.method")
    for function in PRELOAD:
        function()


def entries() -> List[Tuple[int, int, int, str]]:
    """The method list for METHODS; numbers are positions from 1."""
    return [(i + 1, _wire.CODECS[m.codec], 2 if m.idempotent else 0, m.name) for i, m in enumerate(METHODS.values())]
