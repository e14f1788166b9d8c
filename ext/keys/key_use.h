/* How much the present keys of a connection have been used, and how long they may be. */
#ifndef PYKEYUPDATE_KEY_USE_H
#define PYKEYUPDATE_KEY_USE_H

#include "keys/ledger.h"

/* Both directions have new keys, of the first handshake or of a renegotiation. */
void ku_start_keys(const struct ku_tls *tls);

/* One direction has new keys by a KeyUpdate. */
void ku_start_sent_keys(const struct ku_tls *tls);
void ku_start_received_keys(const struct ku_tls *tls);

/* Count data that has gone out (all of a write or a part), and data that has come in.
   `begins`: that data began a record. */
void ku_count_sent(struct ku_ledger *ledger, size_t bytes);
void ku_count_received(struct ku_ledger *ledger, size_t bytes, int begins);

/* Count a record that has been begun, and of which nothing has been read. */
void ku_count_begun(struct ku_ledger *ledger);

#endif
