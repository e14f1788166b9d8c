/* May new keys be had now, and scheduling them. */
#ifndef PYKEYUPDATE_SCHEDULING_H
#define PYKEYUPDATE_SCHEDULING_H

#include "openssl/outcome.h"

/* Is the first handshake complete and nothing fatal has happened since? */
enum ku_refusal ku_connection_state(const struct ku_tls *tls);

/* May a renegotiation be scheduled now?  The questions that OpenSSL forgot. */
struct ku_outcome ku_may_renegotiate(const struct ku_tls *tls);

/* Schedule a key update of that type, or a renegotiation, if that may be done now. */
struct ku_outcome ku_schedule_key_update(const struct ku_tls *tls, int update_type);
struct ku_outcome ku_schedule_renegotiation(const struct ku_tls *tls, int abbreviated);

#endif
