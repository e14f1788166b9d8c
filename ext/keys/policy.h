/* When to change the keys of a managed connection (RekeyPolicy).  The thread that reads
   or writes the connection asks, and schedules the change.

   A write may use the present keys up to their limits, and not a byte further: the
   KeyUpdate that is scheduled here goes out ahead of the data that follows.  If OpenSSL
   says "not now", or the last change was too recent, new keys have to wait and data
   goes on, but not beyond what the cipher suite allows. */
#ifndef PYKEYUPDATE_POLICY_H
#define PYKEYUPDATE_POLICY_H

#include "keys/ledger.h"

/* How many of n bytes may be written next?  Schedules new keys if they are due; n may
   be 0.  Sets `room` and returns KU_OK, or returns a refusal if the keys must change
   and cannot.  Then ask on_impossible (pykeyupdate/_policy.py); if the write may go on
   all the same, call ku_policy_permit_overuse(), which lifts the limits of the present
   keys. */
struct ku_outcome ku_policy_admit_write(const struct ku_tls *tls, size_t n,
                                        size_t *room);
void ku_policy_permit_overuse(struct ku_ledger *ledger);

/* Schedule new keys if ours are old, although nobody reads or writes: TLS 1.3 only.
   `stuck`: what was made before has not been sent.  Returns KU_OK, with value 1 if an
   SSL_do_handshake() should follow now, or a refusal if the keys are too old and cannot
   change: proceed as with ku_policy_admit_write().  `wait` becomes the time until the
   next such call, or KU_NEVER.  Never waits for anything. */
struct ku_outcome ku_policy_rotate(const struct ku_tls *tls, int stuck, ku_time *wait);

/* Has another thread asked for new keys?  Then make them without waiting for data. */
int ku_policy_keys_are_wanted(const struct ku_ledger *ledger);

/* Schedule new keys if they are due; called after a read or at any time.  Returns 1 if
   an SSL_do_handshake() should follow now.  Never waits for anything. */
int ku_policy_renew_if_due(const struct ku_tls *tls);

#endif
