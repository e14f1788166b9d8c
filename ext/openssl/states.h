/* The states of OpenSSL's handshake machine, by their names: SSL_state_string().

   Their numbers (SSL_get_state()) differ between 3.0 and 3.2; the names have been the
   same from 1.1.1 to 4.0 (ssl_stat.c).  This is the one place that knows them, and it
   proves them when the module is imported. */
#ifndef PYKEYUPDATE_STATES_H
#define PYKEYUPDATE_STATES_H

#include "openssl/module_state.h"
#include "openssl/tls.h"

enum ku_tls_state {
    KU_STATE_OTHER,
    KU_STATE_BEFORE,          /* no handshake has begun */
    KU_STATE_READY,           /* no message is on its way; a KeyUpdate may be due */
    KU_STATE_FAILED,          /* a fatal error: for ever */
    KU_STATE_SENT_KEY_UPDATE, /* the message is made: its bytes may be half sent */
    KU_STATE_READ_KEY_UPDATE, /* the peer's, complete */
};

enum ku_tls_state ku_tls_state(const struct ku_tls *tls);

/* Prove the names on a private connection: TLS 1.3 with a pre-shared key, over memory,
   in which both sides change their keys.  1, or -1 with ImportError where a name is
   another one: what is built on it would not be true.  0 where no such connection can
   be made (a configuration without TLS 1.3) and nothing is proved. */
int ku_states_prove(ku_state *state, PyObject *_ssl);

#endif
