"""Private parts of Ray: used in one file only, and all there in the Ray that is installed."""

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest
import ray

from pipelines import ray_private

ROOT = Path(__file__).parents[2]
HOME = ROOT / "pipelines" / "ray_private.py"
PUBLIC = {"RAY_ADDRESS"}  # environment variables that Ray documents


def private_parts(text: str) -> list[str]:
    """What a file takes from Ray by a name that is not public: modules, attributes, variables, loggers."""
    tree = ast.parse(text)
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]
    from_ray = [name for name in imported if name.split(".")[0] == "ray"]
    found = [name for name in from_ray if "._" in name]
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found += [text for text in texts if text.startswith("RAY_") and text not in PUBLIC]
    found += [text for text in texts if text.startswith("ray.") and "._" in text]
    if from_ray:
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        hidden = [node for node in attributes if node.attr.startswith("_") and not node.attr.startswith("__")]
        found += [ast.unparse(node) for node in hidden if ast.unparse(node.value) not in ("self", "cls")]
    return found


def test_no_other_file_uses_private_parts_of_ray():
    files = [file for package in ("models", "pipelines", "jobs") for file in (ROOT / package).rglob("*.py") if file != HOME]
    used = {str(file.relative_to(ROOT)): private_parts(file.read_text(encoding="utf-8")) for file in files}
    assert {name: parts for name, parts in used.items() if parts} == {}
    assert len(private_parts(HOME.read_text())) > 10


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("from ray._private.state import state", "ray._private.state.state"),
        ("import ray\nray._private.worker.get_dashboard_url()", "ray._private"),
        ("from ray import serve\nclient._controller.apply()", "client._controller"),
        ("from ray.serve.context import _get_global_client", "ray.serve.context._get_global_client"),
        ("os.environ['RAY_num_workers_soft_limit'] = '1'", "RAY_num_workers_soft_limit"),
        ("logging.getLogger('ray.data._internal.progress')", "ray.data._internal.progress"),
    ],
)
def test_every_kind_of_private_part_is_found(text, part):
    assert part in private_parts(text)


def test_what_is_public_is_not_found():
    text = "import ray\nray.init()\nself._ray = ray\nos.environ['RAY_ADDRESS']\nlogging.getLogger('ray.serve')"
    assert private_parts(text) == []


def source_of(module: str) -> bytes:
    spec = importlib.util.find_spec(module)
    return b"" if spec is None or spec.origin is None else Path(spec.origin).read_bytes()


def has(module: str, *names: str) -> bool:
    """Whether the module's text names all of these."""
    text = source_of(module)
    return bool(text) and all(name.encode() in text for name in names)


def core_flags() -> bool:
    raylet = (Path(ray.__file__).parent / "core/src/ray/raylet/raylet").read_bytes()
    return all(name.removeprefix("RAY_").encode() in raylet for name in ray_private.WARM_WORKERS)


def serve_client() -> bool:
    from ray.serve._private.client import ServeControllerClient
    from ray.serve.context import _get_global_client

    return (
        list(inspect.signature(_get_global_client).parameters) == ["raise_if_no_controller_running"]
        and has("ray.serve._private.client", "self._controller", "self._shutdown", "def http_config(")
        and has("ray.serve._private.controller", "def graceful_shutdown(", "self._ha_proxy_enabled")
        and list(inspect.signature(ServeControllerClient.get_deployment_info).parameters) == ["self", "name", "app_name"]
    )


def own_versions() -> bool:
    from ray.serve.deployment import Deployment

    return has("ray.serve._private.client", "version=deployment._version or ") and hasattr(Deployment, "bind")


def routes_of_the_proxy() -> bool:
    return (
        has("ray.serve._private.proxy", "self.proxy_router = ", "self.proxy_router.match_route(")
        and has("ray.serve._private.proxy_router", "def match_route(", "self.handles[endpoint],")
        and has("ray.serve._private.http_util", "class RequestIdMiddleware", "self._app = app")
        and has("ray.serve._private.router", "self._asyncio_router", "def request_router(")
        and has("ray.serve.handle", "self._router", "def deployment_name(", "def app_name(")
    )


def settings_of_proxies() -> bool:
    """All variables are read, and what goes into HAProxy's configuration comes after what it is to replace."""
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    every = ray_private.proxy_settings(haproxy=True, front="a:b", code=["/c"], seconds=5, errors={503: "{}"}, ports=(1, 2))
    names = [name for name in every if name.startswith("RAY_")]
    defaults = HAPROXY_CONFIG_TEMPLATE.partition("\ndefaults")[2].partition("\nfrontend")[0]
    return has("ray.serve._private.constants", *names) and defaults.index("errorfile 504") < defaults.index(
        "balance {{ config.balance_algorithm }}"
    )


def notes() -> bool:
    kv = importlib.import_module("ray.experimental.internal_kv")
    functions = (kv._internal_kv_get, kv._internal_kv_put, kv._internal_kv_del)
    return all("namespace" in inspect.signature(function).parameters for function in functions)


def autoscaler_limits() -> bool:
    from ray._private.state import state

    return callable(getattr(state, "get_max_resources_from_cluster_config", None))


def mode_of_authentication() -> bool:
    setup = "ray._private.authentication.authentication_token_setup"
    return has(setup, f'AUTH_MODE_ENV_VAR = "{ray_private.AUTHENTICATION}"', 'Config.initialize("")')


def psutil_travels_with_ray() -> bool:
    return importlib.util.find_spec("psutil") is not None


PARTS = {
    "keep_workers_warm": core_flags,
    "show_train_page": lambda: has("ray.train.constants", *ray_private.TRAIN_PAGE),
    "plain_tune_output": lambda: has("ray.tune.experimental.output", *ray_private.PLAIN_TUNE),
    "in_submitted_job": lambda: has("ray._private.runtime_env.constants", ray_private.JOB_VARIABLE),
    "most_resources": autoscaler_limits,
    "dashboard_url": lambda: callable(getattr(ray._private.worker, "get_dashboard_url", None)),
    "authentication": mode_of_authentication,
    "authenticate": mode_of_authentication,
    "quiet_authentication": lambda: importlib.util.find_spec(ray_private.AUTHENTICATION_LOGGER) is not None,
    "quiet_data": lambda: all(has(name, "getLogger(__name__)") for name in ray_private.DATA_LOGGERS),
    "origin": lambda: has("ray.train.v2._internal.exceptions", "self._base_exc = exc"),
    "Listener": psutil_travels_with_ray,
    "listeners": psutil_travels_with_ray,
    "Running": serve_client,
    "Asked": serve_client,
    "running_serve": serve_client,
    "asked_of": serve_client,
    "of_version": own_versions,
    "proxy_settings": settings_of_proxies,
    "Ingress": routes_of_the_proxy,
    "ingress_at": routes_of_the_proxy,
    "read_note": notes,
    "write_note": notes,
    "end_serve": serve_client,
}


def test_every_function_is_looked_after():
    own = [value for value in vars(ray_private).values() if getattr(value, "__module__", None) == ray_private.__name__]
    assert {value.__name__ for value in own if not value.__name__.startswith("_")} == PARTS.keys()


@pytest.mark.parametrize("name", PARTS)
def test_the_installed_ray_has_what_is_used(name):
    try:
        found = PARTS[name]()
    except (ImportError, AttributeError):
        found = False
    assert found, f"Ray {ray.__version__} lacks what `pipelines.ray_private.{name}` uses; its docstring says what that breaks."


def test_what_haproxy_says_itself_is_quoted():
    settings = ray_private.proxy_settings(
        haproxy=True, front=None, code=[], seconds=4.2, errors={503: '{"a": "\\\\"}'}, ports=(1, 2)
    )
    assert settings["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "5" and "PYTHONPATH" not in settings
    error = r'http-error status 503 content-type application/json hdr Retry-After 1 string "{\"a\": \"\\\\\"}"'
    lines = ["leastconn", "option http-buffer-request", "timeout http-request 5s", error]
    assert settings[ray_private.BALANCE].split("\n    ") == lines


def test_an_error_of_a_worker_is_followed_to_its_origin():
    outer, middle, cause = RuntimeError("a long\ntrace"), RuntimeError("of the worker"), OSError("disk full")
    outer.cause, middle._base_exc = middle, cause
    assert ray_private.origin(outer) is cause
    assert ray_private.origin(cause) is cause
