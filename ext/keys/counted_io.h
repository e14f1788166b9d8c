/* SSL_read(), SSL_write() and SSL_peek(), which also count what passes in the ledger,
   if the connection has one. */
#ifndef PYKEYUPDATE_COUNTED_IO_H
#define PYKEYUPDATE_COUNTED_IO_H

#include "openssl/outcome.h"

/* Return KU_OK, or ku_failed_io()'s outcome.  `done` becomes the number of bytes read
   or written. */
struct ku_outcome ku_counted_read(const struct ku_tls *tls, char *data, size_t room,
                                  size_t *done);
struct ku_outcome ku_counted_write(const struct ku_tls *tls, const char *data,
                                   size_t length, size_t *done);

/* Peek at one byte.  That drives a handshake past application data, and leaves the data
   for the next read.  Returns KU_OK if there is data.  Counts the record that the peek
   begins. */
struct ku_outcome ku_counted_peek(const struct ku_tls *tls);

/* Does this outcome of a read mean the end of the data?  A close_notify does, unless we
   have sent ours or the peer was cut off.  _ssl does the same. */
int ku_is_end_of_data(const struct ku_tls *tls, const struct ku_outcome *outcome);

#endif
