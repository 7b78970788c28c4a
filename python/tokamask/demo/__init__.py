"""A small, readable engine on a real model: runs the whole product without torch."""

from tokamask.demo.generate import Generation, Model, generate
from tokamask.demo.model import Engine
from tokamask.demo.model_file import ModelNotFoundError, find_model

__all__ = ["Engine", "Generation", "Model", "ModelNotFoundError", "find_model", "generate"]
