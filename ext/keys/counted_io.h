/* SSL_read(), SSL_write() and SSL_peek(), and what goes through counted in the ledger,
   if there is one. */
#ifndef PYKEYUPDATE_COUNTED_IO_H
#define PYKEYUPDATE_COUNTED_IO_H

#include "openssl/outcome.h"

/* KU_OK, or what the failure means; `done` is how many bytes were read or written. */
struct ku_outcome ku_counted_read(const struct ku_tls *tls, char *data, size_t room,
                                  size_t *done);
struct ku_outcome ku_counted_write(const struct ku_tls *tls, const char *data,
                                   size_t length, size_t *done);

/* Peek at a byte, which drives a handshake past application data and leaves that data
   for the next read: KU_OK where there is some.  The record that it begins is counted. */
struct ku_outcome ku_counted_peek(const struct ku_tls *tls);

/* Is this outcome of a read the end of the data?  A close_notify is, unless we have sent
   ours or the peer was cut off: as in _ssl. */
int ku_is_end_of_data(const struct ku_tls *tls, const struct ku_outcome *outcome);

#endif
