/* How much a peer may make this side do: PeerLimits.

   A peer that does too much is cut off here, inside the SSL_read() that processes its
   messages: SSL_set_shutdown(SSL_RECEIVED_SHUTDOWN) ends that call before the next
   record, and SSL_OP_NO_RENEGOTIATION refuses a ClientHello that is being read. */
#ifndef PYKEYUPDATE_PEER_LIMITS_H
#define PYKEYUPDATE_PEER_LIMITS_H

#include "keys/ledger.h"

/* Count one more of what the peer may do so often.  A KeyUpdate is not counted here if it
   answers a request of ours. */
void ku_limit_key_updates(const struct ku_tls *tls);
void ku_limit_session_tickets(const struct ku_tls *tls);
void ku_limit_renegotiations(const struct ku_tls *tls);

/* Begin to measure how long a renegotiation takes. */
void ku_start_renegotiation_time(const struct ku_tls *tls);

/* Before OpenSSL reads or writes: cut the peer off if it has been in a renegotiation for
   too long. */
void ku_limit_renegotiation_time(const struct ku_tls *tls);

/* From now on the peer may not renegotiate. */
void ku_forbid_renegotiation(const struct ku_tls *tls);

/* Let the peer renegotiate (1), or restore what was before (-1).  Calls may nest. */
void ku_allow_renegotiation(const struct ku_tls *tls, int change);

#endif
