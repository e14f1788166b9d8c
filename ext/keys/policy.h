/* When the keys of a managed connection are to be changed (RekeyPolicy), asked and
   done by the thread that reads or writes it.

   A write may go on under the present keys up to their limits, and not a byte
   further: the KeyUpdate that is scheduled here goes out in front of what follows.
   Where OpenSSL says "not now", or the last change is not long enough ago, new keys
   have to wait and data goes on; not beyond what the cipher suite is good for. */
#ifndef PYKEYUPDATE_POLICY_H
#define PYKEYUPDATE_POLICY_H

#include "keys/ledger.h"

/* How many of n bytes may be written next (n = 0: none), having scheduled new keys
   where they are due.  Refused: keys must be changed and cannot be; ask (see
   pykeyupdate/_policy.py), and where that is to be ignored, excuse. */
struct ku_outcome ku_policy_admit_write(const struct ku_tls *tls, size_t n,
                                        size_t *room);
void ku_policy_permit_overuse(struct ku_ledger *ledger);

/* Has another thread asked for new keys?  They then do not wait for data. */
int ku_policy_keys_are_wanted(const struct ku_ledger *ledger);

/* Schedule new keys if they are due, after a read or at any time.  Does it take an
   SSL_do_handshake() now?  It never waits for anything. */
int ku_policy_renew_if_due(const struct ku_tls *tls);

#endif
