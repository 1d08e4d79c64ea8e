"""A service in Python with Mirascope, which has a header of its own for the session."""

import peer
from mirascope import ops

ops.configure(tracer_provider=peer.provider)
peer.serve(
    language="Mirascope",
    key="mirascope.ops.session.id",
    received=lambda headers: ops.propagated_context(extract_from=headers),
    session=lambda id: ops.session(id=id),
    span=ops.span,
    inject=ops.inject_context,
)
