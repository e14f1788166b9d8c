/* Rule of this folder (openssl/): find the libssl and the SSL* of a Python connection,
   and say what OpenSSL says of it; decide nothing about keys.

   A connection during one call. */
#ifndef PYKEYUPDATE_TLS_H
#define PYKEYUPDATE_TLS_H

#include "openssl/libssl.h"

struct ku_ledger;

/* Valid only during the call; never keep it (see ku_sslobject_ssl()). */
struct ku_tls {
    const struct ku_libssl *libssl;
    SSL *ssl;
    struct ku_ledger *ledger; /* keys/ledger.h; NULL: not a managed connection */
    intptr_t argument;        /* of the step: a number or a pointer */
};

#endif
