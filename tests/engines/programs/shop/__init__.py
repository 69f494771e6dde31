"""A package as projects have them."""

from . import models, state
from .models import Item

NAME = "shop"
