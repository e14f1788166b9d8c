/* A connection in the hands of one call. */
#ifndef PYKEYUPDATE_TLS_H
#define PYKEYUPDATE_TLS_H

#include "openssl/libssl.h"

struct ku_ledger;

/* It is as old as the call, and never kept: see ku_sslobject_ssl(). */
struct ku_tls {
    const struct ku_libssl *libssl;
    SSL *ssl;
    struct ku_ledger *ledger; /* keys/ledger.h; NULL: the connection is not managed */
    intptr_t argument;        /* of the step that is taken: a number, or a pointer */
};

#endif
