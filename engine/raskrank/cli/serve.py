"""`raskrank serve`."""

import argparse
from ipaddress import ip_address

from raskrank import license
from raskrank.cli.shared import EXPORTER, choose
from raskrank.errors import InputError
from raskrank.extras import need
from raskrank.info import Info
from raskrank.reranker import Reranker
from raskrank.terminal import say, show, to_json


def run(arguments: argparse.Namespace) -> int:
    need("raskrank serve", "server", "prometheus_client", "starlette", "uvicorn")
    if arguments.fallback == "torch":
        need("--fallback torch", *EXPORTER)
    from raskrank.server.keys import Keys
    from raskrank.server.options import ServerOptions
    from raskrank.server.serve import listen, serve

    if not 0 <= arguments.port < 2**16:
        raise InputError(f"--port: expected 0 to 65535, got {arguments.port}")
    options = ServerOptions(
        max_body=arguments.max_body,
        max_documents=arguments.max_documents,
        max_text_chars=arguments.max_text_chars,
        max_wait=arguments.max_wait,
        max_tokens=arguments.max_tokens,
        max_requests=arguments.max_requests,
        deadline=arguments.deadline,
    )
    keys = Keys.read(arguments.api_key_file) if arguments.api_key_file is not None else Keys()
    choice = choose(arguments)
    listening = listen(arguments.host, arguments.port)
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def load() -> Reranker:
        return Reranker.load(
            choice,
            threads=arguments.threads,
            backend=arguments.backend,
            fallback=arguments.fallback,
            ignore_target=arguments.ignore_target,
            map_weights=arguments.map_weights,
            cache_bytes=arguments.cache_bytes,
        )

    def ready(info: Info) -> None:
        if note := license.note(info.name, info.license):
            say(note)
        if not keys and not ip_address(host).is_loopback:
            say(f"note: whoever reaches {host} may use it; --api-key-file asks for a key")
        if arguments.json:
            show(to_json({"url": url, "host": host, "port": port, "model": info.name, "keys": bool(keys)}))
        else:
            say(f"{info.name} is ready on {url}")

    serve(load, listening, keys=keys, options=options, grace=arguments.grace, ready=ready)
    return 0
