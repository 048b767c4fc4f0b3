"""What a worker module declares: methods, set-up, tear-down."""
import importlib
import importlib.util
import inspect
import json
import os
import sys

from poold import _wire


class Cancelled(BaseException):
    """Raised in a running call whose caller has gone, cancelled it, or whose budget is over. Let it pass."""


class BadArguments(Exception):
    """The arguments of a call do not fit its method. A method may raise it too."""


class Unencodable(Exception):
    """A method's return value does not fit its codec."""


class Method:
    """A callable method. `invoke` takes the payload as bytes and returns bytes."""

    __slots__ = ("name", "codec", "idempotent", "function", "invoke", "slow")

    def __init__(self, name, codec, idempotent, function):
        self.name = name
        self.codec = codec
        self.idempotent = idempotent
        self.function = function
        self.invoke = _INVOKE[codec](name, function)
        #: above 0: it recently took more than a millisecond, or was never measured; counts down with each quick call
        self.slow = 1


METHODS = {}
PRELOAD, SETUP, TEARDOWN = [], [], []
#: set by the serving loop
remaining = lambda: None  # noqa: E731
session = lambda: 0  # noqa: E731


def method(function=None, *, name=None, codec="json", idempotent=False):
    """Declares a method. `codec`: json (default), bytes, msgpack. `idempotent`: running it twice does no harm."""
    if function is None:
        return lambda f: method(f, name=name, codec=codec, idempotent=idempotent)
    if not callable(function):
        raise TypeError(f"@worker.method needs a function, not {function!r}")
    if codec not in _INVOKE:
        raise ValueError(f"codec {codec!r} of method {function.__name__} is unknown; known: {', '.join(_INVOKE)}")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"method {function.__name__} is a coroutine function; poold calls plain functions")
    name = name or function.__name__
    if not name or len(name.encode()) > 120 or "." in name:
        raise ValueError(f"method name {name!r} must have 1 to 120 bytes and no dot")
    if name in METHODS and METHODS[name].function is not function:
        raise ValueError(f"method {name!r} is declared twice")
    METHODS[name] = Method(name, codec, idempotent, function)
    return function


def setup(function):
    """Runs once in each worker before it is ready. What it raises keeps the worker from serving."""
    SETUP.append(function)
    return function


def preload(function):
    """Runs once in the template process, before workers are forked from it (and in a cold worker before set-up).
    What it leaves in memory is shared by all workers. It must start no thread."""
    PRELOAD.append(function)
    return function


def teardown(function):
    """Runs when the worker ends in peace."""
    TEARDOWN.append(function)
    return function


def _bytes(name, function):
    def invoke(payload):
        result = function(payload)
        if result.__class__ is bytes:
            return result
        try:
            return bytes(memoryview(result))
        except TypeError:
            raise Unencodable(f"method {name} returned {type(result).__name__}; codec bytes needs a bytes-like value") from None

    return invoke


def _structured(codec, loads, dumps, errors):
    def make(name, function):
        def invoke(payload):
            try:
                value = loads(payload)
            except errors as error:
                raise BadArguments(f"the payload of {name} is not valid {codec}: {error}") from None
            kind = value.__class__
            try:
                if kind is dict:
                    result = function(**value)
                elif kind is list:
                    result = function(*value)
                else:
                    result = function(value)
            except TypeError as error:
                # Only what the call itself raised, not what the function did inside.
                if error.__traceback__.tb_next is None:
                    raise BadArguments(f"{name}{inspect.signature(function)}: {error}") from None
                raise
            try:
                return dumps(result)
            except (TypeError, ValueError, RecursionError) as error:
                raise Unencodable(f"what method {name} returned does not fit {codec}: {error}") from None

        return invoke

    return make


_dump_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _json_loads(payload):
    return json.loads(payload) if payload else []


def _msgpack(name, function):
    try:
        import msgpack
    except ImportError:
        raise ImportError(f"method {name} uses codec msgpack: pip install msgpack") from None
    return _structured("MessagePack", lambda p: msgpack.unpackb(p) if p else [], msgpack.packb, (ValueError, msgpack.UnpackException))(name, function)


_INVOKE = {
    "json": _structured("JSON", _json_loads, lambda value: _dump_json(value).encode(), (ValueError, RecursionError)),
    "bytes": _bytes,
    "msgpack": _msgpack,
}


def load(module):
    """Imports a dotted module or a path to a .py file, and checks that it declares a method."""
    if module.endswith(".py") or "/" in module:
        path = os.path.abspath(module)
        folder, stem = os.path.split(path)
        if not os.path.exists(path):
            raise FileNotFoundError(f"worker module {path} does not exist")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        name = stem[:-3] if stem.endswith(".py") else stem
        spec = importlib.util.spec_from_file_location(name, path)
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        spec.loader.exec_module(loaded)
    else:
        importlib.import_module(module)
    if not METHODS:
        raise RuntimeError(f"module {module} declares no method; decorate one with @worker.method")
    for function in PRELOAD:
        function()


def entries():
    """The method list for METHODS; numbers are positions from 1."""
    return [(i + 1, _wire.CODECS[m.codec], 2 if m.idempotent else 0, m.name) for i, m in enumerate(METHODS.values())]
