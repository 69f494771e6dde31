"""A plugin, which registers when it is imported."""

from ring import base


@base.register
def plugged():
    return "plugged"
