/* What OpenSSL says about a connection. */
#ifndef PYKEYUPDATE_QUESTIONS_H
#define PYKEYUPDATE_QUESTIONS_H

#include "openssl/tls.h"

int ku_is_tls13(const struct ku_tls *tls);

/* Has a fatal error ended the connection? */
int ku_has_failed(const struct ku_tls *tls);

/* Has the first handshake been completed? */
int ku_was_connected(const struct ku_tls *tls);

/* The type of the key update that is scheduled or owed; SSL_KEY_UPDATE_NONE if there is
   none, or if the library cannot tell. */
int ku_pending_key_update(const struct ku_tls *tls);

/* Is a renegotiation scheduled or under way? 0 if the library cannot tell. */
int ku_renegotiates(const struct ku_tls *tls);

/* Does the kernel hold keys of this connection (kernel TLS), out of our reach? */
int ku_keys_in_kernel(const struct ku_tls *tls);

#endif
