/* Checks whether new keys may be made now, and schedules them. */
#ifndef PYKEYUPDATE_SCHEDULING_H
#define PYKEYUPDATE_SCHEDULING_H

#include "openssl/outcome.h"

/* Returns KU_OK; KU_NO_HANDSHAKE if the first handshake is not complete; or KU_FAILED
   after a fatal error, or if the peer was cut off. */
enum ku_refusal ku_connection_state(const struct ku_tls *tls);

/* May a key update of this type, or a renegotiation, be scheduled now?  Return KU_OK or
   a refusal.  These are the checks that OpenSSL does not make. */
struct ku_outcome ku_check_key_update(const struct ku_tls *tls, int update_type);
struct ku_outcome ku_check_renegotiation(const struct ku_tls *tls);

/* Schedule a key update of this type, or a renegotiation, if that is allowed now.
   Return KU_OK or a refusal.  Nothing is sent yet. */
struct ku_outcome ku_schedule_key_update(const struct ku_tls *tls, int update_type);
struct ku_outcome ku_schedule_renegotiation(const struct ku_tls *tls, int abbreviated);

#endif
