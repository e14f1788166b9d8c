/* The controls, and what decides whether they can be used. */
#ifndef PYKEYUPDATE_CONTROLS_H
#define PYKEYUPDATE_CONTROLS_H

#include "calls/step.h"

/* The functions of pykeyupdate._keyupdate, ended by a NULL entry. */
extern PyMethodDef ku_controls[];

/* Has a fatal error ended the connection? */
int ku_has_failed(const struct ku_libssl *libssl, SSL *ssl);

/* Is the first handshake complete and nothing fatal has happened since? */
enum ku_refusal ku_connection_state(const struct ku_libssl *libssl, SSL *ssl);

/* The type of the key update that is scheduled or owed, SSL_KEY_UPDATE_NONE too where
   the library does not tell. */
int ku_pending_key_update(const struct ku_libssl *libssl, SSL *ssl);

/* Is a renegotiation scheduled or under way?  0 where the library does not tell. */
int ku_renegotiates(const struct ku_libssl *libssl, SSL *ssl);

/* Schedule a key update of that type, or a renegotiation, if that may be done now. */
struct ku_outcome ku_schedule_key_update(const struct ku_libssl *libssl, SSL *ssl,
                                         intptr_t update_type);
struct ku_outcome ku_schedule_renegotiation(const struct ku_libssl *libssl, SSL *ssl,
                                            intptr_t abbreviated);

/* May a renegotiation be scheduled now?  The questions that OpenSSL forgot. */
struct ku_outcome ku_may_renegotiate(const struct ku_libssl *libssl, SSL *ssl);

/* The outcome of an OpenSSL function that schedules and gives 1, or 0 with an
   entry in the error queue, which is emptied. */
struct ku_outcome ku_scheduled(const struct ku_libssl *libssl, int result);

#endif
