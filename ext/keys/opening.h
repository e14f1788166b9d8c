/* The ledger of an SSL: opened with the connection, found again by it, and freed with
   it. */
#ifndef PYKEYUPDATE_OPENING_H
#define PYKEYUPDATE_OPENING_H

#include "keys/ledger.h"

/* Copy OpenSSL's functions and reserve the ex_data index of ledgers, once per process.
   Returns 0, or -1 on failure. */
int ku_ledger_prepare(const struct ku_libssl *libssl);

/* Open the ledger of a connection whose handshake has not begun.  The SSL owns the
   ledger.  NULL if out of memory. */
struct ku_ledger *ku_ledger_open(SSL *ssl, const struct ku_rules *rules);

/* Mark it as a managed socket's, which any thread may renew. */
void ku_ledger_share(struct ku_ledger *ledger);

/* The ledger of a connection; NULL if the connection is not managed. */
struct ku_ledger *ku_ledger_of(const SSL *ssl);

/* Fill in `tls` for a callback of OpenSSL's.  Returns 1, or 0 if the connection is not
   managed. */
int ku_ledger_find(SSL *ssl, struct ku_tls *tls);

/* A copy of its facts.  Any thread may ask, at any time. */
struct ku_facts ku_ledger_facts(const struct ku_ledger *ledger);

/* Fill in `tls` for the connection of an _ssl._SSLSocket.  Returns 1, or 0 if it has no
   connection (see ku_sslobject_ssl()). */
int ku_ledger_tls(const ku_state *state, PyObject *sslobj, struct ku_tls *tls);

#endif
