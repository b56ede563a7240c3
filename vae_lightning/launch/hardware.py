"""Checks accelerator, precision and compiler against this machine."""

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.system.names import not_allowed

COMPILE_MODES = ("off", "default", "reduce-overhead", "max-autotune")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
SHORT_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # Lightning's other names


def check_compile(mode: str, accelerator: str, *, runs_here: bool) -> None:
    """Checks that the mode exists, and that this machine has a compiler for it if the run `runs_here`.

    Raises:
        ConfigError: with the allowed modes, or how to install the compiler.
    """
    if mode not in COMPILE_MODES:
        raise ConfigError(not_allowed("compile", mode, COMPILE_MODES))
    if mode == "off" or not runs_here:
        return
    import torch

    if torch.cuda.is_available() and accelerator != "cpu":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ConfigError(f"compile={mode} needs Triton for this GPU: pip install triton, or take compile=off")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError(
            f"compile={mode} needs a C++ compiler, and there is none here: install one (apt-get install g++), name it "
            "in the environment variable CXX, or take compile=off"
        ) from error


def check_accelerator(accelerator: str) -> None:
    """Checks that PyTorch sees the accelerator.

    Raises:
        ConfigError: it sees none.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["gpu"] = there["cuda"] or there["mps"]
    if not there.get(accelerator, True):
        raise ConfigError(
            f"trainer.accelerator={accelerator}: PyTorch sees no such device here; "
            "trainer=default takes the best there is"
        )


def check_precision(precision: str, accelerator: str, *, runs_here: bool) -> None:
    """Checks that models can be trained in this precision, and that a CPU would not silently replace it.

    Raises:
        ConfigError: with the allowed precisions.
    """
    precision = SHORT_PRECISIONS.get(precision, precision)
    if precision not in PRECISIONS:
        allowed = not_allowed("trainer.precision", precision, ("auto", *PRECISIONS))
        raise ConfigError(f"{allowed}; weights and pixels are float32")
    if precision != "16-mixed" or not runs_here:
        return
    import torch

    if accelerator == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("trainer.precision=16-mixed: CPUs cannot compute in float16; take bf16-mixed or 32-true")


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the accelerator that Lightning will choose computes in bfloat16, else 32-true."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or not torch.backends.mps.is_available():
        has_bfloat16 = torch.cpu._is_avx512_bf16_supported()
    else:
        has_bfloat16 = False  # Apple's GPUs: float32 is as fast
    return "bf16-mixed" if has_bfloat16 else "32-true"
