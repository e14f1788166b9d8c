/* Help for asyncio's own transport, which is made for what `ssl` does.

   That transport cannot handle three things.  When it closes, it tries once to write
   what it has, and gives up data that must wait for a renegotiation.  It throws away
   the data of a turn of its loop if a later read() in that turn raises.  And it does
   not expect an event handler to use it in the middle of a read() or write().

   So an SSLObject that belongs to such a transport (`transport`) handles them instead.
   During a renegotiation it accepts data, and holds the data until the renegotiation is
   complete (`held`).  It reports one turn later that a peer was cut off.  And if a
   handler has the transport call it, it answers "not now" (SSLWantReadError), and the
   transport keeps its data for later. */
#ifndef PYKEYUPDATE_ASYNCIO_HELP_H
#define PYKEYUPDATE_ASYNCIO_HELP_H

#include "streams/object_io.h"

/* Hold data that cannot be encrypted now.  Returns 1, 0 if it is too much to hold, or
   -1 with an exception. */
int ku_asyncio_hold(struct ku_io *io, const char *data, size_t n);

/* Encrypt what is held, unless a renegotiation is under way.  A ku_io_action. */
int ku_asyncio_encrypt_held(struct ku_io *io, void *ignored,
                            struct ku_outcome *outcome);

/* The transport is closing: have it write what we have refused, which it would not try
   again.  Returns 0, or -1 with an exception. */
int ku_asyncio_take_backlog(struct ku_io *io);

/* Encrypt what is held, after a read and whatever its result.  Returns 0, or -1 with an
   exception; any other failure shows in the next call. */
int ku_asyncio_release_held(struct ku_io *io);

/* Finish the renegotiation that a close_notify has to wait for.  Data that comes before
   its end is dropped: the transport is closing, so nobody will read it.  A
   ku_io_action. */
int ku_asyncio_end_renegotiation(struct ku_io *io, void *ignored,
                                 struct ku_outcome *outcome);

/* Should a read report the cut-off later?  The transport drops what it has read in a
   turn in which a read() raises.  So in this turn there is nothing more to read, and
   the cut-off is raised in the next.  Returns 1 if there will be a next turn; 0 to
   raise now; or -1 with an exception. */
int ku_asyncio_waits_with_cut(struct ku_io *io);

#endif
