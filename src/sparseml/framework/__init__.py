"""What a framework can do on this machine, as data."""

from sparseml.framework.info import (
    FrameworkInferenceProviderInfo,
    FrameworkInfo,
    framework_info,
    load_framework_info,
    save_framework_info,
)

__all__ = [
    "FrameworkInferenceProviderInfo",
    "FrameworkInfo",
    "framework_info",
    "load_framework_info",
    "save_framework_info",
]
