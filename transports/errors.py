"""What can go wrong on a link, and whose fault it is.

    TransportError
      FrameError        the peer's: its bytes are not a legal frame; `cause` is a word to count by
        VersionError    the peer speaks another version of the frame
      EncodeError       ours: this frame must not be sent
      LinkError         nobody's: the path
        LinkDown        there is no connection to the peer
        LinkStalled     connected, but the peer took nothing within the send timeout
        LinkClosed      ours: used after close or abort
      AddressError      the operator's: what is wrong with the address, why, and what to do

Exceptions of zmq, msgpack and struct are turned into these where they arise and never leave this
package.
"""

from __future__ import annotations


class TransportError(Exception):
    """Root of everything this package raises on purpose."""


class FrameError(TransportError):
    """A peer's bytes are not a frame we accept."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(f"{cause}: {text}")
        self.cause = cause


class VersionError(FrameError):
    """A frame of another version: both machines must run the same release."""

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__("version", f"peer sends frame version {theirs}, this side reads {ours}")
        self.theirs = theirs
        self.ours = ours


class EncodeError(TransportError):
    """A frame that must not be sent: it breaks its own rules or the link's limits."""


class LinkError(TransportError):
    """The path to the peer does not work."""


class LinkDown(LinkError):
    """There is no connection to the peer."""


class LinkStalled(LinkError):
    """The peer is connected but took nothing within the send timeout."""


class LinkClosed(LinkError):
    """This end was closed or aborted before."""


class AddressError(TransportError):
    """An address that cannot be used."""

    def __init__(self, address: str, why: str, hint: str) -> None:
        super().__init__(f"cannot use address {address!r}: {why}; {hint}")
        self.address = address
        self.why = why
        self.hint = hint
