"""The application of the endpoint under uvicorn alone, in one process without Ray: what Ray Serve is compared with."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import uvicorn

from pipelines.serve.config import ServeConfig
from pipelines.serve.endpoint import Endpoint
from pipelines.serve.http import http_app
from pipelines.serve.store import Store


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--bundle", type=Path, required=True)
    made.add_argument("--store", type=Path, required=True)
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--batch", type=int, required=True)
    args = made.parse_args(argv)
    torch.set_num_threads(1)
    config = ServeConfig(port=args.port, batch=args.batch)
    endpoint = Endpoint.open(args.bundle, Store(args.store), config)
    uvicorn.run(http_app(lambda: endpoint, config), host=config.host, port=config.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
