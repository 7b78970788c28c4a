"""Entry points by which serving engines find tokamask; nothing of an engine is imported before it is wanted."""

from __future__ import annotations

import os


def vllm() -> None:
    """For the group ``vllm.general_plugins``: takes vLLM's backend "guidance" over where ``TOKAMASK_VLLM=1`` is set.

    It replaces something of vLLM's, so being installed is not enough.
    """
    if os.environ.get("TOKAMASK_VLLM") == "1":
        from tokamask.integrations.vllm import install

        install()


def sglang() -> None:
    """For the group ``sglang.srt.plugins``: adds a grammar backend and a speculative algorithm under names of their own."""
    from tokamask.integrations.sglang import register

    register()
