"""One round of adversarial training: does it help against attacks, and what does it cost?"""

from safetydpo_kedro.pipelines.hardening.pipeline import create_pipeline

__all__ = ["create_pipeline"]
