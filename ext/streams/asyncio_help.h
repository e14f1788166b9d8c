/* Help for asyncio's own transport, which is made for what `ssl` does.

   It cannot do three things.  When it closes, it tries once to write what it has, and
   gives up data that must wait for a renegotiation.  It throws away the data of a turn
   of its loop in which a later read() raises.  And it does not expect an event handler
   to use it in the middle of a read() or write().

   So an SSLObject that belongs to such a transport (`transport`) does it in its place.
   In a renegotiation it takes data, and holds it until the renegotiation is complete
   (`held`).  It tells of a peer that was cut off one turn later.  And it answers what a
   handler has the transport call with "not now" (SSLWantReadError), over which the
   transport keeps its data for later. */
#ifndef PYKEYUPDATE_ASYNCIO_HELP_H
#define PYKEYUPDATE_ASYNCIO_HELP_H

#include "streams/object_io.h"

/* Take data that cannot be encrypted now: 1, or 0 where it is too much, or -1 with an
   exception. */
int ku_asyncio_hold(struct ku_io *io, const char *data, size_t n);

/* Encrypt what is held, once it can be. */
int ku_asyncio_encrypt_held(struct ku_io *io, void *ignored,
                            struct ku_outcome *outcome);

/* The transport is closing: what has been refused it would not write again. */
int ku_asyncio_take_backlog(struct ku_io *io);

/* After a read, whatever it came to; what fails shows in the next call. */
int ku_asyncio_release_held(struct ku_io *io);

/* End the renegotiation that a close_notify has to wait for.  What data comes in front
   nobody will read: the transport is closing. */
int ku_asyncio_end_renegotiation(struct ku_io *io, void *ignored,
                                 struct ku_outcome *outcome);

/* The transport drops what it has read in a turn in which a read() raises.  So in this
   one there is nothing more to read, and in the next the cut is told. */
int ku_asyncio_waits_with_cut(struct ku_io *io);

#endif
