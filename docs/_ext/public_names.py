"""Make public names in ``literal text`` links to the reference.

Docstrings and pages write ``rekey()``, ``pykeyupdate.rekey(sock)`` or ``RekeyPolicy``
and nothing else, so that they can be read as they are.
"""

import re
from typing import Any, Optional

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import pykeyupdate
from pykeyupdate import aio, control, opentelemetry, prometheus

NAME = re.compile(
    r"(?:await )?(?P<package>pykeyupdate\.)?"
    r"(?P<name>(?:(?:aio|control|opentelemetry|prometheus|testing)\.)?\w+)"
    r"(?:\.\w+)?(?P<call>\(.*\))?"
)
ADDRESSES = {name: f"pykeyupdate.{name}" for name in pykeyupdate.__all__}
ADDRESSES["testing.advance_clock"] = "pykeyupdate.testing.advance_clock"
for module in (aio, control, opentelemetry, prometheus):
    for name in module.__all__:
        if getattr(module, name).__module__ == module.__name__:
            ADDRESSES[f"{module.__name__.rpartition('.')[2]}.{name}"] = (
                f"{module.__name__}.{name}"
            )
NO_LINK_INSIDE = (nodes.title, nodes.reference, addnodes.pending_xref, nodes.rubric)


class LinkPublicNames(SphinxTransform):
    """Wraps each literal that is a public name in a reference to it."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Do so in the document."""
        for literal in list(self.document.findall(nodes.literal)):
            address = address_of(literal.astext())
            if address and not inside(literal, NO_LINK_INSIDE):
                reference = addnodes.pending_xref(
                    "",
                    refdomain="py",
                    reftype="obj",
                    reftarget=address,
                    refexplicit=True,
                    refwarn=True,
                    refdoc=self.env.docname,
                )
                literal.replace_self(reference)
                reference += literal


def address_of(text: str) -> Optional[str]:
    """Return the public name in a literal; ``renegotiate`` alone is an argument."""
    found = NAME.fullmatch(text)
    if found is None:
        return None
    is_certain = found["package"] or found["call"] or not found["name"].islower()
    return ADDRESSES.get(found["name"]) if is_certain else None


def inside(node: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> bool:
    """Return whether a node is below one of these."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the transform."""
    app.add_transform(LinkPublicNames)
    return {"parallel_read_safe": True}
