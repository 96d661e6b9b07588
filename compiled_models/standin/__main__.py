"""Write stand-in models as ONNX files: `python -m compiled_models.standin --out models`."""
from __future__ import annotations

import argparse
from pathlib import Path

from compiled_models.standin import MODELS, VARIANTS, Options, build
from compiled_models.standin.net import CHOICES


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m compiled_models.standin",
        description="Write openpilot-shaped ONNX models with random weights.",
    )
    parser.add_argument("--out", type=Path, default=Path("models"), help="directory to write to")
    parser.add_argument("--only", action="append", choices=MODELS | VARIANTS,
                        help="may be repeated; default: all but the variants of other releases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", choices=CHOICES["weights"], default="f16", help="storage")
    parser.add_argument("--compute", choices=CHOICES["compute"], default="f32",
                        help="arithmetic, float inputs and outputs; real files of 2024-26: f16")
    parser.add_argument("--gelu", choices=CHOICES["gelu"], default="tanh", help="its spelling")
    parser.add_argument("--batchnorm", action="store_true", help="do not fold (0.8.x files)")
    args = parser.parse_args()
    options = Options(args.seed, args.weights, args.compute, args.gelu, args.batchnorm)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or MODELS:
        path = args.out / f"{name}.onnx"
        path.write_bytes(build(name, options).SerializeToString())
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
