/* What keeps a connection from having new keys, for threads that may not ask OpenSSL:
   noted when it arises, as a cause; KU_CAUSE_NOT_YET before the first handshake is
   complete, and KU_CAUSE_END if nothing does. */
#ifndef PYKEYUPDATE_OBSTACLES_H
#define PYKEYUPDATE_OBSTACLES_H

#include "keys/ledger.h"

/* Note what the version, the policy, the options and the peer allow by now.  Of a
   connection whose first handshake is not complete, and of one that has ended, this
   notes nothing. */
void ku_note_obstacle(const struct ku_tls *tls);

/* Note that nothing can be sent any more (KU_CAUSE_ENDED), or that the peer will not
   answer (KU_CAUSE_CLOSE_RECEIVED). */
void ku_note_lasting_obstacle(struct ku_ledger *ledger, enum ku_cause cause);

#endif
