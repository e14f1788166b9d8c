/* What OpenSSL reports of a connection while it reads and writes.

   It does so through the info callback, which the ssl module does not use: every change
   of keys, whoever began it, and every renegotiation. */
#ifndef PYKEYUPDATE_REPORTS_H
#define PYKEYUPDATE_REPORTS_H

#include "keys/ledger.h"

/* Have OpenSSL report to the ledger of this connection from now on. */
void ku_start_reports(const struct ku_tls *tls);

#endif
